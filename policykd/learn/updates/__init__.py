"""How members learn from a round: gradient steps, or trees grown anew."""
