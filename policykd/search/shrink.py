"""The search: generations of a family until the border is known, then the smallest member that a gate confirms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from policykd.evaluation.confirm import Attempt
from policykd.evaluation.gate import Paired
from policykd.learn.judging.proof import Proof, demand_of, prove
from policykd.learn.rounds.states import LearningState
from policykd.learn.setup.session import Session
from policykd.search.choosing import LADDER, confirmed, settle, verdict
from policykd.search.generation import TICKETS, Plan, one_round, opened
from policykd.search.grid import SCOUT_MACS, costs, grid, scouts, size_of
from policykd.search.latency import Latencies
from policykd.search.planning import Known, next_plan
from policykd.search.progress import restore, save
from policykd.search.standing import Candidate, Standing
from policykd.students.spec import MemberSpec, conv_of

_FINALISTS = "finalists"  # the file of what is confirmed, in the run's checkpoints


@dataclass(frozen=True)
class Outcome:
    """What the search found: the candidate that passed (where none did, the best that was tried), its proof, and all
    others."""

    candidate: Candidate
    proof: Proof
    attempts: dict[str, Attempt]
    standing: Standing
    latencies: Latencies
    timesteps: int


class Shrink:
    """One search. `demand` is the gate's; the configuration has no `auto` left."""

    def __init__(self, session: Session) -> None:
        demand = demand_of(session)
        assert demand is not None and session.config.search is not None
        self.session, self.demand, self.config = session, demand, session.config.search
        teacher = session.teacher
        self._observed, self._means = session.view.packing, teacher.distribution.n_means
        self.size = size_of(self._observed, self._means)
        self.standing = Standing(session, demand)
        self.latencies = Latencies(session)
        self.specs = grid(session.config, teacher, self.size)
        if self.config.max_us is not None:  # before anything is trained that could not be chosen
            self.specs = self.latencies.within(self.specs, self.config.max_us)
        observed = self._observed if conv_of(session.config.student) else 1
        self.known = Known(self.specs, self.size, self.standing, observed)

    def run(self) -> Outcome:
        """Every generation that is still to do, then the confirmation."""
        session, rounds = self.session, self.session.config.rollout.rounds
        found = restore(session, self.standing)
        if found is None:
            chosen = scouts(self.specs, costs(self._observed, self._means, SCOUT_MACS))
            plan: Plan | None = Plan(0, tuple(sorted(chosen)), 0, rounds)
            state: LearningState | None = None
        else:
            state, plan = found
        while plan is not None:
            if state is None or state.rounds_done <= plan.first:
                self._announce(plan)
                state = opened(session, plan, state)
            for index in range(state.rounds_done, plan.end):
                one_round(state, self.standing, plan, index)
                save(state, self.standing, plan, index)
            self._settle(plan)
            plan = next_plan(self.known, plan, self.config, rounds)
        assert state is not None
        return self._confirm(state.timesteps)

    def _announce(self, plan: Plan) -> None:
        sizes = sorted(map(self.size, plan.specs))
        what = f"{len(sizes)} students of {sizes[0]:,} to {sizes[-1]:,} parameters" if len(sizes) > 1 else "1 student"
        self.session.work.tracker.note(f"generation {plan.number + 1}: {what}")

    def _settle(self, plan: Plan) -> None:
        """Goes up through the generation's members until one passes; who is left out keeps what the rungs said."""
        members = [m for m in plan.specs if m not in self.standing.dropped]
        with self.session.work.stage("select"):
            settled = settle(self._contenders(members, plan), self.standing.judge, self.demand)
        self.standing.settle(settled.verdicts)
        self.standing.keep_only(())
        smallest = self.known.passing[:1]
        size = f"{self.size(smallest[0]):,} parameters" if smallest else "none"
        tried = len(settled.verdicts)
        self.session.work.tracker.note(f"smallest that passes on selection episodes so far: {size} ({tried} judged)")

    def _contenders(self, members: list[MemberSpec], plan: Plan) -> Iterator[str]:
        """The best ticket of each member that is not clearly failing, smallest first."""
        for member in sorted(members, key=lambda m: (self.size(m), m)):
            own = [c for c in self.standing.candidates.values() if c.spec == member]
            last = max(own, key=lambda c: c.round)  # the last rung, where it learned no further
            tickets = [c for c in own if c.round >= plan.end - TICKETS] or [last]
            if verdict(self.standing.judge(last.key, LADDER[0]), self.demand) == "failing":
                continue
            self.standing.play([ticket.key for ticket in tickets], LADDER[0])
            # by the first episodes alone: a search that is resumed here has played more of one of them
            yield max(tickets, key=lambda ticket: self.standing.worth(ticket, LADDER[0])).key

    def _finalists(self) -> list[str]:
        """One candidate of each member, smallest first: noted before any is confirmed, since a search that is stopped
        then has played more of some when it goes on."""
        known = self.session.folder.load_facts(_FINALISTS)
        if known is None:
            members = [m for m in self.standing.members if m not in self.standing.dropped]
            known = {"keys": [c.key for m in members if (c := self.standing.best_of(m)) is not None]}
            self.session.folder.save_facts(_FINALISTS, known)
        return list(known["keys"])

    def _confirm(self, timesteps: int) -> Outcome:
        proofs: dict[str, Proof] = {}

        def attempt(key: str, number: int, before: Paired) -> Attempt:
            student = self.standing.candidates[key].student
            size = f"{student.footprint.params:,} parameters"
            self.session.work.tracker.note(f"attempt {number + 1} of {self.demand.attempts}: {size} on fresh seeds")
            proofs[key] = prove(self.session, student, number=number, before=before)
            found = proofs[key].attempt
            assert found is not None
            return found

        keys = self._finalists()
        known = self.standing.candidates
        done = confirmed(
            keys, self.standing.judge, attempt, self.demand, lambda key: known[key].student.footprint.params
        )
        attempts = dict(done.attempts)
        if not attempts:  # nothing passes on selection episodes: the best is tried, and shown
            best_key = max((self.standing.candidates[key] for key in keys), key=self.standing.worth).key
            attempts[best_key] = attempt(best_key, 0, self.standing.judge(best_key, 1))
        chosen = max(attempts, key=lambda key: (attempts[key].passed, attempts[key].lower))
        return Outcome(
            self.standing.candidates[chosen],
            replace(proofs[chosen], number=len(attempts) - 1),
            attempts,
            self.standing,
            self.latencies,
            timesteps,
        )
