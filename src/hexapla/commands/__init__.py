"""What a person types beside the pipeline: `hexapla evaluate MODEL`, `hexapla compare DIR DIR`."""
