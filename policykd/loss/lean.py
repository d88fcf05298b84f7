"""Loss and gradient of mini-batches in NumPy, where torch's cost per call is most of the time: small batches on a CPU.

The commonest losses are written out; every other goes through torch, on the same memory.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policykd.loss.distributions import Categorical, DiagGaussian, Distribution, SquashedDiagGaussian
from policykd.loss.losses import Loss

F32 = NDArray[np.float32]


class Slope(Protocol):
    """Mini-batch k of a stretch: the mean loss of each member [S], and its gradient.

    means [S, B, M], log_std [S, 1, A] (A is 0 where the distribution has none) -> d_means, d_log_std, overwritten.
    """

    def __call__(self, k: int, means: F32, log_std: F32, d_means: F32, d_log_std: F32) -> F32: ...


def slope_of(loss: Loss, distribution: Distribution, labels: Tensor) -> Slope:
    """The loss against the labels [U, B, L] of U mini-batches; what depends on them alone is done now."""
    teacher = labels[..., : distribution.n_params]
    if loss.plain and isinstance(distribution, Categorical):
        return _Categorical(teacher)
    if loss.plain and isinstance(distribution, DiagGaussian | SquashedDiagGaussian):
        return _Gaussian(teacher, distribution.dim)
    return _Torch(loss, distribution, labels)


class _Categorical:
    """d KL / d logits = softmax(student) - softmax(teacher)."""

    def __init__(self, teacher: Tensor) -> None:
        log_p = teacher.log_softmax(-1)
        prob = log_p.exp()
        known = (prob * torch.where(prob > 0, log_p, torch.zeros_like(log_p))).sum(-1).mean(-1)
        self._prob, self._known = prob.numpy(), known.numpy()
        self._ones = np.ones((teacher.shape[-1], 1), np.float32)

    def __call__(self, k: int, means: F32, log_std: F32, d_means: F32, d_log_std: F32) -> F32:
        prob, n = self._prob[k], means.shape[1]
        highest = means[..., :1].copy()  # column by column: a reduction over few columns takes several times longer
        for column in range(1, means.shape[-1]):
            np.maximum(highest, means[..., column : column + 1], out=highest)
        means -= highest
        cross = np.matmul(means.reshape(len(means), -1), prob.reshape(-1))
        np.exp(means, out=d_means)
        total = np.matmul(d_means, self._ones)
        d_means /= total
        d_means -= prob
        d_means *= np.float32(1 / n)
        np.log(total, out=total)
        loss: F32 = self._known[k] + (total.sum((1, 2)) - cross) / np.float32(n)
        return loss


class _Gaussian:
    """d KL / d mean = (mean - teacher's) / var; d KL / d log_std = 1 - (teacher's var + gap^2) / var."""

    def __init__(self, teacher: Tensor, dim: int) -> None:
        mean, log_std = teacher[..., :dim], teacher[..., dim:]
        self._mean = mean.numpy()
        self._variance = (2.0 * log_std).exp().mean(1, keepdim=True).numpy()  # [U, 1, A]
        self._known = (log_std.mean(1).sum(-1) + 0.5 * dim).numpy()
        self._ones = np.ones((1, teacher.shape[1]), np.float32)

    def __call__(self, k: int, means: F32, log_std: F32, d_means: F32, d_log_std: F32) -> F32:
        n = np.float32(means.shape[1])
        np.subtract(means, self._mean[k], out=d_means)
        np.multiply(d_means, d_means, out=means)
        rest = np.matmul(self._ones, means)
        rest /= n
        rest += self._variance[k]
        precision = np.exp(np.float32(-2.0) * log_std)
        rest *= precision
        np.subtract(np.float32(1.0), rest, out=d_log_std)
        d_means *= precision / n
        loss: F32 = (log_std + np.float32(0.5) * rest).sum((1, 2)) - self._known[k]
        return loss


class _Torch:
    """Any loss of any distribution."""

    def __init__(self, loss: Loss, distribution: Distribution, labels: Tensor) -> None:
        self._loss, self._distribution, self._labels = loss, distribution, labels

    def __call__(self, k: int, means: F32, log_std: F32, d_means: F32, d_log_std: F32) -> F32:
        student, n_means = torch.from_numpy(means), means.shape[-1]
        if log_std.size:
            spread = torch.from_numpy(log_std).expand(-1, means.shape[1], -1)
            student = torch.cat([student, spread], -1)
        loss, gradient = self._loss.with_gradient(self._distribution, self._labels[k], student)
        gradient = gradient / means.shape[1]
        d_means[...] = gradient[..., :n_means].numpy()
        if log_std.size:
            d_log_std[...] = gradient[..., n_means:].sum(1, keepdim=True).numpy()
        return loss.mean(-1).numpy()
