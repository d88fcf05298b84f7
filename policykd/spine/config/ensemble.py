"""The section `ensemble`: several teachers of one environment (docs/methods/ensembles.md)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Section

How = Literal["mixture", "product", "value"]


class EnsembleConfig(Section):
    """Several teachers of one environment, whose distributions become one."""

    teachers: list[str] = []
    """The teachers beside `teacher`; none: it teaches alone."""
    how: How = "mixture"
    """mixture: the weighted mean of their densities. product: the weighted geometric mean. value: in each state the
    teacher whose own critic expects most of it."""
    weights: Literal["equal", "return"] | list[Annotated[float, Field(ge=0)]] = "equal"
    """Of `teacher` and then the others: equal, by how much each returns above random on the selection seeds, or
    numbers, of which only the ratios count."""
    q_temperatures: Auto | list[Annotated[float, Field(gt=0)]] = "auto"
    """What each one's Q-values are divided by, 1 for teachers without; auto: loss.q_temperature, or where that is auto,
    each from its own spread."""

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        count = len(self.teachers) + 1  # teachers that are given as objects are counted when they are there
        for name in ("weights", "q_temperatures"):
            given = getattr(self, name)
            if isinstance(given, list) and self.teachers and len(given) != count:
                raise ValueError(
                    f"{name} has {len(given)} numbers, expected one for each of {count} teachers (`teacher` and "
                    "ensemble.teachers): name them all, or leave it out"
                )
        if isinstance(self.weights, list) and not any(self.weights):
            raise ValueError("weights are all 0, expected one above 0 at least: raise that of a teacher to listen to")
        if self.how == "value" and self.teachers and self.weights not in ("equal", [1 / count] * count):
            raise ValueError("weights have no effect with how value, where one teacher speaks: leave them out")
        return self
