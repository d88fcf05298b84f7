"""Compact policies, trained as a family, loaded without the teacher."""
