"""Settings of different sections that make no sense together: refused as soon as the configuration is read."""

from __future__ import annotations

from policykd.spine.config.data import DataConfig
from policykd.spine.config.loss import LossConfig
from policykd.spine.config.student import StudentConfig


def refuse_misfits(student: StudentConfig, data: DataConfig, loss: LossConfig) -> None:
    """Raises ValueError with the reason and the alternative."""
    if student.kind == "gru" and data.weighting not in ("auto", "none"):
        raise ValueError(
            f"data.weighting {data.weighting}: a gru learns whole sequences, whose states cannot be drawn one by one: "
            "use data.weighting=none"
        )
    if student.kind == "tree" and (loss.kind != "forward_kl" or loss.temperature != 1.0):
        raise ValueError(
            "loss: a tree (student.kind tree) is grown on the teacher's actions and follows no loss: leave loss.kind "
            "and loss.temperature as they are, or choose another student.kind"
        )
