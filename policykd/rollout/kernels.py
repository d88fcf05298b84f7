"""Acting on a CPU without torch's cost per call: plain MLPs and their distributions in NumPy, for the small batches of
a rollout. Values equal torch's to float32 rounding.

A matrix product of up to 2^18 multiply-accumulates is NumPy's, which computes it on one thread on every machine; a
larger one is torch's, which obeys the run's `threads`. So bits depend on shapes and not on the number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.rollout.few_rows import FewRows, few
from policykd.rollout.inputs import Normalise, as_float, full, scaled, standardised
from policykd.rollout.partial_kernels import seeing
from policykd.spine.packing import Leaf, Packing
from policykd.spine.types import Array, Policy
from policykd.students.convolved import ConvFamily
from policykd.students.family import Family, Group
from policykd.students.lean import ONE_THREAD
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.students.view import Partial, View
from policykd.teachers.base import Teacher
from policykd.teachers.extractors import Flat
from policykd.teachers.networks import ConstantStd, Dense, Logits, Network, QuantileMean
from policykd.teachers.normalize import Normalizer

F32 = NDArray[np.float32]
Do = Callable[[], object]
_NONE = np.zeros(0, np.float32)


class Kernel(Protocol):
    """A policy in NumPy. `log_std` [A] or [B, A] does not depend on the state; empty where there is none."""

    @property
    def log_std(self) -> F32: ...

    def means(self, observation: Array) -> F32:
        """Logits or means [B, M], float32, for packed raw observations [B, *shape], until the next call."""
        ...


def params_of(kernel: Kernel, observation: Array) -> F32:
    """Distribution parameters [B, P], float32, for packed raw observations [B, *shape]."""
    return with_log_std(kernel.means(observation), kernel.log_std)


def with_log_std(means: F32, log_std: F32) -> F32:
    """Parameters [..., P] of means [..., M], in an array of their own: the log_std behind them, where there is one."""
    if not log_std.size:
        return means.copy()
    params = np.empty((*means.shape[:-1], means.shape[-1] + log_std.shape[-1]), np.float32)
    params[..., : means.shape[-1]] = means
    params[..., means.shape[-1] :] = log_std
    return params


def _in_place(name: str, x: F32) -> Do | None:
    """What puts the activation of this name, one of `_ACTIVATIONS`, in place of `x`."""
    if name == "tanh":
        return partial(np.tanh, x, x)
    return partial(np.maximum, x, np.zeros_like(x), out=x) if name == "relu" else None


_ACTIVATIONS = frozenset({"tanh", "relu", "identity"})


class _Mlp:
    """A plain MLP in few calls, which is what small batches cost: everything is allocated when a size of batch comes
    for the first time, and all operands have one shape, since broadcasting takes twice the time. `normalise` makes the
    normaliser of batches of one size. `layers`: (weight [in, out], bias [out] or None, activation)."""

    def __init__(
        self,
        normalise: Callable[[int], Normalise],
        layers: Sequence[tuple[Tensor, Tensor | None, str]],
        log_std: F32,
        finish: Callable[[F32], F32] | None = None,
    ) -> None:
        self._normalise, self._finish, self.log_std = normalise, finish, log_std
        self._layers = []
        for weight, bias, name in layers:
            known = torch.zeros(weight.shape[1]) if bias is None else bias.detach()
            self._layers.append((weight.detach().contiguous(), known.contiguous(), name))
        self._plans: dict[int, tuple[Normalise, list[Do], F32]] = {}

    def means(self, observation: Array) -> F32:
        plan = self._plans.get(len(observation))
        if plan is None:
            plan = self._plans[len(observation)] = self._planned(len(observation))
        normalise, steps, last = plan
        normalise(observation)
        for step in steps:
            step()
        return last if self._finish is None else self._finish(last)

    def _planned(self, batch: int) -> tuple[Normalise, list[Do], F32]:
        """How observations are normalised, what is then done, and where the result will be."""
        normalise = self._normalise(batch)
        x = normalise(np.zeros((batch, self._layers[0][0].shape[0]), np.float32))
        steps: list[Do] = []
        for weight, bias, name in self._layers:
            out = np.empty((batch, weight.shape[1]), np.float32)
            if batch * weight.numel() <= ONE_THREAD:
                added = full(bias.numpy(), batch)
                steps += [partial(np.dot, x, weight.numpy(), out), partial(np.add, out, added, out)]
            else:
                steps.append(partial(torch.addmm, bias, torch.from_numpy(x), weight, out=torch.from_numpy(out)))
            activate = _in_place(name, out)
            steps += [] if activate is None else [activate]
            x = out
        return normalise, steps, x


def kernel_of(policy: Policy) -> Kernel | None:
    """The policy in NumPy, or None where it is no plain MLP on vectors, needs masks or lies on another device."""
    if isinstance(policy, MlpStudent):
        return _of_student(policy)
    if isinstance(policy, Partial):
        return seeing(kernel_of(policy.student), policy.columns)
    if isinstance(policy, Teacher) and isinstance(policy.network, Network):
        own = policy.leaves[0]
        part = None if policy.packing.plain else slice(own.begin, own.begin + own.size)
        return seeing(_of_teacher(policy, policy.network), part)
    return None


def _of_student(student: MlpStudent) -> Kernel | None:
    if student.masked or student.device.type != "cpu" or not _is_vector(student.packing):
        return None
    names = [student.activation] * (len(student.layers) - 1) + ["identity"]
    layers = [(*pair, name) for pair, name in zip(student.layers, names, strict=True)]
    return _Mlp(scaled(student.normaliser), layers, student.log_std.numpy())


def _of_teacher(teacher: Teacher, network: Network) -> Kernel | None:
    parts, statistics = network.extractor.parts, teacher.normalizer
    plain = (
        not (teacher.masked or teacher.recurrent)
        and teacher.device.type == "cpu"
        and len(teacher.leaves) == 1
        and _is_flat(teacher.leaves[0])
        and all(isinstance(part, Flat) and not part.divide for part in parts)
        and isinstance(network.head, Logits | ConstantStd | QuantileMean)
        and (statistics is None or isinstance(statistics, Normalizer))
    )
    dense = [layer for layer in network.layers if isinstance(layer, Dense) and layer.activation in _ACTIVATIONS]
    if not plain or len(dense) < len(network.layers):
        return None
    layers = [(layer.weight.T, layer.bias, layer.activation) for layer in dense]
    normalise = standardised(statistics) if isinstance(statistics, Normalizer) else as_float(parts[0].size)
    head, scale = network.head, np.float32(teacher.logit_scale)
    if isinstance(head, QuantileMean):
        shape = (-1, head.n_quantiles, head.n_actions)
        return _Mlp(normalise, layers, _NONE, lambda x: x.reshape(shape).mean(1, dtype=np.float32) * scale)
    log_std = head.log_std.detach().numpy().reshape(-1) if isinstance(head, ConstantStd) else _NONE
    return _Mlp(normalise, layers, log_std, None if scale == 1 else lambda x: x * scale)


def _is_vector(packing: Packing) -> bool:
    return packing.plain and _is_flat(packing.leaves[0])


def _is_flat(leaf: Leaf) -> bool:
    return len(leaf.shape) == 1 and not leaf.nvec


@dataclass(frozen=True)
class Members:
    """How a family's members act: raw observations [N, *O] to parameters [N, P], N/S neighbouring slots each."""

    family: Family | ConvFamily
    normaliser: Normaliser
    view: View

    def __call__(self, observation: Tensor) -> Tensor:
        inputs = self.normaliser.apply(self.view.tensor_features(observation))
        params = self.family.forward(inputs.view(len(self.family), len(observation) // len(self.family), -1))
        return params.reshape(len(observation), -1)

    def kernel(self, n_envs: int) -> Kernel | None:
        """The weights as they are now, in NumPy, for N slots; None on another device and for images or choices."""
        family = self.family
        if isinstance(family, ConvFamily) or family.device.type != "cpu" or not _is_vector(self.view.packing):
            return None
        if len(family) > 1:
            return seeing(_Groups(family, scaled(self.normaliser), n_envs), self.view.columns)
        pairs, log_std = family.member_layers(0), family.member_log_std(0).numpy()
        plain = [(weight.numpy(), bias.numpy()) for weight, bias in pairs]
        if few(n_envs, plain):
            alone: Kernel = FewRows(n_envs, self.normaliser, plain, family.activation, log_std)
        else:
            names = [family.activation] * (len(pairs) - 1) + ["identity"]
            layers = [(*pair, name) for pair, name in zip(pairs, names, strict=True)]
            alone = _Mlp(scaled(self.normaliser), layers, log_std)
        return seeing(alone, self.view.columns)


class _Groups:
    """Several members at once, each in its own slots."""

    def __init__(self, family: Family, normalise: Callable[[int], Normalise], n_envs: int) -> None:
        self._normalise, self._n_means = normalise(n_envs), family.n_means
        self._groups = [(group.members, _group_layers(group, family.activation)) for group in family.groups]
        self._each = n_envs // len(family)
        self.log_std = family.log_std.numpy()[:, 0].repeat(self._each, 0)

    def means(self, observation: Array) -> F32:
        inputs = self._normalise(observation).reshape(-1, self._each, observation.shape[1])
        means = np.empty((*inputs.shape[:2], self._n_means), np.float32)
        for rows, layers in self._groups:
            x = inputs[rows]
            for layer in layers:
                x = layer(x)
            means[rows] = x
        return means.reshape(len(observation), -1)


def _group_layers(group: Group, activation: str) -> list[Callable[[F32], F32]]:
    """Dense layers of G members at once: [G, B, in] to [G, B, out]."""

    def made(weight: Tensor, bias: Tensor, name: str) -> Callable[[F32], F32]:
        own_weight, own_bias = weight.numpy(), bias.numpy()

        def layer(x: F32) -> F32:
            if x.shape[1] * own_weight[0].size <= ONE_THREAD:
                out: F32 = np.matmul(x, own_weight)
                out += own_bias
            else:
                out = torch.baddbmm(bias, torch.from_numpy(x), weight).numpy()
            activate = _in_place(name, out)
            if activate is not None:
                activate()
            return out

        return layer

    pairs = list(zip(group.weights, group.biases, strict=True))
    names = [activation] * (len(pairs) - 1) + ["identity"]
    return [made(w, b, name) for (w, b), name in zip(pairs, names, strict=True)]
