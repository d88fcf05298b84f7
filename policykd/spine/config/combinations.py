"""Settings of different sections that make no sense together: refused as soon as the configuration is read."""

from __future__ import annotations

from policykd.spine.config.compress import CompressConfig
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


def refuse_offline(data: DataConfig, rollout: RolloutConfig, robust: RobustConfig) -> None:
    """Raises ValueError where data that lies ready is given, and settings of how to collect some."""
    if data.dir is None:
        return
    if rollout.beta != BetaConfig():
        raise ValueError("rollout.beta has no effect with data.dir, since nobody acts: leave one of them out")
    if robust.collect:
        raise ValueError(
            "robust.collect has no effect with data.dir, since nothing is collected: give it to policykd collect, and "
            "leave it out here"
        )


def refuse_compression(student: StudentConfig, compress: CompressConfig, *, searching: bool) -> None:
    """Raises ValueError where nothing can be made smaller, or by a search, which makes members of other sizes."""
    if compress.prune != "none" and student.start is None:
        raise ValueError(
            f"compress.prune {compress.prune}: there is nothing to remove units from: name a wider student in "
            "student.start, or leave compress.prune out"
        )
    if compress.int8 != "none" and student.kind != "mlp":
        raise ValueError(
            f"compress.int8 {compress.int8}: only students of kind mlp have weights of 8 bits, and this is a "
            f"{student.kind}: leave compress.int8 out"
        )
    if searching and (student.start is not None or compress.int8 != "none"):
        raise ValueError(
            "student.start and compress belong to `policykd distill`, which trains one family: a search makes members "
            "of other sizes; leave them out"
        )
