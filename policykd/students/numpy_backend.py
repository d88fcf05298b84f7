"""A student that acts with NumPy alone: no torch, no gymnasium, no stable-baselines3 (a Raspberry Pi)."""

from __future__ import annotations

from typing import Any

import numpy as np

from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.masks import as_mask, branches, masked_logits
from policykd.spine.packing import packed_batch, packing_from_json
from policykd.spine.types import Array


class NumpyStudent:
    """The same policy as `MlpStudent`, from the same file, to float32 rounding."""

    recurrent = False

    def __init__(self, tensors: dict[str, Array], document: dict[str, Any], seed: int = 0) -> None:
        architecture = document["architecture"]
        self.document = document
        self.masked = document.get("masked", False) is True  # learned with action masks, and needs them to act
        self.action_map = ActionMap.from_json(document["action_map"])
        self._distribution = document["distribution"]
        self._mean, self._scale = tensors["normaliser.mean"], tensors["normaliser.scale"]
        self._limit = np.float32(architecture["normaliser_limit"])
        self._read(tensors, architecture)
        self._log_std = tensors.get("log_std", np.zeros(0, np.float32))
        self.packing = packing_from_json(document["observation_space"])
        self._rng = np.random.default_rng(seed)

    def _read(self, tensors: dict[str, Array], architecture: dict[str, Any]) -> None:
        self._activation = np.tanh if architecture["activation"] == "tanh" else relu
        count = len(architecture["layers"])
        self._layers = [(tensors[f"layers.{k}.weight"], tensors[f"layers.{k}.bias"]) for k in range(count)]
        if "weights" in architecture:  # int8, each unit's with a scale
            scales = [tensors[f"layers.{k}.scale"] for k in range(count)]
            with np.errstate(over="ignore"):
                self._layers = [(w * scale, b) for (w, b), scale in zip(self._layers, scales, strict=True)]
            for k, ((weight, _), scale) in enumerate(zip(self._layers, scales, strict=True)):
                if not ((scale > 0).all() and np.isfinite(weight).all()):
                    raise ValueError(f"layers.{k}.scale: expected positive numbers, and weights that are finite")

    def seed(self, seed: int) -> None:
        """Seeds the draws of stochastic actions."""
        self._rng = np.random.default_rng(seed)

    def means(self, observation: Array) -> Array:
        """Logits or means [B, M] for packed raw observations [B, *packing.shape]."""
        x = self._inputs(observation)
        for weight, bias in self._layers[:-1]:
            x = self._activation(x @ weight + bias)
        weight, bias = self._layers[-1]
        return np.asarray(x @ weight + bias)

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions for one observation or a batch, as `predict` of stable-baselines3 does; no state.

        `action_masks`, [n] or [B, n] in MaskablePPO's layout, forbids actions.
        """
        packed, single = packed_batch(observation, self.packing)
        action = self._act(self.means(packed), deterministic, action_masks)
        return (action[0] if single else action), state

    def _inputs(self, observation: Array) -> Array:
        """Normalised features [B, F] of packed raw observations."""
        x = self.packing.features(observation)
        return np.clip((x - self._mean) * self._scale, -self._limit, self._limit)

    def _act(self, means: Array, deterministic: bool, action_masks: Array | None) -> Array:
        if action_masks is not None:
            mask = as_mask(action_masks, (len(means),), branches(self._distribution), "predict")
            means = masked_logits(self._distribution, means, mask)
        return self.action_map(self._mode(means) if deterministic else self._sample(means))

    def predict_packed(self, packed: Array, *, deterministic: bool) -> Array:
        """Environment actions [B, *action shape] for packed raw observations [B, *packing.shape]."""
        means = self.means(packed)
        return self.action_map(self._mode(means) if deterministic else self._sample(means))

    def _mode(self, means: Array) -> Array:
        kind = self._distribution["type"]
        if kind == "Categorical":
            return np.asarray(means.argmax(-1))
        if kind == "MultiCategorical":
            return np.stack([part.argmax(-1) for part in self._branches(means)], -1)
        if kind == "Bernoulli":
            return (means > 0).astype(np.int64)
        return np.asarray(np.tanh(means)) if kind == "SquashedDiagGaussian" else means

    def _sample(self, means: Array) -> Array:
        kind = self._distribution["type"]
        if kind == "Categorical":
            return np.asarray((means + self._rng.gumbel(size=means.shape)).argmax(-1))
        if kind == "MultiCategorical":
            noisy = means + self._rng.gumbel(size=means.shape)
            return np.stack([part.argmax(-1) for part in self._branches(noisy)], -1)
        if kind == "Bernoulli":
            return (self._rng.logistic(size=means.shape) < means).astype(np.int64)
        noise = self._rng.standard_normal(means.shape).astype(np.float32)
        return self._mode(means + np.exp(self._log_std) * noise)

    def _branches(self, means: Array) -> list[Array]:
        return np.split(means, np.cumsum(self._distribution["nvec"])[:-1], -1)


def gru_shapes(n_inputs: int, hidden: int, n_means: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes: W, U, b and c of the unit, gates one after the other (r, z, n), and the head's [H, M], [M]."""
    return {
        "gru.input": (3 * hidden, n_inputs),
        "gru.state": (3 * hidden, hidden),
        "gru.bias": (3 * hidden,),
        "gru.new_bias": (hidden,),
        "head.weight": (hidden, n_means),
        "head.bias": (n_means,),
    }


