"""Distributions and losses: pure functions of tensors."""
