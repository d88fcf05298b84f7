"""Fitting students to teachers."""
