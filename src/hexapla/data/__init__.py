"""From what people have to clean parallel pairs."""
