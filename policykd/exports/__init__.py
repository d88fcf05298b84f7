"""Students as files for other programs: one neutral graph, a writer for each target, and the proof beside each file."""
