"""A student that teaches: it acts and labels in its teacher's place (the teacher assistant of Mirzadeh et al. 2020,
arXiv:1902.03393)."""

from __future__ import annotations

import torch
from torch import Tensor

from policykd.spine.errors import InputError
from policykd.students.student import Student
from policykd.students.view import Partial
from policykd.teachers.base import Teacher
from policykd.teachers.networks import Fingerprint, Network


class Assistant(Teacher):
    """`acting` is the student as it acts on what its teacher observes. Spaces, distribution, actions and statistics are
    its teacher's, and so is what kind of teacher that was: the student of Q-values acts by the mode, as they did. Its
    logits carry their temperature already. A teacher's memory it has not."""

    def __init__(self, acting: Student | Partial, original: Teacher) -> None:
        super().__init__(original.network, original._interface, original.info, original.normalizer)
        self.acting, self.original = acting, original

    @property
    def masked(self) -> bool:
        """Whether its teacher needs action masks."""
        return self.original.masked

    @property
    def fingerprint(self) -> str:
        """sha256 of the student's tensors, by their names in its file."""
        student = self.acting.student if isinstance(self.acting, Partial) else self.acting
        digest = Fingerprint()
        for name, values in sorted(student.to_artifact()[0].items()):
            digest.add_text(name).add_tensor(torch.from_numpy(values))
        return digest.hexdigest()

    @property
    def valued(self) -> bool:
        """Never: a student has no critic, and its teacher's judges another policy."""
        return False

    def _opened(self, what: str, method: str) -> Network:
        """InputError always: the layers that could be shown are its teacher's."""
        raise InputError(f"a student that teaches shows no {what}: leave {method} out, or learn from its teacher")

    def distribution_params(self, observation: Tensor) -> Tensor:
        """Parameters [B, P], float32, for packed observations [B, *packing.shape] on `device`."""
        with torch.no_grad():
            return self.acting.distribution_params(self._fitting(observation))
