"""The only backward pass, clip and optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policykd.data.dataset import Dataset
from policykd.loss.losses import Loss
from policykd.spine.config.schema import UpdateConfig
from policykd.spine.errors import NumericsError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Progress
from policykd.students.family import Family

_CHUNK = 50  # updates whose mini-batches are gathered at once
_CHECKS = 4  # times a round that figures are read back from the device


@dataclass(frozen=True)
class UpdateMetrics:
    """Figures of one stretch of updates: `update` counts from the run's start; loss and grad_norm per member [S]."""

    update: int
    learning_rate: float
    loss: list[float]
    grad_norm: list[float]


class Learner:
    """A family, its optimizer and the learning-rate schedule over the whole run."""

    def __init__(self, family: Family, loss: Loss, config: UpdateConfig, rounds: int) -> None:
        self.family, self.loss, self._config = family, loss, config
        assert isinstance(config.n_updates, int)  # settled by `policykd.learn.defaults`
        self.n_updates = config.n_updates
        self._total = rounds * self.n_updates
        self._norms: Tensor | None = None  # of the last update, before the bound
        family.flat.grad = family.grad
        self._adam = torch.optim.Adam([family.flat], lr=config.learning_rate, fused=True)

    def learning_rate(self, update: int) -> float:
        """Linear from the first to the last update of the run."""
        c = self._config
        return c.learning_rate + (c.final_learning_rate - c.learning_rate) * update / max(self._total - 1, 1)

    def fit(self, dataset: Dataset, round_index: int, key: SeedKey, progress: Progress) -> list[UpdateMetrics]:
        """One round of updates on mini-batches that all members share.

        Raises NumericsError naming loss or gradient and member; Interrupted when asked to stop.
        """
        n, batch = self.n_updates, min(self._config.batch_size, len(dataset))
        index = dataset.draw(n, batch, key.torch(self.family.device))
        first = round_index * n
        marks = {n * (k + 1) // _CHECKS - 1 for k in range(_CHECKS)}
        total = torch.zeros(len(self.family), device=self.family.device)
        metrics, since = [], 0
        for begin in range(0, n, _CHUNK):
            progress.check()
            inputs, params = dataset.take(index[begin : begin + _CHUNK])
            for k in range(len(inputs)):
                total += self._step(inputs[k], params[k], first + begin + k)
                since += 1
                if begin + k in marks:
                    metrics.append(self._read(first + begin + k, total / since))
                    total.zero_()
                    since = 0
            progress.advance(len(inputs))
        return metrics

    def replaced(self, family: Family, origin: Tensor, carry: Callable[[Tensor, Tensor], Tensor]) -> Learner:
        """The learner of a family that has lost members: `carry` moves what Adam knows of the others, by `origin`."""
        rounds = self._total // self.n_updates
        learner = Learner(family, self.loss, self._config, rounds)
        state = {name: value if name == "step" else carry(value, origin) for name, value in self.state().items()}
        learner.load_state(state | {"flat": family.flat.clone()})
        return learner

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer state, enough to continue bit for bit."""
        adam = self._adam.state[self.family.flat]
        if not adam:
            return {"flat": self.family.flat}
        moments = {name: adam[name] for name in ("exp_avg", "exp_avg_sq")}
        return {"flat": self.family.flat, "step": adam["step"].reshape(1), **moments}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        device = self.family.device
        self.family.flat.copy_(state["flat"])
        if "step" in state:
            self._adam.state[self.family.flat] = {
                "step": state["step"].reshape(()).clone().to(device),
                "exp_avg": state["exp_avg"].clone().to(device),
                "exp_avg_sq": state["exp_avg_sq"].clone().to(device),
            }

    def _step(self, inputs: Tensor, teacher: Tensor, update: int) -> Tensor:
        family, saved = self.family, list[list[Tensor]]()
        student = family.forward_saving(inputs, saved)
        loss, gradient = self.loss.with_gradient(family.distribution, teacher, student)
        family.backward(gradient.div_(len(inputs)), saved)
        self._norms = None
        if self._config.max_grad_norm is not None:
            self._norms = family.member_grad_norms()
            family.scale_member_grads((self._config.max_grad_norm / self._norms.clamp(min=1e-12)).clamp(max=1.0))
        self._adam.param_groups[0]["lr"] = self.learning_rate(update)
        self._adam.step()
        return loss.mean(-1)

    def _read(self, update: int, loss: Tensor) -> UpdateMetrics:
        norms = self.family.member_grad_norms() if self._norms is None else self._norms
        for name, values in (("loss", loss), ("gradient", norms), ("weights", self.family.flat.sum().view(1))):
            if not torch.isfinite(values).all():
                member = int((~torch.isfinite(values)).nonzero()[0])
                which = f"member {member}" if len(values) > 1 else "the student"
                raise NumericsError(
                    f"{name} is not finite in update {update} of {which}; lower update.learning_rate or set "
                    "update.max_grad_norm"
                )
        return UpdateMetrics(update, self.learning_rate(update), loss.tolist(), norms.tolist())
