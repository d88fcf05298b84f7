"""Which family, data and student belong to a kind: the one place that knows all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.data.records import RecordDataset, Records
from policykd.data.sequences import SequenceDataset
from policykd.learn.rounds.labels import label_width
from policykd.learn.setup.session import Session
from policykd.learn.updates.trees import require_packages
from policykd.loss.weighting import weigh_by
from policykd.spine.config.student import StudentConfig
from policykd.spine.errors import InputError
from policykd.spine.packing import Packing
from policykd.spine.spaces import describe_space
from policykd.students.conv import ConvStudent
from policykd.students.convolved import ConvFamily
from policykd.students.encoders import is_picture
from policykd.students.family import Family
from policykd.students.gru import GruStudent
from policykd.students.mlp import MlpStudent
from policykd.students.nodes import Nodes
from policykd.students.parted import PartedFamily
from policykd.students.recurrent import GruFamily
from policykd.students.spec import MemberSpec
from policykd.students.student import Student
from policykd.students.tree import TreeStudent
from policykd.students.tree_family import TreeFamily
from policykd.students.view import View
from policykd.teachers.base import Teacher

AnyFamily = Family | PartedFamily | TreeFamily

MAX_INPUTS = 8192  # of a student: the labelled states of a run lie in memory
_MAX_BYTES = 4 * MAX_INPUTS  # of one state as it is kept


def family_of(session: Session, specs: Sequence[MemberSpec]) -> AnyFamily:
    """The family of these members, untrained."""
    config, distribution, packing = session.config, session.teacher.distribution, session.view.packing
    if config.student.kind == "tree":
        return TreeFamily(specs, packing.n_features, distribution, device=config.device)
    where: dict[str, Any] = {"root_seed": config.seed, "device": config.device}
    if config.student.kind == "gru":
        return GruFamily(specs, packing.n_features, distribution, **where)
    where["activation"] = config.student.activation
    if sees_images(config.student.kind):
        return ConvFamily(specs, packing, distribution, **where)
    return Family(specs, packing.n_features, distribution, **where)


def dataset_of(session: Session) -> Dataset | SequenceDataset:
    """The empty data set for members of the configured kind."""
    config, packing = session.config, session.view.packing
    bounds = label_width(config, session.teacher), config.data.max_states, config.device
    if config.student.kind == "gru":
        return SequenceDataset(packing.n_features, *bounds)
    images = sees_images(config.student.kind)
    dataset = RecordDataset(packing, *bounds) if images else Dataset(packing.n_features, *bounds)
    assert config.data.weighting != "auto"  # settled by `policykd.learn.setup.defaults`
    distribution = session.teacher.distribution
    weigh = weigh_by(config.data.weighting, distribution)
    dataset.weigh = None if weigh is None else lambda labels: weigh(labels[..., : distribution.n_params])
    return dataset


def student_of(family: AnyFamily, member: int, shared: dict[str, Any]) -> Student:
    """The member as it is, with what all members share."""
    own = {**shared, "log_std": family.member_log_std(member)}
    if isinstance(family, TreeFamily):
        return TreeStudent(nodes=family.nodes(member), **own)
    if isinstance(family, Family):
        return MlpStudent(layers=tuple(family.member_layers(member)), activation=family.activation, **own)
    if isinstance(family, ConvFamily):
        return ConvStudent(plan=family.plan(member), parts=family.member_parts(member), **own)
    return GruStudent(parts=family.member_parts(member), **own)


def student_with(family: AnyFamily, spec: MemberSpec, weights: Mapping[str, Tensor], shared: dict[str, Any]) -> Student:
    """A student of this architecture with these weights, by the names of `Student.weights`."""
    if isinstance(family, Family):
        count = len(weights) // 2
        layers = tuple((weights[f"layers.{k}.weight"], weights[f"layers.{k}.bias"]) for k in range(count))
        return MlpStudent(layers=layers, activation=family.activation, **shared)
    if isinstance(family, ConvFamily):
        return ConvStudent(plan=family.plan_of(spec), parts=dict(weights), **shared)
    if isinstance(family, TreeFamily):
        return TreeStudent(nodes=Nodes.from_arrays({name: part.numpy() for name, part in weights.items()}), **shared)
    return GruStudent(parts=dict(weights), **shared)


def sees_images(kind: str) -> bool:
    """Whether students of this kind have convolutions, and their states are kept as they were observed."""
    return kind in ("cnn", "multi")


def _grey(packing: Packing) -> str:
    """What else to do about pictures without an axis of channels."""
    flat = any(len(leaf.shape) == 2 for leaf in packing.leaves)
    return ", or keep the channel of grey pictures ({GrayscaleObservation: {keep_dim: true}})" if flat else ""


def refuse_unfit(config: StudentConfig, teacher: Teacher) -> None:
    """InputError where students of this kind cannot see what they would of the teacher's environment."""
    view, kind = View.of(config.keys, teacher.observation_space, teacher.packing), config.kind
    if kind == "tree":
        require_packages()
    packing, seen = view.packing, describe_space(view.space)[:80]
    pictures = sum(map(is_picture, packing.leaves))
    if kind == "cnn" and not (pictures and len(packing.leaves) == 1):
        other = "multi, or name the image in student.keys" if pictures else "mlp"
        raise InputError(
            f"student.kind cnn: observations are {seen}, expected one image: use student.kind={other}{_grey(packing)}"
        )
    if kind == "multi" and len(packing.leaves) == 1 and (packing.plain or pictures):
        other = "cnn" if pictures else "mlp"
        raise InputError(f"student.kind multi: observations are {seen}, expected several: use student.kind={other}")
    who = "student.wrappers: the student" if config.wrappers else f"{teacher.info.source}: the student"
    remedy = "add ResizeObservation" if config.wrappers else "use a teacher that was trained on smaller observations"
    if not sees_images(kind) and packing.n_features > MAX_INPUTS:
        hint = f"use student.kind=cnn or multi, or {remedy}" if pictures else remedy
        raise InputError(
            f"{who} observes {packing.n_features} numbers ({seen}), and students of kind {kind} take at most "
            f"{MAX_INPUTS}: {hint}"
        )
    if sees_images(kind) and Records(packing).n_bytes > _MAX_BYTES:
        raise InputError(
            f"{who} observes {Records(packing).n_bytes} bytes ({seen}), and students of kind {kind} keep at most "
            f"{_MAX_BYTES} for each observation: {remedy}"
        )
