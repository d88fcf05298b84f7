"""Fails when the update loop makes the host wait for the device between two readings of figures, when a tensor or a
generator is left on the CPU, or when a device learns something else than the CPU does.

No GPU is needed: the device is that of `tests.support.away`, which computes on the CPU, and which stands for
`torch.Generator` too, since none can be made for a device that is not there. No CUDA kernel runs here.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policykd.api import distill
from policykd.data.dataset import Dataset
from policykd.data.records import RecordDataset
from policykd.data.sequences import SequenceDataset
from policykd.data.tasks import TaskDataset
from policykd.learn import run
from policykd.learn.run import Run, distillation, open_task, run_task
from policykd.learn.setup import defaults
from policykd.learn.updates.aside import Aside, Target
from policykd.learn.updates.augment import Augment
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    Distribution,
    MultiCategorical,
    SquashedDiagGaussian,
    is_gaussian,
)
from policykd.loss.heads import HeadLoss, Heads
from policykd.loss.losses import Loss
from policykd.loss.terms import TERMS
from policykd.loss.weighting import weigh_by
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.augment import AugmentConfig
from policykd.spine.config.data import UpdateConfig
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config
from policykd.spine.errors import Interrupted
from policykd.spine.packing import packing_of
from policykd.spine.seeding import SeedKey
from policykd.spine.stop import NeverStop, StopFlag
from policykd.spine.tracker import NullTracker
from policykd.students.convolved import ConvFamily
from policykd.students.family import Family
from policykd.students.joint import Joint
from policykd.students.normaliser import Normaliser
from policykd.students.recurrent import GruFamily
from policykd.students.spec import MemberSpec
from policykd.teachers.load import load_teacher
from tests.support.away import AWAY, Away, Device, HostWaits, watch_loop
from tests.support.core import Quiet
from tests.support.pictures import MIXED, Patch, finder
from tests.support.runs import StopsBehind
from tests.unit.learn.test_conv_distill import small

CPU = torch.device("cpu")
STATES, INPUTS = 120, 3
SPECS = [MemberSpec(1, 4), MemberSpec(2, 6)]
EACH = (2.0, 3.0)  # temperatures of the two members


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def learner(family: Any, loss: Loss = Loss(), **more: Any) -> Learner:  # noqa: B008
    config = UpdateConfig(n_updates=5, batch_size=64, max_grad_norm=1.0)
    return Learner(family, loss, config, 2, **more)


def filled(distribution: Distribution, device: torch.device, more: int = 0) -> Dataset:
    """States with labels that have `more` columns behind the teacher's parameters."""
    dataset = Dataset(INPUTS, distribution.n_params + more, STATES, device)
    dataset.append(random(STATES, INPUTS).to(device), random(STATES, distribution.n_params + more).to(device))
    return dataset


def dense(distribution: Distribution, loss: Loss, device: torch.device) -> tuple[Learner, Any]:
    columns = max(distribution.n_means, 1) if loss.hard == "sample" else 0
    dataset = filled(distribution, device, columns)
    if loss.hard == "sample":
        dataset.params[:, distribution.n_params :].abs_().clamp_(max=1).floor_()  # an action that exists
    return learner(Family(SPECS, INPUTS, distribution, device=device), loss), dataset


def agree(make: Any) -> None:
    """The same round on the CPU and on the device: there without waiting, and with the same weights."""
    key = SeedKey(0, "update")
    target, data = make(CPU)
    told = target.fit(data, 0, key, Quiet())
    with Device() as device, pytest.MonkeyPatch.context() as patch:
        away, elsewhere = make(AWAY)
        seen = watch_loop(patch, device.still, device.waiting)
        found = away.fit(elsewhere, 0, key, Quiet())
        assert [isinstance(part, Away) for part in away.state().values()] == [True] * len(away.state())
        assert seen == [m.update for m in found] == [0, 1, 2, 4]
        torch.testing.assert_close(away.family.flat.cpu(), target.family.flat, atol=2e-5, rtol=1e-4)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            [getattr(m, name) for m in found], [getattr(m, name) for m in told], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    "distribution",
    [Categorical(4), MultiCategorical((2, 3)), Bernoulli(3), DiagGaussian(2), SquashedDiagGaussian(2)],
    ids=lambda d: type(d).__name__,
)
def test_no_loss_waits(distribution: Distribution) -> None:
    losses = [Loss(kind) for kind in TERMS if kind != "jsd" or not is_gaussian(distribution)]
    losses += [Loss(temperature=2.0, convention="rusu"), Loss(temperature=EACH, alpha=(0.5, 0.7), hard="sample")]
    losses += [Loss(alpha=0.0, masked=not is_gaussian(distribution))]
    for loss in losses:
        agree(lambda device, loss=loss: dense(distribution, loss, device))


