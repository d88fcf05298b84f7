"""Microseconds of one update, of one student and of families: ours beside what autograd and torch's Adam take."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.machine import described, table
from policykd.data.dataset import Dataset
from policykd.data.sequences import Chunks, SequenceDataset
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical, DiagGaussian
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.seeding import SeedKey
from policykd.students.family import Family
from policykd.students.recurrent import GruFamily
from policykd.students.spec import MemberSpec

SETS = (("4 choices of 8 inputs", 8, Categorical(4)), ("6 means of 17 inputs", 17, DiagGaussian(6)))
WIDTHS, MEMBERS, BATCH, STATES = (16, 64), (1, 5, 16, 64), 256, 10_000
MEMORIES, REMEMBERING, EPISODE = (8, 32), (1, 4), 200  # widths and members of GRU families, steps of an episode
ROUND = 200  # updates of such a family, at least: what is remembered is computed once for all of them
SECONDS = 0.25  # of one measurement, about
Side = Callable[[int], object]
"""Does so many updates."""


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """Medians of alternating repeats per update; whether ours is the fastest everywhere."""
    torch.set_num_threads(1)
    rows, good = [], True
    for name, inputs, distribution in SETS:
        for width in WIDTHS:
            for members in MEMBERS:
                sides = _sides(inputs, distribution, width, members)
                spent = _alternating(sides, options.seeds)
                ours, eager = spent["ours"], spent["eager"]
                good = good and ours <= min(spent.values())
                shown = [f"{value:,.0f}" for value in spent.values()]
                ratios = [f"{eager / ours:.1f}", f"{spent['torch'] / ours:.1f}", f"{ours / members:,.0f}"]
                rows.append([name, f"{width}x{width}", str(members), *shown, *ratios])
                sys.stderr.write(f"{' | '.join(rows[-1])}\n")
    memories = []
    for name, inputs, distribution in SETS:
        for width in MEMORIES:
            for members in REMEMBERING:
                spent = _alternating(_remembering(inputs, distribution, width, members), options.seeds, ROUND)
                good = good and spent["ours"] <= spent["autograd"]
                shown = [f"{value:,.0f}" for value in spent.values()]
                memories.append([name, str(width), str(members), *shown, f"{spent['autograd'] / spent['ours']:.1f}"])
                sys.stderr.write(f"{' | '.join(memories[-1])}\n")
    tables = {"table": table(HEAD, rows), "memories": table(MEMORY_HEAD, memories)}
    return PAGE.format(machine=described(), seeds=options.seeds, batch=BATCH, **tables), good


def _sides(inputs: int, distribution: Categorical | DiagGaussian, width: int, members: int) -> dict[str, Side]:
    generator = torch.Generator().manual_seed(0)
    data = Dataset(inputs, distribution.n_params, STATES, "cpu")
    data.append(
        torch.randn(STATES, inputs, generator=generator),
        0.3 * torch.randn(STATES, distribution.n_params, generator=generator),
    )

    def family() -> Family:
        return Family([MemberSpec(2, width, seed) for seed in range(members)], inputs, distribution)

    return {
        "eager": _autograd(family(), data, fused=False),
        "fused": _autograd(family(), data, fused=True),
        "torch": _learner(_InTorch, family(), data),
        "ours": _learner(Learner, family(), data),
    }


def _autograd(family: Family, data: Dataset, *, fused: bool) -> Side:
    """The family's own batched forward, torch's backward and torch's Adam."""
    tensors = [tensor for group in family.groups for tensor in (*group.weights, *group.biases)]
    tensors += [family.log_std] if family.log_std.numel() else []
    leaves = [tensor.requires_grad_() for tensor in tensors]
    adam = torch.optim.Adam(leaves, lr=1e-3, fused=fused)
    generator, loss = torch.Generator().manual_seed(0), Loss()

    def run(updates: int) -> None:
        for _ in range(updates):
            x, labels = data.take(torch.randint(len(data), (BATCH,), generator=generator))
            value = loss(family.distribution, labels, _forward(family, x)).mean(-1).sum()
            adam.zero_grad()
            value.backward()
            adam.step()

    return run


def _forward(family: Family, x: Tensor) -> Tensor:
    """As `Family.forward`, out of place and with torch's tanh, as autograd wants it."""
    outputs = []
    for group in family.groups:
        y = x.expand(group.members.stop - group.members.start, *x.shape)
        for k, (weight, bias) in enumerate(zip(group.weights, group.biases, strict=True)):
            y = torch.baddbmm(bias, y, weight)
            y = torch.tanh(y) if k < len(group.weights) - 1 else y
        outputs.append(y)
    means = torch.cat(outputs)
    return torch.cat([means, family.log_std.expand(-1, means.shape[1], -1)], -1) if family.log_std.numel() else means


