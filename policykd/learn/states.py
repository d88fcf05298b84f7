"""The state of learning between rounds: made, checkpointed, restored bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.evaluation.agreement import agreement
from policykd.learn.selection import Selection
from policykd.learn.session import Session
from policykd.learn.update import Learner
from policykd.loss.losses import make_loss
from policykd.rollout.kernels import Members
from policykd.spine.errors import InputError
from policykd.students.family import Family, members_of
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.teachers.normalize import Normalizer


@dataclass
class LearningState:
    """Everything that a round changes. `normaliser` is None until round 0 has been seen, unless the teacher has one."""

    session: Session
    family: Family
    learner: Learner
    dataset: Dataset
    normaliser: Normaliser | None
    selection: Selection
    rounds_done: int = 0
    timesteps: int = 0

    def actors(self, n_envs: int) -> Members | None:
        """How the members act: raw observations [N, *O] to parameters [N, P], N/S neighbouring slots each."""
        if self.normaliser is None:
            return None
        assert n_envs % len(self.family) == 0
        return Members(self.family, self.normaliser, self.session.teacher.packing)

    def absorb(self, visited: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[float]]:
        """Inputs [M, O] and labels [M, P] of one round on the device, and each member's agreement with the teacher on
        the states that it drove (empty for a teacher-driven round)."""
        device = self.family.device
        observation, params = visited["observation"].to(device), visited["params"].to(device)
        if self.normaliser is None:
            self.normaliser = Normaliser.measured(visited["observation"].numpy())
            self._start_log_std(params)
        elif self.rounds_done == 0 and not len(self.dataset):
            self._start_log_std(params)
        inputs = self.normaliser.apply(observation)
        self.timesteps += len(inputs)
        return inputs, params, self._agreement(inputs, params, visited["actor"])

    def student_of(self, session: Session, round_index: int, member: int) -> MlpStudent:
        """The member as it was after a judged round."""
        assert self.normaliser is not None
        now = self.family.flat.clone()
        self.family.flat.copy_(self.selection.snapshots[round_index])
        layers, log_std = self.family.member_layers(member), self.family.member_log_std(member)
        self.family.flat.copy_(now)
        teacher = session.teacher
        return MlpStudent(
            normaliser=self.normaliser,
            layers=tuple(layers),
            log_std=log_std,
            activation=self.family.activation,
            distribution=teacher.distribution,
            action_map=teacher.action_map,
            observation_space=teacher.observation_space,
            action_space=teacher.action_space,
            generator=torch.Generator(device=self.family.device),
            masked=teacher.masked,
        )

    def _start_log_std(self, params: Tensor) -> None:
        """The student's spread starts at the teacher's mean log_std over the first round."""
        n_means = self.family.n_means
        if self.family.log_std.numel():
            self.family.log_std.copy_(params[:, n_means:].mean(0).expand_as(self.family.log_std))

    def _agreement(self, inputs: Tensor, params: Tensor, actor: Tensor) -> list[float]:
        n_envs = self.session.config.rollout.n_envs
        assert isinstance(n_envs, int)
        actor = actor.to(inputs.device)
        member = torch.where(actor >= 0, actor // (n_envs // len(self.family)), actor)
        result: list[float] = []
        if not (member >= 0).any():
            return result
        for index in range(len(self.family)):
            rows = (member == index).nonzero().squeeze(-1)
            if not len(rows):
                result.append(float("nan"))  # the teacher drove all of this member's steps
                continue
            own = self.family.forward(inputs[rows])[index]
            result.append(agreement(self.session.teacher, params[rows], own))
        return result


def start(session: Session) -> LearningState:
    """The state before round 0. Raises InputError for observations that an MLP cannot take."""
    config, teacher = session.config, session.teacher
    n_inputs = teacher.packing.n_features
    family = Family(
        members_of(config.student),
        n_inputs,
        teacher.distribution,
        activation=config.student.activation,
        root_seed=config.seed,
        device=config.device,
    )
    loss = make_loss(config.loss.kind, config.loss.temperature, config.loss.convention, masked=teacher.masked)
    learner = Learner(family, loss, config.update, config.rollout.rounds)
    dataset = Dataset(n_inputs, teacher.distribution.n_params, config.data.max_states, config.device)
    normaliser = None
    n = teacher.normalizer
    if isinstance(n, Normalizer):  # of some entries of a Dict, the student measures its own
        normaliser = Normaliser.of_teacher(n.mean.reshape(-1), n.std.reshape(-1), n.clip)
    return LearningState(session, family, learner, dataset, normaliser, Selection())


def save(session: Session, state: LearningState, round_index: int) -> None:
    """The checkpoint at a round's end."""
    state.rounds_done = round_index + 1
    assert state.normaliser is not None
    tensors = {f"learner.{name}": value.cpu().numpy() for name, value in state.learner.state().items()}
    tensors |= {f"snapshot.{r}": flat.cpu().numpy() for r, flat in state.selection.snapshots.items()}
    tensors |= {"normaliser.mean": state.normaliser.mean, "normaliser.scale": state.normaliser.scale}
    facts: dict[str, Any] = {
        "timesteps": state.timesteps,
        "updates": state.rounds_done * state.learner.n_updates,
        "normaliser_limit": state.normaliser.limit,
        "selection": {str(r): means for r, means in state.selection.returns.items()},
        "seconds": session.work.seconds,
    }
    session.folder.save_state(round_index, tensors, facts)


def restore(session: Session) -> LearningState | None:
    """The state of the last checkpoint, or None when there is none yet."""
    found = session.folder.load_state()
    if found is None:
        return None
    tensors, facts = found
    state = start(session)
    values = {name: torch.from_numpy(value) for name, value in tensors.items()}
    state.normaliser = Normaliser(
        tensors["normaliser.mean"], tensors["normaliser.scale"], float(facts["normaliser_limit"])
    )
    state.learner.load_state({k.removeprefix("learner."): v for k, v in values.items() if k.startswith("learner.")})
    for name, means in facts["selection"].items():
        state.selection.returns[int(name)] = means
        state.selection.snapshots[int(name)] = values[f"snapshot.{name}"].to(state.family.device)
    remaining = facts["round"] + 1 < session.config.rollout.rounds  # else the data has done its work
    for index in range(facts["round"] + 1) if remaining else ():
        shard = session.folder.load_shard(index)
        if shard is None:
            raise InputError(
                f"{session.folder.checkpoints}: the labelled data of round {index} is missing; start a new run"
            )
        observation = torch.from_numpy(shard["observation"]).to(state.family.device)
        params = torch.from_numpy(shard["params"]).to(state.family.device)
        state.dataset.append(state.normaliser.apply(observation), params)
    state.rounds_done, state.timesteps = facts["round"] + 1, facts["timesteps"]
    session.work.seconds.update(facts["seconds"])
    return state
