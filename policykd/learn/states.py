"""The state of learning between rounds: made, checkpointed, restored bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.data.sequences import SequenceDataset
from policykd.evaluation.agreement import agreement
from policykd.learn.selection import Selection
from policykd.learn.session import Session
from policykd.learn.update import Learner
from policykd.loss.losses import make_loss
from policykd.rollout.kernels import Members
from policykd.rollout.recurrent import GruMembers
from policykd.spine.errors import InputError
from policykd.students.family import Family, MemberSpec, members_of
from policykd.students.gru import GruStudent
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.students.recurrent import GruFamily
from policykd.students.student import Student
from policykd.students.subset import subset
from policykd.teachers.normalize import Normalizer


@dataclass(frozen=True)
class Fresh:
    """What the states of one round said before they were learned from, of each member (NaN where it drove none):
    agreement with the teacher, and the loss, which is a validation loss. Empty for a round that the teacher drove."""

    agreement: list[float]
    loss: list[float]


@dataclass
class LearningState:
    """Everything that a round changes. `normaliser` is None until round 0 has been seen, unless the teacher has one."""

    session: Session
    family: Family | GruFamily
    learner: Learner
    dataset: Dataset | SequenceDataset
    normaliser: Normaliser | None
    selection: Selection
    rounds_done: int = 0
    timesteps: int = 0
    crew: tuple[int, ...] | None = None  # the members that drive; None: all

    @property
    def driving(self) -> tuple[int, ...]:
        """The members that drive environments."""
        return tuple(range(len(self.family))) if self.crew is None else self.crew

    def driver_of_slot(self, n_envs: int) -> NDArray[np.int64]:
        """[N] the member that drives each environment: neighbouring slots, the same number each."""
        crew = np.asarray(self.driving, np.int64)
        assert n_envs % len(crew) == 0
        return crew.repeat(n_envs // len(crew))

    def actors(self, n_envs: int) -> Members | GruMembers | None:
        """How the members act: raw observations [N, *O] to parameters [N, P], each slot by its driver."""
        if self.normaliser is None:
            return None
        assert n_envs % len(self.driving) == 0
        if isinstance(self.family, GruFamily):
            return GruMembers(self.family, self.normaliser, self.session.view, n_envs)
        family = self.family if self.crew is None else subset(self.family, self.crew)[0]
        return Members(family, self.normaliser, self.session.view)

    def absorb(self, visited: dict[str, Tensor]) -> tuple[Tensor, Tensor, Fresh]:
        """Inputs [M, O] and labels [M, P] of one round on the device, and how well the members knew them already."""
        device = self.family.device
        observation, params = visited["observation"].to(device), visited["params"].to(device)
        if self.normaliser is None:
            self.normaliser = Normaliser.measured(visited["observation"].numpy())
            self.start_log_std(params)
        elif self.rounds_done == 0 and not len(self.dataset):
            self.start_log_std(params)
        inputs = self.normaliser.apply(observation)
        self.timesteps += len(inputs)
        return inputs, params, self._fresh(inputs, params, visited)

    def keep(self, visited: dict[str, Tensor], inputs: Tensor, params: Tensor) -> int:
        """Puts one round's inputs [M, O] and labels [M, P] into the data set; how many old states were dropped."""
        if isinstance(self.dataset, SequenceDataset):
            return self.dataset.append(inputs, params, visited["start"])
        return self.dataset.append(inputs, params)

    def student_of(self, round_index: int, member: int) -> Student:
        """The member as it was after a judged round."""
        now = self.family.flat.clone()
        self.family.flat.copy_(self.selection.snapshots[round_index])
        student = self.student_now(member)
        self.family.flat.copy_(now)
        return student

    def student_now(self, member: int) -> Student:
        """The member as it is."""
        log_std = self.family.member_log_std(member)
        if isinstance(self.family, GruFamily):
            return GruStudent(parts=self.family.member_parts(member), log_std=log_std, **self._shared())
        return self.student_with(self.family.member_layers(member), log_std)

    def student_with(self, layers: Sequence[tuple[Tensor, Tensor]], log_std: Tensor) -> MlpStudent:
        """A feed-forward student of this run with these weights [in, out], biases [out] and log_std [A]."""
        assert isinstance(self.family, Family)
        return MlpStudent(layers=tuple(layers), log_std=log_std, activation=self.family.activation, **self._shared())

    def _shared(self) -> dict[str, Any]:
        assert self.normaliser is not None
        teacher = self.session.teacher
        return {
            "normaliser": self.normaliser,
            "distribution": teacher.distribution,
            "action_map": teacher.action_map,
            "observation_space": self.session.view.space,
            "action_space": teacher.action_space,
            "generator": torch.Generator(device=self.family.device),
            "masked": teacher.masked,
        }

    def start_log_std(self, params: Tensor) -> None:
        """The student's spread starts at the teacher's mean log_std over the first round."""
        n_means = self.family.n_means
        if self.family.log_std.numel():
            self.family.log_std.copy_(params[:, n_means:].mean(0).expand_as(self.family.log_std))

    def _fresh(self, inputs: Tensor, params: Tensor, visited: dict[str, Tensor]) -> Fresh:
        """The teacher's rows, where it drove as well, are nobody's."""
        n_envs = self.session.config.rollout.n_envs
        assert isinstance(n_envs, int)
        slots = torch.from_numpy(self.driver_of_slot(n_envs)).to(inputs.device)
        actor = visited["actor"].to(inputs.device).long()
        member = torch.where(actor >= 0, slots[actor.clamp(min=0)], actor)
        agreements, losses = list[float](), list[float]()
        if not (member >= 0).any():
            return Fresh(agreements, losses)
        along = self.family.along(inputs, visited["start"]) if isinstance(self.family, GruFamily) else None
        for index in range(len(self.family)):
            rows = (member == index).nonzero().squeeze(-1)
            if not len(rows):
                agreements.append(float("nan"))  # the teacher drove all of this member's steps
                losses.append(float("nan"))
                continue
            if along is not None:
                own = along[index, rows]
            else:
                assert isinstance(self.family, Family)
                own = self.family.member(index)(inputs[rows])
            agreements.append(agreement(self.session.teacher, params[rows], own))
            losses.append(float(self.learner.loss(self.family.distribution, params[rows], own).mean()))
        return Fresh(agreements, losses)


