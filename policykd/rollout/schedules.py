"""beta(round): the probability that the teacher acts (DAgger, Ross et al. 2011, arXiv:1011.0686, section 3)."""

from __future__ import annotations

from collections.abc import Callable

from policykd.spine.config.rollout import BetaConfig

Schedule = Callable[[int], float]


def beta_schedule(config: BetaConfig, rounds: int) -> Schedule:
    """A function of the round, with values in [0, 1].

    first_round: 1, then 0 (the paper's I(i = 1)). exponential: decay^round. linear: from 1 to `final`.
    Round 0 is the teacher's in every schedule: an untrained student visits nothing worth labelling.
    """
    if config.schedule == "constant":
        return lambda r: config.value if r else 1.0
    if config.schedule == "linear":
        return lambda r: 1.0 + (config.final - 1.0) * min(r / max(rounds - 1, 1), 1.0)
    if config.schedule == "exponential":
        return lambda r: config.decay**r
    return lambda r: 1.0 if r == 0 else 0.0
