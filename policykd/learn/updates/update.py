"""The only backward pass, clip and optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from policykd.compress.int8 import quantise_
from policykd.data.dataset import Dataset
from policykd.data.records import RecordDataset
from policykd.data.sequences import Chunks, SequenceDataset
from policykd.learn.updates.aside import Aside
from policykd.learn.updates.attention import Attention
from policykd.learn.updates.augment import Augment
from policykd.loss.lean import slope_of
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.errors import NumericsError
from policykd.spine.seeding import SeedKey
from policykd.spine.types import Progress
from policykd.students.convolved import ConvFamily
from policykd.students.family import Family
from policykd.students.lean import Passes
from policykd.students.parted import PartedFamily
from policykd.students.recurrent import GruFamily
from policykd.students.recurrent_passes import GruPasses

_CHUNK = 50  # updates whose mini-batches are gathered at once
_CHECKS = 4  # times a round that figures are read back from the device


@dataclass(frozen=True)
class UpdateMetrics:
    """Figures of one stretch of updates: `update` counts from the run's start; loss and grad_norm per member [S]. What
    descends no gradient has neither rate nor norms."""

    update: int
    loss: list[float]
    learning_rate: float | None = None
    grad_norm: list[float] = field(default_factory=list)


class Learner:
    """A family, its optimizer and the learning-rate schedule over the whole run."""

    def __init__(
        self, family: Family | PartedFamily, loss: Loss, config: UpdateConfig, rounds: int, *, int8: bool = False
    ) -> None:
        """`int8`: the family's weights are those of the optimizer rounded to 8 bits, after every step."""
        self.family, self.loss, self._config, self._int8 = family, loss, config, int8
        self._weights = family.flat.clone() if int8 else family.flat  # what the optimizer moves
        assert isinstance(config.n_updates, int)  # settled by `policykd.learn.setup.defaults`
        self.n_updates = config.n_updates
        self._total = rounds * self.n_updates
        self._norms: Tensor | None = None  # of the last update, before the bound
        self._moments = torch.zeros_like(family.flat), torch.zeros_like(family.flat)
        self._steps = torch.zeros((), device=family.device)  # of Adam
        self._passes: Passes | None = None
        self._through_time: GruPasses | None = None
        self.augment: Augment | None = None
        self.aside: Aside | None = None
        self.attention: Attention | None = None

    def learning_rate(self, update: int) -> float:
        """Linear from the first to the last update of the run."""
        c = self._config
        return c.learning_rate + (c.final_learning_rate - c.learning_rate) * update / max(self._total - 1, 1)

    def fit(
        self, dataset: Dataset | SequenceDataset, round_index: int, key: SeedKey, progress: Progress
    ) -> list[UpdateMetrics]:
        """One round of updates on mini-batches that all members share.

        Raises NumericsError naming loss or gradient and member; Interrupted when asked to stop.
        """
        n, batch = self.n_updates, min(self._config.batch_size, len(dataset))
        generator = key.torch(self.family.device)
        index = dataset.draw(n, batch, generator)
        if isinstance(dataset, SequenceDataset):
            assert isinstance(self.family, GruFamily)
            dataset.remember(self.family)
        if self.aside is not None:
            self.aside.begin(dataset.params, round_index)
        first = round_index * n
        marks = {n * (k + 1) // _CHECKS - 1 for k in range(_CHECKS)}
        total = torch.zeros(len(self.family), device=self.family.device)
        metrics, since = [], 0
        for begin in range(0, n, _CHUNK):
            progress.check()
            step = self._updates(dataset, index[begin : begin + _CHUNK], generator)
            for k in range(len(index[begin : begin + _CHUNK])):
                with np.errstate(all="ignore"):  # what is not finite is found and named below
                    total += step(k)
                self._descend(first + begin + k)
                since += 1
                if begin + k in marks:
                    metrics.append(self._read(first + begin + k, total / since))
                    total.zero_()
                    since = 0
            progress.advance(len(index[begin : begin + _CHUNK]))
        return metrics

    def replaced(
        self, family: Family | PartedFamily, origin: Tensor, carry: Callable[[Tensor, Tensor], Tensor]
    ) -> Learner:
        """The learner of a family that has lost members: `carry` moves what Adam knows of the others, by `origin`."""
        rounds = self._total // self.n_updates
        learner = Learner(family, self.loss, self._config, rounds, int8=self._int8)
        learner.augment = self.augment
        state = {name: value if name == "step" else carry(value, origin) for name, value in self.state().items()}
        learner.load_state(state | {"flat": family.flat.clone()})
        return learner

    def adopt(self) -> None:
        """Goes on from the weights that the family was given."""
        if self._int8:
            self._weights.copy_(self.family.flat)
            self._show()

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer state, enough to continue bit for bit."""
        names = dict(zip(("exp_avg", "exp_avg_sq"), self._moments, strict=True))
        aside = {} if self.aside is None else self.aside.state()
        return {"flat": self._weights, "step": self._steps.reshape(1), **names, **aside}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self._weights.copy_(state["flat"])
        self._show()
        self._steps.copy_(state["step"].reshape(()))
        for moment, name in zip(self._moments, ("exp_avg", "exp_avg_sq"), strict=True):
            moment.copy_(state[name])
        if self.aside is not None:
            self.aside.load_state(state)

    def _updates(
        self, dataset: Dataset | SequenceDataset, index: Tensor, generator: torch.Generator
    ) -> Callable[[int], Tensor]:
        """What makes the gradient of mini-batch k of those drawn, `index` [U, B], and gives its loss [S]."""

        def seen(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return (inputs, labels) if self.augment is None else self.augment(inputs, labels, generator)

        if isinstance(dataset, RecordDataset):
            return lambda k: self._through(*seen(*dataset.take(index[k])))
        taken = dataset.take(index)
        return self._along(taken) if isinstance(taken, Chunks) else self._stretch(*seen(*taken))

    def _stretch(self, inputs: Tensor, params: Tensor) -> Callable[[int], Tensor]:
        """What makes the gradient of mini-batch k of these [U, B, O], labels [U, B, P], and gives its loss [S]."""
        assert isinstance(self.family, Family)
        if self.family.device.type != "cpu" or self.aside is not None:
            return lambda k: self._slope(inputs[k], params[k])
        batch = inputs.shape[1]
        if self._passes is None or self._passes.means.shape[1] != batch:
            self._passes = Passes(self.family, batch)
        passes, seen = self._passes, inputs.numpy()
        slope = slope_of(self.loss, self.family.distribution, params)

        def step(k: int) -> Tensor:
            passes.forward(seen[k])
            loss = slope(k, passes.means, passes.log_std, passes.d_means, passes.d_log_std)
            passes.backward()
            return torch.from_numpy(loss)

        return step

    def _slope(self, inputs: Tensor, teacher: Tensor) -> Tensor:
        """The same in torch."""
        family, saved = self.family, list[list[Tensor]]()
        assert isinstance(family, Family)
        student = family.forward_saving(inputs, saved)
        loss, gradient = self.loss.with_gradient(family.distribution, teacher, student)
        pull = None if self.aside is None else self.aside.pull(teacher, saved)
        family.backward(gradient.div_(len(inputs)), saved, pull)
        return loss.mean(-1)

    def _along(self, chunks: Chunks) -> Callable[[int], Tensor]:
        """The same for students with a memory, by back-propagation through each chunk."""
        family = self.family
        assert isinstance(family, GruFamily)
        if family.device.type != "cpu":
            return self._by_autograd(chunks, family)
        batch, steps = chunks.inputs.shape[1:3]
        if self._through_time is None or self._through_time.means.shape[1:3] != (steps, batch):
            self._through_time = GruPasses(family, steps, batch)
        passes = self._through_time
        inputs = chunks.inputs.transpose(1, 2).contiguous().numpy()
        params = chunks.params.transpose(1, 2).flatten(1, 2)
        weights = chunks.weight.transpose(1, 2).flatten(1, 2)
        weights /= weights.sum(1, keepdim=True)
        means, d_means = (torch.from_numpy(x).flatten(1, 2) for x in (passes.means, passes.d_means))
        log_std = family.log_std.expand(-1, steps * batch, -1)

        def step(k: int) -> Tensor:
            passes.forward(inputs[k], [before[k] for before in chunks.before])
            student = torch.cat([means, log_std], -1) if log_std.shape[2] else means
            loss, slope = self.loss.with_gradient(family.distribution, params[k], student)
            slope *= weights[k].unsqueeze(-1)
            d_means.copy_(slope[..., : family.n_means])
            torch.sum(slope[..., family.n_means :], 1, keepdim=True, out=family.d_log_std)
            passes.backward()
            return (loss * weights[k]).sum(-1)

        return step

    def _by_autograd(self, chunks: Chunks, family: GruFamily) -> Callable[[int], Tensor]:
        """The same in torch's own kernel."""

        def step(k: int) -> Tensor:
            flat = family.flat.detach().requires_grad_()
            student = family.outputs(flat, chunks.inputs[k], [before[k] for before in chunks.before])
            weight = chunks.weight[k].flatten() / chunks.weight[k].sum()
            return self._recorded(flat, student.flatten(1, 2), chunks.params[k].flatten(0, 1), weight)

        return step

    def _through(self, inputs: Tensor, teacher: Tensor) -> Tensor:
        """The loss [S] of one mini-batch, inputs [B, F] and labels [B, P], for students with convolutions."""
        assert isinstance(self.family, ConvFamily)
        flat = self.family.flat.detach().requires_grad_()
        weight = teacher.new_full((len(teacher),), 1 / len(teacher))
        if self.attention is None:
            return self._recorded(flat, self.family.outputs(flat, inputs), teacher, weight)
        maps = [list[Tensor]() for _ in range(len(self.family))]
        student = self.family.outputs(flat, inputs, maps)
        return self._recorded(flat, student, teacher, weight, self.attention.loss(teacher, maps))

    def _recorded(
        self, flat: Tensor, student: Tensor, teacher: Tensor, weight: Tensor, beside: Tensor | None = None
    ) -> Tensor:
        """The loss [S] of labels [B, P], weighted by `weight` [B], and the family's gradient by what `student`
        [S, B, P] recorded of `flat`, and the loss `beside`."""
        family = self.family
        loss, slope = self.loss.with_gradient(family.distribution, teacher, student.detach())
        slope = slope * weight.unsqueeze(-1)
        if beside is None:
            student.backward(slope)
        else:
            torch.autograd.backward((student, beside), (slope, torch.ones_like(beside)))
        assert flat.grad is not None
        family.grad.copy_(flat.grad)
        return (loss * weight).sum(-1)

    def _descend(self, update: int) -> None:
        """Clip and optimizer step."""
        family = self.family
        self._norms = None
        if self._config.max_grad_norm is not None:
            self._norms = family.member_grad_norms()
            family.scale_member_grads((self._config.max_grad_norm / self._norms.clamp(min=1e-12)).clamp(max=1.0))
        _adam(self._weights, family.grad, self._moments, self._steps, self.learning_rate(update))
        if self.aside is not None:
            own = self.aside
            _adam(own.flat, own.grad, own.moments, self._steps - 1, self.learning_rate(update))
        self._show()

    def _show(self) -> None:
        """The family computes with the optimizer's weights, as they are or rounded."""
        if self._int8:
            assert isinstance(self.family, Family)
            self.family.flat.copy_(self._weights)
            quantise_(self.family)

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
        return UpdateMetrics(update, loss.tolist(), self.learning_rate(update), norms.tolist())


def _adam(flat: Tensor, grad: Tensor, moments: tuple[Tensor, Tensor], steps: Tensor, learning_rate: float) -> None:
    """torch's fused kernel (Kingma and Ba 2015) without the optimizer object, whose call costs several times the step.

    Counts one more of `steps`.
    """
    adam(
        [flat],
        [grad],
        [moments[0]],
        [moments[1]],
        [],
        [steps],
        foreach=False,
        fused=True,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=learning_rate,
        weight_decay=0.0,
        eps=1e-8,
        maximize=False,
    )
