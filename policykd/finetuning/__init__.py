"""Reinforcement learning behind distillation: a student learns on from its own rewards."""
