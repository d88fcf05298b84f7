"""How every member stands: its judged weights, and their returns on the selection seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.evaluation.confirm import Demand
from policykd.evaluation.episodes import Episodes
from policykd.evaluation.gate import Paired
from policykd.evaluation.parallel import Job
from policykd.learn.judging.trial import Reference, fulfil, player
from policykd.learn.setup.session import Session
from policykd.search.choosing import differences
from policykd.students.spec import MemberSpec
from policykd.students.student import Student

_JUDGED = "judged"  # the file of selection returns in the run's checkpoints
_LAYERS = "layers."  # before the names of a dense layer's weights, and left out in checkpoints
_MEASURED = ("agreement", "train_kl", "validation_kl")


def key_of(spec: MemberSpec, index: int) -> str:
    """The name of a member's candidate after round `index` of the run."""
    return f"{spec.name}-r{index}"


@dataclass(eq=False)
class Candidate:
    """A member as it was after a round. `measured`: agreement and losses of that round, NaN where unknown."""

    spec: MemberSpec
    round: int
    timesteps: int
    student: Student
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in files."""
        return key_of(self.spec, self.round)

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.student.footprint.params

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Its weights and log_std, by names that begin with its key."""
        prefix, found = f"candidate.{self.key}.", {"log_std": self.student.log_std, **self.student.weights()}
        return {prefix + name.removeprefix(_LAYERS): value.cpu().numpy() for name, value in found.items()}

    @staticmethod
    def weights_in(tensors: Mapping[str, NDArray[Any]], key: str) -> dict[str, NDArray[Any]]:
        """Weights (by the names of `Student.weights`) and log_std of the candidate `key`, as `tensors` named them."""
        prefix = f"candidate.{key}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        return {f"{_LAYERS}{name}" if name[0].isdigit() else name: value for name, value in own.items()}


class Standing:
    """The candidates, and what they returned. `dropped`: members that came nowhere near and are out; `stopped`: those
    that learn no more, since smaller ones seem to do, and are only fallen back on; `walked`: the candidate that stands
    for a member, once it was played to a verdict."""

    def __init__(self, session: Session, demand: Demand) -> None:
        self.session, self.demand = session, demand
        known = {who: list(session.baseline[f"{who}_returns"]) for who in ("teacher", "random")}
        self.reference = Reference(session, "select", session.config.evaluate.select_first_seed, known)
        self.candidates: dict[str, Candidate] = {}
        self.dropped: set[MemberSpec] = set()
        self.stopped: set[MemberSpec] = set()
        self.walked: dict[MemberSpec, str] = {}
        self._judged: dict[str, list[float]] = session.folder.load_facts(_JUDGED) or {}

    def add(self, candidate: Candidate) -> None:
        """One more to choose from."""
        self.candidates[candidate.key] = candidate

    def judge(self, key: str, n: int) -> Paired:
        """The first n selection episodes of a candidate, or more, where more were played; missing ones are played."""
        self.play([key], n)
        first, returns = self.session.config.evaluate.select_first_seed, self._judged[key]
        teacher, random = self.reference.on(range(first, first + len(returns)))
        return Paired(teacher, np.asarray(returns), random)

    def play(self, keys: Iterable[str], n: int) -> None:
        """The first n selection episodes of several candidates, all together."""
        session = self.session
        first = session.config.evaluate.select_first_seed
        requests = self.reference.requests(first + n)
        for key in keys:
            done = len(self._judged.setdefault(key, []))
            missing = range(first + done, first + n)
            if missing:
                acting = session.acting(self.candidates[key].student)
                job = Job(player(session, acting, done), missing)
                requests.append((job, partial(self._keep, key)))
        if requests:
            fulfil(session, requests)
            session.folder.save_facts(_JUDGED, self._judged)

    def _keep(self, key: str, episodes: Episodes) -> None:
        self._judged[key].extend(episodes.returns.tolist())

    def played(self, key: str) -> int:
        """Selection episodes of a candidate so far."""
        return len(self._judged.get(key, ()))

    @property
    def most_played(self) -> int:
        """Selection seeds that were used."""
        return max(map(len, self._judged.values()), default=0)

    def of(self, spec: MemberSpec) -> list[Candidate]:
        """Every judged candidate of a member, in the order of rounds."""
        found = [c for c in self.candidates.values() if c.spec == spec and self.played(c.key)]
        return sorted(found, key=lambda c: c.round)

    def best_of(self, spec: MemberSpec) -> Candidate | None:
        """The member's candidate to judge it by: the one that was settled, though another, played for a few episodes,
        may look better; else the one of most worth."""
        key = self.walked.get(spec)
        return max(self.of(spec), key=self.worth, default=None) if key is None else self.candidates[key]

    def settle(self, keys: Iterable[str]) -> None:
        """From now on each of these candidates stands for its member."""
        self.walked |= {self.candidates[key].spec: key for key in keys}

    def worth(self, candidate: Candidate, first: int | None = None) -> tuple[float, int]:
        """Mean of D less one standard error, over all its episodes or the first few: luck counts for little."""
        paired = self.judge(candidate.key, 1)
        mean, error = differences(paired if first is None else paired.first(first), self.demand.threshold)
        return mean - error, candidate.round

    @property
    def members(self) -> list[MemberSpec]:
        """Everyone that was judged, smallest first."""
        specs = {c.spec: c.params for c in self.candidates.values() if self.played(c.key)}
        return sorted(specs, key=lambda spec: (specs[spec], spec))

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forgets the weights of all other candidates that were not judged."""
        wanted = set(keys)
        self.candidates = {k: c for k, c in self.candidates.items() if k in wanted or self.played(k)}

    def to_json(self) -> dict[str, Any]:
        """All but the weights and the returns, which have files of their own."""
        return {
            "dropped": [spec.row for spec in sorted(self.dropped)],
            "stopped": [spec.row for spec in sorted(self.stopped)],
            "walked": sorted(self.walked.values()),
            "candidates": [
                {
                    "spec": c.spec.row,
                    "round": c.round,
                    "timesteps": c.timesteps,
                    "measured": {name: c.measured.get(name) for name in _MEASURED if name in c.measured},
                }
                for c in self.candidates.values()
            ],
        }