def remembering(device: torch.device) -> tuple[Learner, Any]:
    dataset, start = SequenceDataset(INPUTS, 4, STATES, device), torch.zeros(STATES, dtype=torch.bool)
    start[::40] = True
    dataset.append(random(STATES, INPUTS).to(device), random(STATES, 4).to(device), start)
    family = GruFamily([MemberSpec(1, w, kind="gru") for w in (3, 5)], INPUTS, DiagGaussian(2), device=device)
    return learner(family), dataset


def seeing(device: torch.device) -> tuple[Learner, Any]:
    packing = packing_of(MIXED)
    MIXED.seed(0)
    dataset = RecordDataset(packing, 4, STATES, device)
    rows = torch.from_numpy(dataset.records.encode(np.stack([packing.pack(MIXED.sample()) for _ in range(STATES)])))
    dataset.append(rows.to(device), random(STATES, 4).to(device))
    dataset.normaliser = dataset.measured(rows).tensors(device)
    family = ConvFamily([MemberSpec(1, w, 0, "multi", 2) for w in (4, 6)], packing, Categorical(4), device=device)
    made = learner(family)
    made.augment = Augment(AugmentConfig(shift=1, jitter=0.1), packing, load_teacher("builtin:cartpole").to(device))
    made.augment.normaliser = dataset.normaliser
    return made, dataset


def beside(device: torch.device) -> tuple[Learner, Any]:
    """Heads aside, and weights that are rounded."""
    dataset, family = filled(Categorical(2), device, 3), Family(SPECS, INPUTS, Categorical(2), device=device)
    made = learner(family, int8=True)
    made.aside = Aside(family, [Target("value", 1, slice(2, 3), 0.7), Target("hint_1_1", 1, slice(3, 5), 0.3)])
    return made, dataset


def relabelled(device: torch.device) -> tuple[Learner, Any]:
    """States by weight, seen with noise, and labelled anew by a teacher on the device."""
    teacher = load_teacher("builtin:cartpole").to(device)
    dataset = Dataset(4, 2, STATES, device)
    dataset.weigh = weigh_by("q_gap", teacher.distribution)
    dataset.append(random(STATES, 4).to(device), random(STATES, 2).to(device))
    made = learner(Family(SPECS, 4, teacher.distribution, device=device))
    made.augment = Augment(AugmentConfig(jitter=0.1, seen_by="both"), teacher.packing, teacher)
    made.augment.normaliser = Normaliser.measured(random(STATES, 4).numpy()).tensors(device)
    return made, dataset


def together(device: torch.device) -> tuple[Learner, Any]:
    """Two tasks with a head each."""
    parts = (Categorical(3), DiagGaussian(2))
    heads = Heads(parts)
    joint = Joint(SPECS, [INPUTS, INPUTS], heads, "tanh", 0, device)
    tasks = TaskDataset([filled(part, device) for part in parts], [INPUTS, INPUTS])
    return learner(joint.family, HeadLoss(heads=heads, dealt=True)), tasks


@pytest.mark.parametrize("make", [remembering, seeing, beside, relabelled, together], ids=lambda make: make.__name__)
def test_no_kind_of_student_or_of_data_waits(make: Any) -> None:
    agree(make)


