"""Which rows may be trained on: what is expected, what was found, what stands in a benchmark."""
