"""Settings of different sections that make no sense together: refused as soon as the configuration is read."""

from __future__ import annotations

from policykd.spine.config.augment import AugmentConfig
from policykd.spine.config.data import DataConfig
from policykd.spine.config.loss import LossConfig
from policykd.spine.config.robust import RobustConfig
from policykd.spine.config.rollout import BetaConfig, RolloutConfig
from policykd.spine.config.student import StudentConfig


def refuse_misfits(student: StudentConfig, data: DataConfig, loss: LossConfig, *, searching: bool) -> None:
    """Raises ValueError with the reason and the alternative."""
    if student.kind == "gru" and data.weighting != "none":
        raise ValueError(
            f"data.weighting {data.weighting}: a gru learns whole sequences, whose states cannot be drawn one by one: "
            "use data.weighting=none"
        )
    lists = [name for name in ("temperature", "alpha") if isinstance(getattr(loss, name), list)]
    if searching and (lists or loss.adapt != "none" or loss.hard_rounds):
        name = lists[0] if lists else ("adapt" if loss.adapt != "none" else "hard_rounds")
        raise ValueError(
            f"loss.{name} {getattr(loss, name)}: a search has no rounds of its own for it, and its family differs in "
            "size alone: try it with policykd distill, and give shrink the best"
        )


def refuse_offline(data: DataConfig, rollout: RolloutConfig, robust: RobustConfig, loss: LossConfig) -> None:
    """Raises ValueError where data that lies ready is given, and settings that need somebody who acts."""
    if data.dir is None:
        return
    if rollout.beta != BetaConfig():
        raise ValueError("rollout.beta has no effect with data.dir, since nobody acts: leave one of them out")
    if robust.collect:
        raise ValueError(
            "robust.collect has no effect with data.dir, since nothing is collected: give it to policykd collect, and "
            "leave it out here"
        )
    if loss.adapt != "none":
        raise ValueError(
            f"loss.adapt {loss.adapt}: follows the agreement on states that the students visit, and with data.dir they "
            "visit none: use loss.adapt=none"
        )


def refuse_augmented_sequences(student: StudentConfig, augment: AugmentConfig) -> None:
    """Raises ValueError for a student with a memory: what it remembers was made of the states that were visited."""
    if student.kind == "gru" and augment.active:
        raise ValueError(
            "augment: a gru remembers what it saw, which single jittered states do not fit: use robust.noise with "
            "robust.collect, which is there while the states are visited"
        )