@pytest.mark.parametrize("what", ["a value", "a mask", "a copy to the device", "a copy from it"])
def test_one_that_waits_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Learner._descend

    def waits(self: Learner, update: int) -> None:
        step(self, update)
        flat = self.family.flat
        if what == "a value":
            float(flat[0])
        elif what == "a mask":
            flat[flat > 0]
        elif what == "a copy to the device":
            flat.add_(torch.ones(len(flat)).to(flat.device))
        else:
            flat.cpu()

    monkeypatch.setattr(Learner, "_descend", waits)
    with pytest.raises(HostWaits):
        agree(lambda device: dense(Categorical(4), Loss(), device))


def test_what_another_device_refuses_is_refused() -> None:
    with Device() as device:
        x = torch.ones(3, device=AWAY)
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=AWAY, generator=SeedKey(0, "update").torch("cpu"))
        assert float((x + torch.tensor(1.0)).sum()) == 6.0, "a single number may come from the CPU"
        assert device.waits == ["aten._local_scalar_dense.default"]


def quick(kind: str, device: str) -> Config:
    """A run of two rounds, for the teacher of `Patch`."""
    return small(
        student={"kind": kind, "width": [4, 6], **({"channels": 2} if kind == "multi" else {})},
        rollout={"rounds": 2, "timesteps": 160, "n_envs": 4, "kernel": "torch"},
        update={"n_updates": 4, "batch_size": 32},
        evaluate={"episodes": 2, "select_episodes": 2},
        device=device,
    )


@pytest.mark.parametrize("kind", ["mlp", "gru", "multi"])
def test_a_whole_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baseline, collection, labels, normaliser, updates, selection, proof, and a stop between: with a teacher and
    students on the device. What is handed out lies on the CPU, and is what a run on the CPU gives."""
    mixed = kind == "multi"

    def finished(device: str, stop: StopFlag, *, again: bool = False) -> Run:
        path = tmp_path / device
        config = load_config(str(path / "config.yaml")) if again else quick(kind, device)
        task = open_task(config, finder(mixed=mixed), lambda: Patch(mixed=mixed))
        return run_task(RunFolder(path, resume=again), task, NullTracker(), stop, distillation)

    plain = finished("cpu", NeverStop())
    for module in (run, defaults):
        monkeypatch.setattr(module, "resolve_device", str)
    with Device() as device:
        read = watch_loop(monkeypatch, device.still, device.waiting)
        with pytest.raises(Interrupted):
            finished("meta", StopsBehind(tmp_path / "meta" / "checkpoints" / "shard-0001.safetensors"))
        found = finished("meta", NeverStop(), again=True)
        assert read == list(range(8)) and device.waits
        moved, (seen, _) = found.student.to(AWAY), Patch(mixed=mixed).reset(seed=0)
        assert all(isinstance(part, Away) for part in moved.weights().values())
        assert moved.predict(seen, deterministic=True)[0] == found.student.predict(seen, deterministic=True)[0]
        assert pickle.loads(pickle.dumps(moved)).device == moved.to("cpu").device == CPU, "as a worker gets it"
    assert found.result["device"] == "meta" and found.student.device == CPU
    for name, part in plain.student.weights().items():
        own = found.student.weights()[name]
        assert type(own) is torch.Tensor
        torch.testing.assert_close(own, part, atol=1e-4, rtol=1e-3)


@pytest.mark.slow  # the episodes of teachers that can be named are long
def test_a_run_of_several_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "rollout.rounds=2",
        "rollout.timesteps=1200",
        "rollout.kernel=torch",
        "update.n_updates=8",
        "student.width=6",
    ]
    words += ["evaluate.episodes=2", "evaluate.select_episodes=2", "tasks=[{teacher: 'builtin:pendulum'}]"]

    def finished(device: str) -> Run:
        return distill(load_config("methods/multitask", [*words, f"device={device}"]), out=tmp_path / device)

    plain = finished("cpu")
    for module in (run, defaults):
        monkeypatch.setattr(module, "resolve_device", str)
    with Device() as device:
        read = watch_loop(monkeypatch, device.still, device.waiting)
        found = finished("meta")
    assert len(read) == 8 and found.student.device == CPU
    for name, part in plain.student.weights().items():
        torch.testing.assert_close(found.student.weights()[name], part, atol=1e-4, rtol=1e-3)
