"""What goes into an exported student and what comes out, without its weights: the contract in manifest.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from policykd.exports.graph import Array, Feed, Graph, Port
from policykd.spine.actions import DTYPES, ActionMap, sizes_of

ACTION, MASK, NOISE = "action", "action_masks", "noise"
STATE_IN, STATE_OUT, START = "state_in", "state_out", "episode_start"
_LAWS = ("gumbel", "logistic", "normal")
_MAX_PORTS, _MAX_SIZE = 1000, 2**24


@dataclass(frozen=True)
class Interface:
    """Inputs by port, then the mask (`mask_size` entries, 0 = none) and the noise (`noise_size` numbers, 0 = none, of
    `law`), then of one with a memory of `state_size` numbers `state_in` and `episode_start`; outputs `action`, those of
    `distribution` (`n_outputs` numbers each), and `state_out`."""

    ports: tuple[Port, ...]
    action: ActionMap
    kind: str  # of the head: choices, bits, numbers
    n_outputs: int
    branches: tuple[int, ...] = ()
    mask_size: int = 0
    noise_size: int = 0
    law: str = "normal"
    distribution: tuple[str, ...] = ()
    state_size: int = 0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what comes out, in their order."""
        return (ACTION, *self.distribution, *([STATE_OUT] if self.state_size else []))

    def to_json(self) -> dict[str, Any]:
        """A document from which `interface_from_json` makes an equal one."""
        ports = [
            {"name": port.name, "path": list(port.path), "shape": list(port.shape), "dtype": port.dtype,
             "nvec": list(port.nvec), "start": list(port.start)} for port in self.ports
        ]  # fmt: skip
        document = {
            "inputs": ports,
            "action_masks": self.mask_size,
            "noise": {"size": self.noise_size, "law": self.law} if self.noise_size else None,
            "action": self.action.to_json(),
            "head": {"kind": self.kind, "size": self.n_outputs, "branches": list(self.branches)},
            "distribution": list(self.distribution),
        }
        return document | {"state": {"size": self.state_size}} if self.state_size else document


def interface_of(graph: Graph) -> Interface:
    """The contract of a graph."""
    head = graph.head
    return Interface(
        ports=graph.ports,
        action=graph.action,
        kind=head.kind,
        n_outputs=head.size,
        branches=head.branches,
        mask_size=head.mask_size if graph.masked else 0,
        noise_size=head.size if graph.stochastic else 0,
        law=head.law if graph.stochastic else "normal",
        distribution=graph.distribution_names if graph.with_distribution else (),
        state_size=graph.state_size,
    )


def interface_from_json(doc: dict[str, Any]) -> Interface:
    """The inverse of `Interface.to_json`; ValueError, KeyError or TypeError for anything else."""
    ports = tuple(_port(entry) for entry in doc["inputs"][:_MAX_PORTS])
    noise, state = doc["noise"], doc.get("state")
    kind, names = doc["head"]["kind"], tuple(doc["distribution"])
    if kind not in ("choices", "bits", "numbers") or names not in ((), ("logits",), ("mean", "log_std")):
        raise ValueError(f"head {kind!r:.40} with outputs {names!r:.80} is not known")
    if noise is not None and noise["law"] not in _LAWS:
        raise ValueError(f"noise of law {noise['law']!r:.40} is not known")
    sizes = [doc["action_masks"], doc["head"]["size"], *(0 if x is None else x["size"] for x in (noise, state))]
    mask_size, n_outputs, noise_size, state_size = found = sizes_of(sizes)
    if not ports or max(*found, *(port.size for port in ports)) > _MAX_SIZE:
        raise ValueError("no inputs, or larger ones than any policy has")
    branches = sizes_of(doc["head"]["branches"], most=100_000)
    law = "normal" if noise is None else noise["law"]
    action = ActionMap.from_json(doc["action"])
    return Interface(ports, action, kind, n_outputs, branches, mask_size, noise_size, law, names, state_size)


def _port(doc: dict[str, Any]) -> Port:
    if doc["dtype"] not in DTYPES or not isinstance(doc["name"], str) or len(doc["name"]) > 200:
        raise ValueError(f"input {doc['name']!r:.80} of dtype {doc['dtype']!r:.40} is not known")
    path = tuple(key for key in doc["path"] if isinstance(key, str | int))
    nvec, start = sizes_of(doc["nvec"], most=100_000), tuple(int(value) for value in doc["start"])
    if len(start) != len(nvec):
        raise ValueError(f"input {doc['name']!r:.80} has {len(nvec)} choices and {len(start)} starts")
    return Port(doc["name"], path, sizes_of(doc["shape"]), doc["dtype"], nvec, start)


class Runtime(Protocol):
    """An exported student on its real runtime."""

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """`action` [B, *action shape], each output of the distribution [B, M] and, of one with a memory, `state_out`
        [B, H], for a batch."""
        ...


def random_noise(law: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Noise of that law, float32."""
    if law == "normal":
        return rng.standard_normal(shape, np.float32)
    return (rng.gumbel(size=shape) if law == "gumbel" else rng.logistic(size=shape)).astype(np.float32)
