"""The state of learning between rounds, and how it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.data.records import RecordDataset
from policykd.data.sequences import SequenceDataset
from policykd.evaluation.agreement import agreement
from policykd.learn.rounds.families import AnyFamily, dataset_of, family_of, student_of, student_with
from policykd.learn.rounds.held_out import HeldOut, held_rows
from policykd.learn.rounds.labels import asides, attentions
from policykd.learn.rounds.selection import Selection
from policykd.learn.rounds.targets import family_loss
from policykd.learn.rounds.warm import begin_from
from policykd.learn.setup.session import Session
from policykd.learn.updates.aside import Aside
from policykd.learn.updates.attention import Attention
from policykd.learn.updates.augment import Augment
from policykd.learn.updates.trees import TreeFitter
from policykd.learn.updates.update import Learner
from policykd.loss.losses import Loss
from policykd.rollout.kernels import Members
from policykd.rollout.recurrent import GruMembers
from policykd.rollout.trees import TreeMembers
from policykd.spine.types import Array
from policykd.students.convolved import ConvFamily
from policykd.students.encoders import normaliser_places
from policykd.students.family import Family
from policykd.students.normaliser import Normaliser
from policykd.students.recurrent import GruFamily
from policykd.students.spec import MemberSpec, members_of
from policykd.students.student import Student
from policykd.students.subset import carried, subset
from policykd.students.tree import no_normaliser
from policykd.students.tree_family import TreeFamily
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
    family: AnyFamily
    learner: Learner | TreeFitter
    dataset: Dataset | SequenceDataset
    normaliser: Normaliser | None
    selection: Selection
    rounds_done: int = 0
    timesteps: int = 0
    progress: list[float] = field(default_factory=list)  # of each member: its agreement when it last drove
    held: HeldOut = field(default_factory=HeldOut)
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

    def actors(self, n_envs: int) -> Members | GruMembers | TreeMembers | None:
        """How the members act: raw observations [N, *O] to parameters [N, P], each slot by its driver."""
        if self.normaliser is None:
            return None
        assert n_envs % len(self.driving) == 0
        if isinstance(self.family, TreeFamily):
            return TreeMembers(self.family, self.session.view)
        family = self.family if self.crew is None else subset(self.family, self.crew)[0]
        if isinstance(family, GruFamily):
            return GruMembers(family, self.normaliser, self.session.view, n_envs)
        assert isinstance(family, Family | ConvFamily)
        return Members(family, self.normaliser, self.session.view)

    def shed(self, keep: Sequence[int]) -> None:
        """Goes on with the members `keep` alone: they learn as if the others had never been there."""
        assert isinstance(self.learner, Learner) and not isinstance(self.family, TreeFamily)
        self.family, origin = subset(self.family, keep)
        self.learner = self.learner.replaced(self.family, origin, carried)
        self.learner.loss = self.learner.loss.among(sorted(keep))
        self.progress = [self.progress[member] for member in sorted(keep)] if self.progress else []

    def rows(self, observation: Array) -> Array:
        """[M, O] what is kept of the environment's packed observations [M, *shape]: features, or bytes of images."""
        view = self.session.view
        if isinstance(self.dataset, RecordDataset):
            return self.dataset.records.encode(view.packed(observation))
        return view.features(observation)

    def settle(self, normaliser: Normaliser) -> None:
        """From here on states are seen through this normaliser."""
        if isinstance(self.dataset, RecordDataset):
            normaliser = replace(normaliser, places=normaliser_places(self.session.view.packing))
            self.dataset.normaliser = normaliser.tensors(self.family.device)
        self.normaliser = normaliser
        if isinstance(self.learner, Learner) and self.learner.augment is not None:
            self.learner.augment.normaliser = normaliser.tensors(self.family.device)

    def inputs(self, rows: Tensor) -> Tensor:
        """[M, O] what the data set takes of `rows` on the device."""
        assert self.normaliser is not None
        return rows if isinstance(self.dataset, RecordDataset) else self.normaliser.apply(rows)

    def absorb(self, visited: dict[str, Tensor]) -> tuple[Tensor, Tensor, Fresh]:
        """Inputs [M, O] and labels [M, L] of one round on the device, and how well the members knew them already."""
        device = self.family.device
        observation, params = visited["observation"].to(device), visited["params"].to(device)
        first = self.normaliser is None or (self.rounds_done == 0 and not len(self.dataset))
        if self.normaliser is None:
            self.settle(self._measured(visited["observation"]))
        inputs, labels = self.inputs(observation), self.labels(visited)
        if first:
            self.start_log_std(params)
            begin_from(self, inputs, params)
            if isinstance(self.learner, Learner):
                self.learner.adopt()
        self.timesteps += len(inputs)
        fresh = self._fresh(inputs, labels, visited)
        known = self.progress or [float("nan")] * len(self.family)
        self.progress = [
            old if math.isnan(new) else new for old, new in zip(known, fresh.agreement or known, strict=True)
        ]
        return inputs, labels, fresh

    def labels(self, visited: dict[str, Tensor]) -> Tensor:
        """[M, L] on the device: the teacher's parameters, and what stands beside them."""
        device = self.family.device
        parts = [visited[name].to(device) for name in ("params", "beside") if name in visited]
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def keep(self, round_index: int, visited: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> int:
        """Puts one round's inputs [M, O] and labels [M, L] into the data set, but for those that are held out; how many
        old states were dropped."""
        if "env" in visited:
            config = self.session.config
            out = held_rows(visited["env"], config.data.held_out, int(config.rollout.n_envs), round_index)
            inputs, labels = self.held.taken(inputs, labels, out.to(inputs.device))
        if isinstance(self.dataset, SequenceDataset):
            return self.dataset.append(inputs, labels, visited["start"])
        return self.dataset.append(inputs, labels)

    def judge_held(self) -> None:
        """The members' losses on what is held out, after a round."""
        if not self.held.inputs:
            return
        members = [lambda x, m=m: self._params(m, x) for m in range(len(self.family))]
        self.held.judge(self._measure, self.family.distribution, members, self.family.flat)

    def student_of(self, round_index: int, member: int) -> Student:
        """The member as it was after a judged round."""
        now = self.family.flat.clone()
        self.family.flat.copy_(self.selection.snapshots[round_index])
        student = self.student_now(member)
        self.family.flat.copy_(now)
        return student

    def student_now(self, member: int) -> Student:
        """The member as it is."""
        return student_of(self.family, member, self._shared())

    def student_with(self, spec: MemberSpec, weights: Mapping[str, Tensor], log_std: Tensor) -> Student:
        """A student of this run with these weights, by the names of `Student.weights`, and log_std [A]."""
        return student_with(self.family, spec, weights, {**self._shared(), "log_std": log_std})

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
        own = slice(self.family.n_means, self.family.distribution.n_params)
        if self.family.log_std.numel():
            self.family.log_std.copy_(params[:, own].mean(0).expand_as(self.family.log_std))

    def _fresh(self, inputs: Tensor, labels: Tensor, visited: dict[str, Tensor]) -> Fresh:
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
                own = self._params(index, inputs[rows])
            distribution = self.family.distribution
            agreements.append(agreement(self.session.teacher, labels[rows, : distribution.n_params], own))
            losses.append(float(self._measure.among([index])(distribution, labels[rows], own).mean()))
        return Fresh(agreements, losses)

    @property
    def _measure(self) -> Loss:
        """The configured loss before any progress: one yardstick for all rounds, whatever each of them learns by."""
        return family_loss(self.session.config.loss, self.family.specs, masked=self.session.teacher.masked)

    def _measured(self, rows: Tensor) -> Normaliser:
        if isinstance(self.dataset, RecordDataset):
            return self.dataset.measured(rows)
        return Normaliser.measured(rows.numpy())

    def _params(self, member: int, inputs: Tensor) -> Tensor:
        """A member's parameters [M, P] for these inputs, of images a few at a time."""
        assert isinstance(self.family, Family | ConvFamily | TreeFamily)
        own = self.family.member(member)
        if not isinstance(self.dataset, RecordDataset):
            return own(inputs)
        return torch.cat([own(self.dataset.inputs(part)) for part in self.dataset.records.chunks(inputs)])


def start(session: Session, specs: Sequence[MemberSpec] | None = None, rounds: int | None = None) -> LearningState:
    """The state before round 0, of the configured family or of `specs`, whose learning rate falls over `rounds`."""
    config, teacher = session.config, session.teacher
    family = family_of(session, members_of(config.student, config.loss) if specs is None else specs)
    dataset = dataset_of(session)
    loss = family_loss(config.loss, family.specs, masked=teacher.masked)
    if isinstance(family, TreeFamily):
        plain = no_normaliser(session.view.packing.n_features)
        return LearningState(session, family, TreeFitter(family, loss), dataset, plain, Selection())
    int8 = config.compress.int8 == "aware"
    learner = Learner(family, loss, config.update, rounds or config.rollout.rounds, int8=int8)
    if config.aside.heads:
        assert isinstance(family, Family)
        learner.aside = Aside(family, asides(config, teacher))
    if config.aside.attention:
        learner.attention = Attention(config.aside.attention, attentions(config, teacher))
    if config.augment.active:
        learner.augment = Augment(config.augment, session.view.packing, teacher)
    normaliser = None
    n = teacher.normalizer
    # Of some entries of a Dict, through its own wrappers, and of images the student measures its own.
    if isinstance(n, Normalizer) and session.view.columns is None and not isinstance(dataset, RecordDataset):
        normaliser = Normaliser.of_teacher(n.mean.reshape(-1), n.std.reshape(-1), n.clip)
    state = LearningState(session, family, learner, dataset, None, Selection())
    if normaliser is not None:
        state.settle(normaliser)
    return state
