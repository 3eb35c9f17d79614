"""Hexapla trains dense retrievers that answer across languages without preferring their own."""
