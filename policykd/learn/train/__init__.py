"""Teachers, trained with stable-baselines3 as a configuration says."""
