"""What a round changes, and what of it is kept: families, labels, selection, checkpoints."""
