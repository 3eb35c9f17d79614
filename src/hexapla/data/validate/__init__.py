"""Which rows may be trained on, and which are in a benchmark."""
