"""Retrieval benchmarks: known ones and their addresses; the LAReQA and MIRACL formats."""
