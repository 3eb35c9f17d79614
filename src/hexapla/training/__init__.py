"""Batch plans, the loss, the training loop and its checkpoints."""
