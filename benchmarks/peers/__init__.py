"""Time from a loaded teacher to a student that holds 95 % of its return, beside what others offer."""

from benchmarks.peers.measuring import measure

__all__ = ["measure"]