class _InTorch(Learner):
    """The hand-written backward in torch, as on a GPU."""

    def _stretch(self, inputs: Tensor, params: Tensor) -> Callable[[int], Tensor]:
        return lambda k: self._slope(inputs[k], params[k])


def _remembering(inputs: int, distribution: Categorical | DiagGaussian, width: int, members: int) -> dict[str, Side]:
    generator = torch.Generator().manual_seed(0)
    data = SequenceDataset(inputs, distribution.n_params, STATES, "cpu")
    data.append(
        torch.randn(STATES, inputs, generator=generator),
        0.3 * torch.randn(STATES, distribution.n_params, generator=generator),
        torch.arange(STATES) % EPISODE == 0,
    )

    def family() -> GruFamily:
        return GruFamily([MemberSpec(1, width, seed, "gru") for seed in range(members)], inputs, distribution)

    return {"autograd": _learner(_ByAutograd, family(), data), "ours": _learner(Learner, family(), data)}


class _ByAutograd(Learner):
    """torch's own kernel of a GRU and its record, as on a GPU, with the fused kernel of Adam."""

    def _along(self, chunks: Chunks) -> Callable[[int], Tensor]:
        assert isinstance(self.family, GruFamily)
        return self._by_autograd(chunks, self.family)


def _learner(kind: type[Learner], family: Family | GruFamily, data: Dataset | SequenceDataset) -> Side:
    config = UpdateConfig(n_updates=1, batch_size=BATCH, learning_rate=1e-3, final_learning_rate=1e-3)
    learner, quiet = kind(family, Loss(), config, 1), _Quiet()

    def run(updates: int) -> None:
        learner.n_updates = updates
        learner.fit(data, 0, SeedKey(0, "update", 0), quiet)

    return run


class _Quiet:
    """Nobody is told."""

    def check(self) -> None:
        """Goes on."""

    def advance(self, n: int = 1) -> None:
        """Counts nothing."""


def _alternating(sides: dict[str, Side], repeats: int, least: int = 10) -> dict[str, float]:
    """Median microseconds per update of each side, in turns; each does so many that the slowest takes `SECONDS`, and
    at `least` these."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run(5)
    updates = max(least, int(SECONDS / max(_seconds(run, 5) / 5 for run in sides.values())))
    for _ in range(repeats):
        for name, run in sides.items():
            spent[name].append(1e6 * _seconds(run, updates) / updates)
    return {name: median(values) for name, values in spent.items()}


def _seconds(run: Side, updates: int) -> float:
    begin = time.perf_counter()
    run(updates)
    return time.perf_counter() - begin


HEAD = (
    *("labels", "student", "members", "autograd, Adam, µs", "autograd, fused Adam, µs", "by hand in torch, µs"),
    *("ours, µs", "Adam / ours", "by hand in torch / ours", "ours per member, µs"),
)

MEMORY_HEAD = ("labels", "numbers remembered", "members", "autograd, µs", "ours, µs", "autograd / ours")

PAGE = """# What an update costs

`python -m benchmarks updates --seeds {seeds} --out docs/benchmarks`: one optimizer step on {batch} states that all
members share, drawing them included, two tanh layers, one thread, medians of {seeds} alternating repeats in one
process. The first three columns of times are a family's batched forward with torch's autograd and `torch.optim.Adam`,
plain and fused, and the backward pass written by hand in torch with `2*sigmoid(2x)-1` for tanh and the fused kernel
without its optimizer object, which is what a GPU gets. Ours, on a CPU, does the same passes and the loss in NumPy on
the same memory (`policykd/students/lean.py`, `policykd/loss/lean.py`): there tanh is vectorised, products with few
columns are several times faster, and a call costs less. Nothing is compiled. The bound: ours is the fastest in every
row.

Machine: {machine}.

{table}
Students with a memory (`student.kind=gru`): eight chunks of 32 steps after 16 of burn-in, truncated back-propagation
through time; torch's own GRU kernel and autograd with the fused Adam, against the passes written by hand in NumPy
(`policykd/students/recurrent_passes.py`), in which members of one width share their products. What members remember at
the chunks' beginnings is computed once a round and is in both.

{memories}"""
