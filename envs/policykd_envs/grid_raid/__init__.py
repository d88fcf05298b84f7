"""GridRaid: a small game of gems, keys and guards, in which most actions are forbidden most of the time."""
