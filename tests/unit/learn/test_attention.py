"""Fails when attention transfer has another gradient than its equation, compares other maps than it says, does not
pull, or is lost when a run is resumed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import policykd
from policykd.learn.rounds.labels import attentions, beside, label_width
from policykd.learn.updates.attention import Attended, Attention, attended, attention_map
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config, EnvConfig
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.packing import packing_of
from policykd.spine.tracker import NullTracker
from policykd.students.convolved import ConvFamily
from policykd.students.spec import MemberSpec
from policykd.teachers.load import load_teacher
from tests.support.pictures import IMAGE, Enlarged, finder, looker
from tests.support.runs import StopsBehind


def plainly(weight: float, pairs: list[Attended], labels: Tensor, maps: list[list[Tensor]]) -> Tensor:
    """The equation, member by member and state by state."""
    total = torch.zeros(())
    for own in maps:
        for pair in pairs:
            for label, activations in zip(labels, own[pair.ours - 1], strict=True):
                q = sum((channel**2 for channel in activations), torch.zeros(pair.size)).flatten()
                gap = q / (q**2).sum().sqrt() - label[pair.columns]
                total = total + weight / 2 * (gap**2).sum().sqrt() / len(labels)
    return total


@pytest.mark.parametrize(("conv", "first", "second"), [("nature", 7, 3), ("impala", 8, 4)])
def test_the_gradient_is_that_of_the_equation(conv: Any, first: int, second: int) -> None:
    """Of loss and maps together, against autograd through the equation written plainly."""
    generator = torch.Generator().manual_seed(0)
    specs = [MemberSpec(1, 4, kind="cnn", channels=channels, conv=conv) for channels in (2, 3)]
    family = ConvFamily(specs, packing_of(IMAGE), Categorical(4))
    assert family.plan(0).encoders[0].maps[:2] == [(first, first), (second, second)]
    middle, end = 4 + first**2, 4 + first**2 + second**2
    pairs = [
        Attended(1, 1, (first, first), slice(4, middle)),
        Attended(3, 2, (second, second), slice(middle, end)),
    ]
    inputs, labels = torch.randn(5, 768, generator=generator), torch.randn(5, end, generator=generator)
    learner = Learner(family, Loss(), UpdateConfig(n_updates=1), 1)
    learner.attention = Attention(0.7, pairs)
    loss = learner._through(inputs, labels)

    flat, maps = family.flat.clone().requires_grad_(), [list[Tensor](), list[Tensor]()]
    student = torch.log_softmax(family.outputs(flat, inputs, maps), -1)
    teacher = torch.log_softmax(labels[:, :4], -1)
    policy = (teacher.exp() * (teacher - student)).sum(-1).mean(-1)
    torch.testing.assert_close(loss, policy.detach(), atol=1e-5, rtol=1e-4)
    pull = plainly(0.7, pairs, labels, maps)
    (policy.sum() + pull).backward()
    assert flat.grad is not None and float(flat.grad.abs().max()) > 0.01
    torch.testing.assert_close(family.grad, flat.grad, atol=1e-5, rtol=1e-4)
    seen = torch.stack(list(learner.attention.unexplained.values()))
    assert seen.shape == (2, 2) and float(seen.sum()) * 0.35 == pytest.approx(float(pull.detach()), rel=1e-4)


def test_the_slope_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    activations = torch.randn(3, 4, 5, 2, generator=generator, dtype=torch.double).requires_grad_()
    labels = torch.rand(3, 12, generator=generator, dtype=torch.double)
    attention = Attention(2.0, [Attended(1, 1, (5, 2), slice(2, 12))])
    assert torch.autograd.gradcheck(lambda a: attention.loss(labels, [[a]]), (activations,))


def test_equal_maps_cost_nothing_whatever_their_scale_and_number() -> None:
    """And where nothing is active, nothing pulls."""
    theirs = torch.rand(6, 3, 4, 4)
    ours = torch.cat([2 * theirs, theirs], 1).requires_grad_()
    attention = Attention(5.0, [Attended(1, 1, (4, 4), slice(0, 16))])
    loss = attention.loss(attention_map(theirs), [[ours]])
    loss.backward()
    assert float(loss.detach()) < 1e-5 and torch.isfinite(ours.grad).all()
    exact = attention.loss(attention_map(ours.detach()), [[ours]])
    (slope,) = torch.autograd.grad(exact, ours)
    assert float(exact.detach()) == 0.0 and (slope == 0).all()
    apart = attention.loss(torch.eye(16)[:6], [[torch.eye(16)[6:12].sqrt().view(6, 1, 4, 4)]])
    assert float(apart) == pytest.approx(2.5 * math.sqrt(2), rel=1e-5)
    dead = torch.zeros(6, 3, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(attention.loss(attention_map(theirs), [[dead]]), dead)
    assert (slope == 0).all()


def test_a_map_of_another_size_is_interpolated() -> None:
    where = torch.zeros(1, 2, 8, 8)
    where[0, :, 5, 2] = 3.0
    for size in ((4, 4), (2, 2), (16, 16), (3, 5)):
        found = attention_map(where, size).view(size)
        row, column = divmod(int(found.argmax()), size[1])
        assert abs((row + 0.5) / size[0] - 5.5 / 8) <= 0.5 / size[0], "it stays where it was"
        assert abs((column + 0.5) / size[1] - 2.5 / 8) <= 0.5 / size[1] and float(found.norm()) == pytest.approx(1.0)
    even = attention_map(torch.ones(1, 3, 9, 9), (4, 4))
    torch.testing.assert_close(even, torch.full((1, 16), 0.25))
    many = (torch.rand(1, 1, 8, 8) + 0.5).requires_grad_()
    attention_map(many, (2, 2))[0, 1].backward()
    assert many.grad is not None and (many.grad != 0).all(), "no position is left out"


THEIRS = {("a",): [(8, 8), (3, 3), (1, 1)], ("b",): [(11, 11), (4, 4)], ("c",): [(5, 5)]}
OURS = {("b",): [(9, 9), (2, 3)], ("a",): [(6, 6)], ("d",): []}


def test_pairs_are_the_last_maps_of_each_image_or_those_that_are_named() -> None:
    assert attended(None, THEIRS, OURS, 7) == [
        Attended(2, 3, (6, 6), slice(7, 43)),
        Attended(5, 2, (2, 3), slice(43, 49)),
    ]
    (one,) = attended([[1, 2]], THEIRS, OURS, 0)
    assert (one.name, one.columns) == ("attention_1_2", slice(0, 6))
    for named, says in (
        ([[7, 1]], "names the teacher's convolution 7, and it has 6"),
        ([[1, 4]], "names the student's convolution 4, and it has 3"),
        ([[3, 1]], "teacher's convolution 3 is a single position.* name one of 1: 8 x 8, 2: 3 x 3, 3: 1 x 1"),
    ):
        with pytest.raises(InputError, match=says):
            attended(named, THEIRS, OURS, 0)
    with pytest.raises(InputError, match=r"\(maps of 1: 5 x 5\) and student \(none\) have no image in common"):
        attended(None, {("c",): [(5, 5)]}, {("d",): []}, 0)


def small(**changes: Any) -> Config:
    short = ["rollout.rounds=3", "rollout.timesteps=1800", "evaluate.episodes=10", "evaluate.select_episodes=4"]
    update = ["update.n_updates=40", "update.batch_size=32", "student.channels=4", "student.width=16"]
    config = load_config("methods/attention", [*short, *update])
    return config.model_copy(update={"env": EnvConfig(), "aside": config.aside.model_copy(update=changes)})


def test_the_label_holds_the_maps_behind_the_parameters() -> None:
    config, teacher = small(attention_pairs=[[1, 3], [2, 2]]), looker()
    env = Enlarged()
    seen = np.stack([env.reset(seed=seed)[0] for seed in range(9)])
    batch = torch.from_numpy(seen)
    assert label_width(config, teacher) == 4 + 4 + 16
    assert [(pair.columns, pair.size) for pair in attentions(config, teacher)] == [
        (slice(4, 8), (2, 2)),
        (slice(8, 24), (4, 4)),
    ]
    found = beside(config, teacher, teacher.distribution_params(batch).numpy(), seen, 0)
    assert found is not None and found.dtype == np.float32
    first, second, _ = teacher.maps(batch)[()]
    wanted = torch.cat([attention_map(first, (2, 2)), attention_map(second)], 1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6)


class Curves(NullTracker):
    """Keeps what is drawn."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def scalars(self, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self.seen.setdefault(key, []).append(value)


