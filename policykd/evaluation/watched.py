"""Agreement where a policy has a memory: both must see the same episodes, so it is counted while they run."""

from __future__ import annotations

from policykd.evaluation.actors import Actor, PolicyActor, policy_actor
from policykd.evaluation.agreement import agreement_on, mode_actions, same_action
from policykd.evaluation.episodes import Episodes
from policykd.spine.types import Array, Policy, Turn


class Watched:
    """A policy that acts while a teacher sees the same episodes; counts where their modes are the same action."""

    takes_turn = True

    def __init__(self, actor: PolicyActor, teacher: PolicyActor) -> None:
        self._actor, self._teacher = actor, teacher
        self._same, self._steps = 0, 0

    def __call__(self, observation: Array, turn: Turn) -> Array:
        """The policy's environment actions [B, ...] for raw observations [B, *O]."""
        own, theirs = self._actor.params(observation, turn), self._teacher.params(observation, turn)
        actor, teacher = self._actor.policy, self._teacher.policy
        pair = mode_actions(teacher, theirs), mode_actions(actor, own)  # each by its own map: they may differ in kind
        self._same += int(same_action(teacher.action_map, *pair).sum())
        self._steps += len(own)
        return self._actor.act(own)

    @property
    def agreement(self) -> float:
        """The share of steps so far with the same mode action."""
        return self._same / max(self._steps, 1)


def watched(actor: Actor, teacher: Policy | None) -> Actor:
    """The actor, watched by the teacher where one of them has a memory; else as it is."""
    if teacher is None or not isinstance(actor, PolicyActor):
        return actor
    if not any(getattr(policy, "recurrent", False) for policy in (actor.policy, teacher)):
        return actor
    beside = policy_actor(teacher, deterministic=True, seed=0)
    assert isinstance(beside, PolicyActor)
    return Watched(actor, beside)


def agreement_in(episodes: Episodes, actor: Actor, teacher: Policy, student: Policy) -> float:
    """Agreement on the states of the `student`'s episodes, which `actor` drove."""
    if isinstance(actor, Watched):
        return actor.agreement
    return agreement_on(teacher, student, episodes.visited, episodes.masks)