def start(session: Session, specs: Sequence[MemberSpec] | None = None, rounds: int | None = None) -> LearningState:
    """The state before round 0, of the configured family or of `specs`, whose learning rate falls over `rounds`."""
    config, teacher = session.config, session.teacher
    n_inputs = session.view.packing.n_features
    specs = members_of(config.student) if specs is None else specs
    where: dict[str, Any] = {"root_seed": config.seed, "device": config.device}
    size = n_inputs, teacher.distribution.n_params, config.data.max_states, config.device
    family: Family | GruFamily
    dataset: Dataset | SequenceDataset
    if config.student.kind == "gru":
        family, dataset = GruFamily(specs, n_inputs, teacher.distribution, **where), SequenceDataset(*size)
    else:
        family = Family(specs, n_inputs, teacher.distribution, activation=config.student.activation, **where)
        dataset = Dataset(*size)
    loss = make_loss(config.loss.kind, config.loss.temperature, config.loss.convention, masked=teacher.masked)
    learner = Learner(family, loss, config.update, rounds or config.rollout.rounds)
    normaliser = None
    n = teacher.normalizer
    if isinstance(n, Normalizer) and session.view.columns is None:  # else the student measures its own
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
    if facts["round"] + 1 < session.config.rollout.rounds:  # else the data has done its work
        load_shards(session, state, facts["round"])
    state.rounds_done, state.timesteps = facts["round"] + 1, facts["timesteps"]
    session.work.seconds.update(facts["seconds"])
    return state


def load_shards(session: Session, state: LearningState, last: int) -> None:
    """Fills the data set again with the labelled states of every round up to `last`. InputError where one is gone."""
    assert state.normaliser is not None
    for index in session.folder.shards:
        if index > last:
            continue
        shard = session.folder.load_shard(index)
        if shard is None:
            raise InputError(
                f"{session.folder.checkpoints}: the labelled data of round {index} is missing; start a new run"
            )
        visited = {name: torch.from_numpy(value).to(state.family.device) for name, value in shard.items()}
        state.keep(visited, state.normaliser.apply(visited["observation"]), visited["params"])
