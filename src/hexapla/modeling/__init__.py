"""The encoder: loading and saving it, texts to unit vectors, adapters, centering by language."""
