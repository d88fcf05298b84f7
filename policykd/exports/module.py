"""The graph as a torch module: the arithmetic of the student, operation for operation, in any float dtype."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from policykd.exports.graph import Array, Feed, Graph, Port
from policykd.exports.gru_module import GruModule, begun
from policykd.exports.interface import Interface
from policykd.exports.modules import module_of

_WIDE_UNSIGNED = ("uint16", "uint32", "uint64")  # torch can do little with them


class GraphModule(nn.Module):
    """A student that `torch.export` can take, with a batch of any size.

    forward(*ports, [action_masks], [noise], [state_in, episode_start]) -> (action, *distribution, [state_out]); the
    ports are [B, *shape] in the dtype that `input_dtype` names, the mask [B, n] bool, the noise [B, M] float32, the
    states [B, H] float32, episode_start [B] bool. In float32 its actions are those of the student's `predict` bit for
    bit; `.double()` computes the same in float64.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList([module_of(layer) for layer in graph.layers])
        action = graph.action
        self.log_std: Tensor
        self.low: Tensor
        self.high: Tensor
        if graph.head.kind == "numbers":  # no empty buffers: torch.export.save cannot write them
            self.register_buffer("log_std", torch.from_numpy(graph.head.log_std.copy()))
            self.register_buffer("low", torch.tensor(action.low, dtype=torch.float32))
            self.register_buffer("high", torch.tensor(action.high, dtype=torch.float32))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """(action [B, *action shape],); with the distribution (action, logits [B, M]) or (action, mean, log_std); with
        a memory state_out [B, H] as well."""
        graph, count = self.graph, len(self.graph.ports)
        rest = list(inputs[count:])
        mask = rest.pop(0) if graph.masked else None
        noise = rest.pop(0) if graph.stochastic else None
        outputs, state = self._run(inputs[:count], begun(*rest) if graph.state_size else None)
        action = self._action(outputs, mask, noise)
        more = () if state is None else (state,)
        if not graph.with_distribution:
            return (action, *more)
        if graph.head.kind == "numbers":
            return action, outputs, self.log_std.expand(outputs.shape[0], -1).clone(), *more
        return action, outputs, *more

    def outputs(self, *ports: Tensor) -> Tensor:
        """What the last layer of a graph without a memory gives, [B, M]: logits or means."""
        return self._run(ports, None)[0]

    def _run(self, ports: tuple[Tensor, ...], state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the last layer gives, and the next state, for one in which nothing of an earlier episode is left."""
        parts = [_features(port, part) for port, part in zip(self.graph.ports, ports, strict=True)]
        x = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        x = x.to(next(self.layers.buffers()).dtype)
        for layer in self.layers:
            if isinstance(layer, GruModule):
                assert state is not None
                x = state = layer(x, state.to(x.dtype))
            else:
                x = layer(x)
        return x, state

    def _action(self, x: Tensor, mask: Tensor | None, noise: Tensor | None) -> Tensor:
        head = self.graph.head
        if head.kind == "numbers":
            if noise is not None:
                x = x + torch.exp(self.log_std) * noise
            return self._mapped(torch.tanh(x) if head.squash else x)
        if noise is not None:
            x = x + noise
        if mask is not None:
            x = self._masked(x, mask)
        return self._chosen(x)

    def _masked(self, logits: Tensor, mask: Tensor) -> Tensor:
        infinity = torch.tensor(float("inf"), dtype=logits.dtype, device=logits.device)
        if self.graph.head.kind != "bits":
            return torch.where(mask, logits, -infinity)
        off, on = mask[:, 0::2], mask[:, 1::2]
        return torch.where(on, torch.where(off, logits, infinity), -infinity)

    def _chosen(self, logits: Tensor) -> Tensor:
        action, head = self.graph.action, self.graph.head
        if head.kind == "bits":
            return (logits > 0).to(getattr(torch, action.dtype)).reshape(logits.shape[0], *action.shape)
        parts = torch.split(logits, list(head.branches), -1)
        if action.kind == "discrete":
            return parts[0].argmax(-1) + sum(action.start)
        start = action.start or (0,) * len(parts)
        picked = torch.stack([part.argmax(-1) + first for part, first in zip(parts, start, strict=True)], -1)
        return picked.reshape(logits.shape[0], *action.shape)

    def _mapped(self, values: Tensor) -> Tensor:
        """To the bounds, by the formula of `ActionMap` and in its order."""
        shape = (values.shape[0], *self.graph.action.shape)
        if self.graph.action.kind == "clip":
            return torch.clamp(values, self.low, self.high).reshape(shape)
        unit = torch.clamp(values, -1.0, 1.0)
        return (self.low + (0.5 * (unit + 1.0) * (self.high - self.low))).reshape(shape)


def _features(port: Port, values: Tensor) -> Tensor:
    """Features [B, F] of one port, float32."""
    flat = values.reshape(values.shape[0], port.size)
    if not port.nvec:
        return flat.float()
    choices = [torch.arange(first, first + n) for n, first in zip(port.nvec, port.start, strict=True)]
    hot = [flat[:, i : i + 1] == choice.to(flat.device) for i, choice in enumerate(choices)]
    return torch.cat(hot, -1).float()


def input_dtype(port: Port) -> str:
    """The dtype in which the module takes a port: the environment's, or int64 for the wide unsigned ones."""
    return "int64" if port.dtype in _WIDE_UNSIGNED else port.dtype


def inputs_of(interface: Interface, feed: Feed) -> tuple[Tensor, ...]:
    """The tensors of `forward` for a feed; where a mask is asked for and none given, everything is allowed; without
    a state nothing is remembered."""
    parts = zip(interface.ports, feed.observations, strict=True)
    tensors = [_tensor(part, input_dtype(port)) for port, part in parts]
    if interface.mask_size:
        everything = torch.ones(len(feed), interface.mask_size, dtype=torch.bool)
        tensors.append(everything if feed.mask is None else _tensor(feed.mask, "bool"))
    if interface.noise_size:
        silence = torch.zeros(len(feed), interface.noise_size)
        tensors.append(silence if feed.noise is None else _tensor(feed.noise, "float32"))
    if interface.state_size:
        n = len(feed)
        tensors.append(torch.zeros(n, interface.state_size) if feed.state is None else _tensor(feed.state, "float32"))
        tensors.append(torch.zeros(n, dtype=torch.bool) if feed.start is None else _tensor(feed.start, "bool"))
    return tuple(tensors)


def named(interface: Interface, outputs: tuple[Tensor, ...]) -> dict[str, Array]:
    """Arrays by name for what `forward` gave."""
    return {name: output.detach().cpu().numpy() for name, output in zip(interface.outputs, outputs, strict=True)}


def _tensor(values: Array, dtype: str) -> Tensor:
    return torch.from_numpy(np.require(values.astype(dtype), requirements=("C", "W")))
