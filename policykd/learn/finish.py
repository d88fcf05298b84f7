"""What is done to the chosen student before it is judged."""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.compress.int8 import quantised
from policykd.learn.rounds.offline import stored_states
from policykd.learn.setup.session import Session
from policykd.students.mlp import MlpStudent
from policykd.students.student import Student


def finished(session: Session, student: Student) -> Student:
    """The student as it is proved and saved: with weights of 8 bits where `compress.int8` asks for them."""
    how = session.config.compress.int8
    if how == "none":
        return student
    assert isinstance(student, MlpStudent)
    if how == "aware":
        return quantised(student)
    return quantised(student, student.normaliser.apply(_states(session).to(student.device)))


def _states(session: Session) -> Tensor:
    """Features [M, O] of the states that the last round visited, or of all that lay ready."""
    if session.config.data.dir is not None:
        return stored_states(session, session.view.features)["observation"]
    last = session.folder.load_shard(max(session.folder.shards))  # with update.patience not that of the last round
    assert last is not None  # they stay until the run ends
    return torch.from_numpy(last["observation"])
