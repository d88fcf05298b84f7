"""Smaller students of trained ones: units removed (`prune`), weights as whole numbers of eight bits (`int8`)."""
