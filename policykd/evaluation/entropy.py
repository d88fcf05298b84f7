"""Entropy of a policy's action distribution: on visited states, or counted while a policy with a memory acts."""

from __future__ import annotations

import torch

from policykd.evaluation.actors import Actor, PolicyActor
from policykd.evaluation.episodes import Episodes
from policykd.loss.acting import params_on
from policykd.spine.types import Array, Policy, Turn, is_recurrent


class Tallied:
    """A policy that acts, and whose entropy is added up at every step."""

    takes_turn = True

    def __init__(self, actor: PolicyActor) -> None:
        self._actor = actor
        self._total, self._steps = 0.0, 0

    def __call__(self, observation: Array, turn: Turn) -> Array:
        """The policy's environment actions [B, ...] for raw observations [B, *O]."""
        params = self._actor.params(observation, turn)
        self._total += float(self._actor.policy.distribution.entropy(params).sum())
        self._steps += len(params)
        return self._actor.act(params)

    @property
    def entropy(self) -> float:
        """Mean over the steps so far, in nats."""
        return self._total / max(self._steps, 1)


def tallied(actor: Actor) -> Actor:
    """The actor, its entropy counted where a state alone does not give it: a policy with a memory. Else as it is."""
    return Tallied(actor) if isinstance(actor, PolicyActor) and is_recurrent(actor.policy) else actor


def entropy_in(episodes: Episodes, actor: Actor, policy: Policy) -> float | None:
    """Mean entropy over the episodes of `policy`, which `actor` drove: of all steps with a memory, else of a sample."""
    if isinstance(actor, Tallied):
        return actor.entropy if _has_own(policy) else None
    return entropy_on(policy, episodes.visited, episodes.masks)


def entropy_on(policy: Policy, observations: Array, masks: Array | None = None) -> float | None:
    """Mean entropy in nats on raw observations [B, *O] (before the tanh for a squashed Gaussian), of what `masks`
    [B, n] allow.

    None for a teacher whose distribution is not its own (Q-values, or a mean with a fixed spread).
    """
    entropies = entropies_on(policy, observations, masks)
    return None if entropies is None else float(entropies.mean())


def entropies_on(policy: Policy, observations: Array, masks: Array | None = None) -> torch.Tensor | None:
    """The entropy [B] of each state, as `entropy_on` takes it; None where that is None."""
    if not _has_own(policy):
        return None
    return torch.cat([policy.distribution.entropy(params) for params in params_on(policy, observations, masks)])


def _has_own(policy: Policy) -> bool:
    return not any(getattr(policy, f"{kind}_teacher", False) for kind in ("value", "deterministic"))
