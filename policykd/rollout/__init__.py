"""Who acts, who labels, and how environments are stepped."""
