"""What is known of the warm-up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass
class Warmup:
    """`source`: what the critic learned from. `r2`: the part of its targets' variance that it explains, `teacher_r2`
    that of the returns which the teacher's values do (None without such)."""

    done: bool
    rounds: int = 0
    source: Literal["returns", "teacher"] = "returns"
    r2: float | None = None
    teacher_r2: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For result.json and the checkpoint."""
        return asdict(self)
