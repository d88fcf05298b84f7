"""The sections `collect` and `tune`: labelled data on disk (docs/methods/offline.md), and settings that are searched
for (docs/methods/tuning.md)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Positive, Section

_ID = re.compile(r"([A-Za-z0-9_-]{1,80}/){0,4}[A-Za-z0-9_-]{1,80}-v[0-9]{1,9}")


class CollectConfig(Section):
    """What `policykd collect` writes; how much, and who acts, is said in `rollout`, a round there is a shard here."""

    student: str | None = None
    """A student file that acts beside the teacher, as rollout.beta says; without it the teacher acts throughout."""
    minari: str | None = None
    """The id, such as cartpole/teacher-v0, under which the same data is written as a Minari data set too."""

    @model_validator(mode="after")
    def _an_id(self) -> Self:
        if self.minari is not None and not _ID.fullmatch(self.minari):
            raise ValueError(
                f"minari {self.minari[:60]!r}: expected an id such as cartpole/teacher-v0, of a Minari data set"
            )
        return self


class TuneConfig(Section):
    """What `policykd tune` tries, on the selection seeds alone."""

    trials: Positive = 20
    """Distillations that come to an end or are given up; the first has the settings as they are."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no trial goes on, once one has ended."""
    pruning: Literal["median", "none"] = "median"
    """median: a trial is given up after a round where it agrees less with the teacher than half of the earlier ones."""
    space: dict[str, Any] = {}
    """What is tried: {update.learning_rate: {low: 1e-3, high: 3e-2, log: true}, loss.kind: [forward_kl, reverse_kl]};
    nothing: the space of docs/methods/tuning.md."""
