"""The labelled states."""
