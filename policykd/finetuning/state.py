"""What a checkpoint holds: weights, optimizers, the replay buffer, and the best student so far.

Environments are not part of it: a run that goes on starts new episodes, and does not repeat the one that was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policykd.finetuning.models import Model
from policykd.finetuning.off_policy import PARTS, KickstartedSAC
from policykd.finetuning.warmup import Warmup
from policykd.students.mlp import MlpStudent

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Judgement:
    """Mean return on the selection seeds after so many timesteps, what it retains, and lambda from there on."""

    timesteps: int
    value: float
    retention: float
    weight: float

    def to_json(self) -> dict[str, float]:
        """For result.json and the checkpoint."""
        return {"timesteps": self.timesteps, "return": self.value, "retention": self.retention, "lambda": self.weight}

    @classmethod
    def from_json(cls, doc: dict[str, Any]) -> Judgement:
        """The inverse of `to_json`."""
        return cls(doc["timesteps"], doc["return"], doc["retention"], doc["lambda"])


@dataclass
class Progress:
    """How far the run is: its judgements, and the best student, that of the latest among equals."""

    best: MlpStudent
    history: list[Judgement] = field(default_factory=list)

    def add(self, judgement: Judgement, student: MlpStudent) -> None:
        """One more judgement."""
        if not self.history or judgement.value >= max(known.value for known in self.history):
            self.best = student
        self.history.append(judgement)


def tensors_of(model: Model, best: MlpStudent) -> Arrays:
    """Every number that the next update needs."""
    found: Arrays = {}
    for name, part in _state_dicts(model).items():
        if "optimizer" not in name:
            found |= {f"{name}/{key}": value.detach().cpu().numpy() for key, value in part.items()}
            continue
        for index, moments in part["state"].items():
            found |= {f"{name}/{index}/{key}": np.asarray(torch.as_tensor(v).cpu()) for key, v in moments.items()}
    if isinstance(model, KickstartedSAC):
        assert model.log_ent_coef is not None and model.replay_buffer is not None
        found["log_ent_coef"] = model.log_ent_coef.detach().cpu().numpy()
        size = model.replay_buffer.size()
        found |= {f"replay/{part}": np.asarray(getattr(model.replay_buffer, part)[:size]) for part in PARTS}
    found |= {f"best/{name}": value.cpu().numpy() for name, value in best.weights().items()}
    return found | {"best/log_std": best.log_std.cpu().numpy()}


def restore(model: Model, tensors: Arrays, facts: dict[str, Any], student: MlpStudent) -> Progress:
    """Puts the numbers of a checkpoint into the model; where the run stood."""
    parts = _state_dicts(model)
    for name, part in parts.items():
        own = _below(f"{name}/", tensors)
        if "optimizer" in name:
            part["state"] = _moments(own)
        else:
            parts[name] = own
    model.set_parameters(parts, device=model.device)
    if isinstance(model, KickstartedSAC):
        _restore_replay(model, tensors)
    model.num_timesteps, model._n_updates = facts["timesteps"], facts["updates"]
    env: Any = model.get_env()
    env.scale = facts["scale"]
    model.warmup = Warmup(**facts["warmup"])
    model.kick.weight = facts["lambda"]
    if model.warmup.done and not isinstance(model, KickstartedSAC):
        model.rollout_buffer.gae_lambda = model.kick.config.gae_lambda
    best = _below("best/", tensors)
    count = len(student.layers)
    layers = tuple((best[f"layers.{k}.weight"], best[f"layers.{k}.bias"]) for k in range(count))
    history = [Judgement.from_json(doc) for doc in facts["history"]]
    return Progress(replace(student, layers=layers, log_std=best["log_std"]), history)


def facts_of(model: Model, progress: Progress) -> dict[str, Any]:
    """The checkpoint's plain numbers."""
    env: Any = model.get_env()
    return {
        "timesteps": model.num_timesteps,
        "updates": model._n_updates,
        "scale": env.scale,
        "warmup": model.warmup.to_json(),
        "lambda": model.kick.weight,
        "history": [judgement.to_json() for judgement in progress.history],
    }


def _state_dicts(model: Model) -> dict[str, Any]:
    parameters: dict[str, Any] = model.get_parameters()
    return parameters


def _below(prefix: str, tensors: Arrays) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {key.removeprefix(prefix): torch.from_numpy(v) for key, v in tensors.items() if key.startswith(prefix)}


def _moments(own: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """An optimizer's state from `INDEX/NAME`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in own.items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    return state


def _restore_replay(model: KickstartedSAC, tensors: Arrays) -> None:
    buffer = model.replay_buffer
    assert buffer is not None and model.log_ent_coef is not None
    with torch.no_grad():
        model.log_ent_coef.copy_(torch.from_numpy(tensors["log_ent_coef"]))
    size = len(tensors["replay/rewards"])
    for part in PARTS:
        getattr(buffer, part)[:size] = tensors[f"replay/{part}"]
    buffer.full = size == buffer.buffer_size
    buffer.pos = size % buffer.buffer_size
