"""Fails when steps are wider than they may be, when a student teaches otherwise than it acts, or when a chain is let
through that cannot be walked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.learn.progressive import steps_of
from policykd.learn.setup.ladder import ladder
from policykd.loss.distributions import Categorical
from policykd.rollout.assistant import Assistant
from policykd.rollout.kernels import kernel_of, params_of
from policykd.spine.checkpoint import RunFolder
from policykd.spine.config.load import load_config
from policykd.spine.config.procedures import ProgressiveConfig
from policykd.spine.errors import ConfigError, InputError
from policykd.spine.spaces import action_map
from policykd.students.family import Family
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.students.spec import MemberSpec
from policykd.teachers.load import load_teacher


def size(width: int) -> int:
    return MemberSpec(2, width).footprint(8, 4).params


@pytest.mark.parametrize(("teacher", "width", "factor"), [(69_124, 4, 6.0), (69_124, 4, 16.0), (5_000, 8, 3.0)])
def test_no_step_shrinks_by_more_than_the_factor_and_none_is_wasted(teacher: int, width: int, factor: float) -> None:
    widths = ladder(teacher, size, width, factor)
    sizes = [teacher, *map(size, widths), size(width)]
    ratios = [a / b for a, b in pairwise(sizes)]
    assert max(ratios) < 1.25 * factor, "widths are whole numbers: a little more may be unavoidable"
    fewer = (teacher / size(width)) ** (1 / len(widths))  # with one step less
    assert fewer > factor
    assert widths == sorted(widths, reverse=True)


def test_no_step_where_the_gap_is_narrow() -> None:
    assert ladder(5_000, size, 32, 4.0) == []
    assert ladder(100, size, 32, 4.0) == []  # the student is larger than its teacher


def test_the_chain_ends_with_its_generations() -> None:
    chain = steps_of(ProgressiveConfig(steps=[64, 16], generations=2), 4)
    assert [(s.number, s.width, s.final) for s in chain] == [
        (1, 64, False),
        (2, 16, False),
        (3, 4, True),
        (4, 4, True),
    ]


def small_student(member: int) -> MlpStudent:
    original = load_teacher("builtin:cartpole")
    family = Family([MemberSpec(2, 8), MemberSpec(2, 8, 1)], 4, Categorical(2))
    return MlpStudent(
        normaliser=Normaliser(np.full(4, 0.5, np.float32), np.full(4, 2.0, np.float32)),
        layers=tuple(family.member_layers(member)),
        log_std=torch.zeros(0),
        activation="tanh",
        distribution=Categorical(2),
        action_map=action_map(spaces.Discrete(2), unscale=False),
        observation_space=original.observation_space,
        action_space=original.action_space,
    )


def test_an_assistant_labels_as_its_student_acts() -> None:
    original = load_teacher("builtin:cartpole")
    student = small_student(0)
    assistant = Assistant(student, original)
    seen = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(assistant.distribution_params(seen), student.distribution_params(seen))
    kernel = kernel_of(assistant)
    assert kernel is not None
    assert np.allclose(params_of(kernel, seen.numpy()), student.distribution_params(seen), atol=1e-6)
    mine, theirs = assistant.predict(seen.numpy(), deterministic=True)[0], student.predict(seen.numpy())[0]
    assert mine.shape == theirs.shape
    assert (mine == student.distribution_params(seen).argmax(-1).numpy()).all()


def test_an_assistant_is_known_by_its_own_weights_and_shows_nothing_of_its_teacher() -> None:
    original = load_teacher("builtin:cartpole")
    first, second = (Assistant(small_student(member), original) for member in range(2))
    assert first.fingerprint == Assistant(first.acting, original).fingerprint
    assert len({original.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert original.valued
    assert not first.valued
    with pytest.raises(InputError, match="shows no hidden layers"):
        first.features(torch.zeros(1, 4))


def test_a_part_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        part = folder.part("steps/1")
        part.save_shard(0, {"x": np.ones(3)})
        part.save_state(0, {"y": np.zeros(2)}, {"updates": 3, "timesteps": 5})
        assert folder.load_state() is None
        assert folder.shards == []
        assert part.shards == [0]
        parts = folder.parts("latest")
        assert list(parts) == ["steps/1/"]
        assert parts["steps/1/"] is not None
        assert parts["steps/1/"]["updates"] == 3
        tensors, _ = folder.part("steps/1").load_state() or ({}, {})
        assert list(tensors) == ["y"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["progressive.steps=[8, 64]"], "expected widths that fall"),
        (["progressive.steps=auto", "student.width=[4, 8]"], "student.width describes a family"),
        (["progressive.generations=2", "student.seeds=2"], "student.seeds describes a family"),
        (["progressive.generations=2", "student.kind=gru"], "students of kind gru cannot teach"),
        (["progressive.steps=auto", "student.depth=0"], "has no width to go down by"),
        (["progressive.steps=[8]", "student.width=8"], "expected widths above student.width 8"),
        (["progressive.generations=2", "search.attempts=1"], "policykd shrink has no use for it"),
    ],
)
def test_chains_that_cannot_be_walked(overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(None, overrides)
    assert "\n" not in str(caught.value)