class NumpyGruStudent(NumpyStudent):
    """The same policy as `GruStudent`, from the same file, to float32 rounding."""

    recurrent = True

    def _read(self, tensors: dict[str, Array], architecture: dict[str, Any]) -> None:
        self._hidden = int(architecture["hidden"])
        self._w, self._u = tensors["gru.input"].T, tensors["gru.state"].T
        self._b, self._c = tensors["gru.bias"], tensors["gru.new_bias"]
        self._head = tensors["head.weight"], tensors["head.bias"]

    def initial_state(self, n: int) -> tuple[Array, ...]:
        """The state of n episodes that have not begun: (hidden [1, n, H],)."""
        return (np.zeros((1, n, self._hidden), np.float32),)

    def means(self, observation: Array) -> Array:
        """Of observations [B, *packing.shape] that begin episodes."""
        return self.step(observation, self.initial_state(len(observation)))[0]

    def step(self, observation: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Logits or means [B, M] and the next state, for packed raw observations [B, *packing.shape]."""
        hidden, n = state[0][0], self._hidden
        seen, known = self._inputs(observation) @ self._w + self._b, hidden @ self._u
        gates = 0.5 + 0.5 * np.tanh(0.5 * (seen[:, : 2 * n] + known[:, : 2 * n]))  # the logistic function
        new = np.tanh(seen[:, 2 * n :] + gates[:, :n] * (known[:, 2 * n :] + self._c))
        hidden = new + gates[:, n:] * (hidden - new)
        weight, bias = self._head
        return hidden @ weight + bias, (hidden[None],)

    def predict(
        self,
        observation: Any,
        state: tuple[Array, ...] | None = None,
        episode_start: Array | None = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[Array, tuple[Array, ...] | None]:
        """Environment actions and the next state, as RecurrentPPO: without `state` memories are empty, without
        `episode_start` no episode begins. InputError for a state of another shape."""
        packed, single = packed_batch(observation, self.packing)
        before = self.initial_state(len(packed)) if state is None else state
        shapes, expected = [np.shape(part) for part in before], [(1, len(packed), self._hidden)]
        if shapes != expected:
            raise InputError(f"state has shapes {shapes}, expected {expected}: pass what predict returned")
        if episode_start is not None:
            begins = np.asarray(episode_start, np.bool_).reshape(1, -1, 1)
            before = (np.where(begins, np.float32(0), before[0]),)
        means, after = self.step(packed, before)
        action = self._act(means, deterministic, action_masks)
        return (action[0] if single else action), after


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)
