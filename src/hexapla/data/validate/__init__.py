"""Which rows may be trained on, and which stand in a benchmark."""