def test_the_example_learns_looks_where_its_teacher_does_and_resumes_to_the_same_bytes(tmp_path) -> None:
    """Beside a run whose maps are seen, but do not pull."""
    ends = []
    for weight in (1e-6, 1.0):
        curves, out = Curves(), tmp_path / f"{weight}"
        config = small(attention=weight, attention_pairs=None)
        whole = policykd.distill(config, teacher=looker(), env=Enlarged, out=out, tracker=curves)
        assert [key for key in curves.seen if key.startswith("aside/")] == ["aside/attention_3_3"]
        ends.append(curves.seen["aside/attention_3_3"][-1])
        assert whole.result["agreement"] > 0.7, "chance is a quarter"
    assert ends[1] < 0.3 * ends[0]
    stop = StopsBehind(tmp_path / "cut" / "checkpoints" / "shard-0001.safetensors")
    with pytest.raises(Interrupted):
        policykd.distill(config, teacher=looker(), env=Enlarged, out=tmp_path / "cut", stop=stop)
    again = policykd.resume(tmp_path / "cut", teacher=looker(), env=Enlarged)
    student = "student.safetensors"
    assert (again.folder / student).read_bytes() == (whole.folder / student).read_bytes()


CNN = ["student.kind=cnn", "aside.attention=1"]


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["aside.attention=1"], "a student of kind mlp has none: use student.kind=cnn or multi"),
        (["aside.attention=1", "student.kind=gru"], "a student of kind gru has none"),
        (["aside.hints=1", "student.kind=cnn"], "this is of kind cnn: use aside.attention"),
        (["aside.attention_pairs=[[1,1]]"], "set aside.attention"),
        ([*CNN, "augment.shift=2"], "maps stay where they were"),
        ([*CNN, "search.attempts=1"], "nothing is learned aside in a search"),
        ([*CNN, "data.dir=somewhere"], "nothing is learned aside with data.dir"),
    ],
)
def test_what_has_no_maps_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_config(None, overrides)


def test_a_teacher_without_maps_is_refused() -> None:
    config = load_config(None, CNN)
    for teacher, says in (
        (finder(), "live patch: its convolutions cannot be seen"),
        (load_teacher("builtin:cartpole"), "builtin:cartpole has no convolutions"),
    ):
        with pytest.raises(InputError, match=says):
            attentions(config, teacher)
