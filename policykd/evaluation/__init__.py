"""Episodes, retention and its interval."""
