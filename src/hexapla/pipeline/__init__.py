"""The stages, one a file, each read from top to bottom."""
