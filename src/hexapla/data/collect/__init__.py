"""Question-passage pairs from every source, without duplicates."""
