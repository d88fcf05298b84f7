"""What a run needs before its first round: sources, defaults that follow from the teacher, a session."""
