"""Settings of different sections that make no sense together: refused as soon as the configuration is read."""

from __future__ import annotations

from policykd.spine.config.data import DataConfig
from policykd.spine.config.student import StudentConfig


def refuse_misfits(student: StudentConfig, data: DataConfig) -> None:
    """Raises ValueError with the reason and the alternative."""
    if student.kind == "gru" and data.weighting != "none":
        raise ValueError(
            f"data.weighting {data.weighting}: a gru learns whole sequences, whose states cannot be drawn one by one: "
            "use data.weighting=none"
        )
