"""The sections `evaluate`, `gate` and `search`: how students are judged, and what they must hold."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Positive, Section, Seed


class EvaluateConfig(Section):
    """Returns against the teacher, and the seeds that choose nothing."""

    episodes: Annotated[int, Field(ge=2, le=1_000_000)] = 100
    """Report episodes; episode i has seed `first_seed` + i, the same for teacher, student and random policy."""
    first_seed: Seed = 10_000
    select_episodes: Annotated[int, Field(ge=2, le=1_000_000)] = 20
    """Episodes that choose which round and member to keep, and that judge the teacher beforehand."""
    select_first_seed: Seed = 1_000_000
    deterministic: bool = True
    """Whether teacher and student act by the mode of their distribution."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        report = range(self.first_seed, self.first_seed + self.episodes)
        select = range(self.select_first_seed, self.select_first_seed + self.select_episodes)
        for name, seeds in (("first_seed", report), ("select_first_seed", select)):
            if seeds.stop > 2**31:
                raise ValueError(f"{name} {seeds.start}: its last seed {seeds.stop - 1} is not below 2^31: lower it")
        if report.start < select.stop and select.start < report.stop:
            raise ValueError(
                f"the seeds that choose ({select.start} to {select.stop - 1}) overlap the seeds that are reported "
                f"({report.start} to {report.stop - 1}): move select_first_seed or first_seed"
            )
        return self


class GateConfig(Section):
    """What the student must hold. Without `keep` nothing is required."""

    keep: Annotated[float, Field(gt=0, le=2)] | None = None
    """Retention that must be held: the run passes when the interval's lower end is at least keep - margin."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Slack below `keep`."""
    least_episodes: Annotated[int, Field(ge=2, le=100_000)] = 200
    """Report episodes that a pass takes at least, in the place of evaluate.episodes; a hopeless student is given up
    after half of them."""
    most_episodes: Auto | Annotated[int, Field(ge=2, le=100_000)] = "auto"
    """Where the test gives up; auto: about 400,000 timesteps, at least 400 and at most 1000 episodes."""

    @model_validator(mode="after")
    def _margin_of_something(self) -> Self:
        if self.keep is None and self.margin != GateConfig.model_fields["margin"].default:
            raise ValueError(f"margin {self.margin} has no effect without keep: set gate.keep (--keep) as well")
        if isinstance(self.most_episodes, int) and self.most_episodes < self.least_episodes:
            raise ValueError(f"most_episodes {self.most_episodes} is less than least_episodes {self.least_episodes}")
        return self


class SearchConfig(Section):
    """How `policykd shrink` looks for the smallest student that passes the gate. student.width and student.depth are
    the grid; where the width is `auto`, it goes from a linear policy (of a gru: from one number that is remembered) up
    to the teacher's own size."""

    generations: Positive = 4
    """Families that are trained one after the other at most, each nearer to the border, on one growing data set. The
    first takes rollout.rounds rounds."""
    refine_rounds: Positive = 8
    """Rounds of each later generation."""
    seeds: Positive = 3
    """Members per architecture near the border, which differ by their initial weights."""
    drivers: Positive = 6
    """Members that drive environments in a round: those nearest to the border."""
    attempts: Annotated[int, Field(ge=1, le=3)] = 3
    """Times that a student may be tried on fresh seeds; the error is split among them."""
    max_params: Positive | None = None
    """Weights and biases of the student at most."""
    max_bytes: Positive | None = None
    """Bytes of constants of the exported C at most, the normaliser's included."""
    max_us: Annotated[float, Field(gt=0)] | None = None
    """Microseconds of one action of the exported C at most, on this machine."""
