"""Retrieval benchmarks: known ones and where they lie; the LAReQA and MIRACL formats."""
