"""`policykd tune`: settings that a family does not cover, tried one distillation after the other."""
