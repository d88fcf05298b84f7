"""Fails when teacher and student see other episodes than alone, when one view disturbs the other, or when a student's
wrapper that does more than observe goes unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policykd.rollout.envs import EnvSpec, make_env, students_own, with_views
from policykd.rollout.vecenv import SyncEnvs
from policykd.rollout.workers import AsyncEnvs
from policykd.spine.errors import InputError
from policykd.spine.packing import packing_of
from policykd.spine.wrappers import Wrappers, judged_by, seen_by, views_of
from tests.support import viewed
from tests.support.workers import Masked

STACK: Wrappers = (("StackFrames", {"n": 2}),)
LIMIT: Wrappers = (("TimeLimit", {"max_episode_steps": 9}),)
DELAY: Wrappers = (("DelayObservation", {"delay": 1}),)
BLIND: Wrappers = (("tests.support.viewed:Blind", {}),)


def played(env: gym.Env[Any, Any], seeds: Sequence[int] = (3, 4)) -> list[Any]:
    """Everything that an environment answers in whole episodes of fixed actions."""
    seen = []
    for seed in seeds:
        seen.append((env.reset(seed=seed)[0], 0.0, False, False))
        while not (seen[-1][2] or seen[-1][3]):
            seen.append(env.step(len(seen) % 3 % 2)[:4])
    env.close()
    return seen


@pytest.mark.parametrize(("teacher", "student"), [(STACK, DELAY), ((), BLIND), (DELAY, (*STACK, *DELAY))])
def test_both_see_the_same_episodes_each_through_its_own_wrappers(teacher: Wrappers, student: Wrappers) -> None:
    both = EnvSpec("CartPole-v1", {}, (*teacher, *LIMIT), allow_import=True, student_wrappers=student)
    alone = replace(both, student_wrappers=()), students_own(both)
    assert alone[1].wrappers == (*LIMIT, *student), "what episodes are worth holds for the student too"
    answers = [played(make_env(spec)) for spec in (both, *alone)]
    assert len(answers[0]) == len(answers[1]) == len(answers[2]) == 20
    for here, theirs, own in zip(*answers, strict=True):
        assert here[1:] == theirs[1:] == own[1:]
        assert np.array_equal(here[0]["teacher"], theirs[0])
        assert np.array_equal(here[0]["student"], own[0])
    space = make_env(both).observation_space
    assert list(space) == ["teacher", "student"] and space.contains(answers[0][5][0])


def test_pictures_beside_the_state() -> None:
    wrappers: Wrappers = (
        ("AddRenderObservation", {}),
        ("ResizeObservation", {"shape": [12, 18]}),
        ("GrayscaleObservation", {}),
    )
    env = make_env(EnvSpec("CartPole-v1", {"render_mode": "rgb_array"}, student_wrappers=wrappers))
    first = env.reset(seed=1)[0]
    assert first["teacher"].shape == (4,) and first["student"].shape == (12, 18)
    seen = [env.step(1)[0]["student"] for _ in range(6)][-1]
    assert seen.dtype == np.uint8 and not np.array_equal(seen, first["student"])
    env.close()


def test_worker_processes_show_both_views_as_one_process_does() -> None:
    spec = EnvSpec("CartPole-v1", {}, STACK, allow_import=True, student_wrappers=(*BLIND, *DELAY))
    envs = [SyncEnvs(spec, 3, lambda slot: 50 + slot), AsyncEnvs(spec, 3, lambda slot: 50 + slot, workers=2)]
    rng, rows = np.random.default_rng(0), [env.reset([1, 2, 3]) for env in envs]
    assert rows[0].shape == (3, 8 + 4)
    for _ in range(40):
        assert np.array_equal(*rows)
        actions = rng.integers(0, 2, 3)
        steps = [env.step(actions) for env in envs]
        assert np.array_equal(steps[0].done, steps[1].done)
        rows = [step.observation for step in steps]
    for env in envs:
        env.close()


def test_masks_are_those_of_the_environment() -> None:
    spec = EnvSpec("masked", factory=Masked, masked=True)
    views = EnvSpec("masked", factory=Masked, masked=True, student_wrappers=(("StackFrames", {"n": 2}),))
    envs = [SyncEnvs(each, 1, lambda slot: 1) for each in (spec, views)]
    for env in envs:
        env.reset([7])
    assert np.array_equal(*[env.mask for env in envs])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Doubled", r"turn reward and ends \(1.0, False, False\) into \(2.0, False, False\)"),
        ("Ending", "turn reward and ends"),
        ("Flipped", "change the action, expected"),
        ("Other", r"change the action space to Discrete\(3\)"),
        ("Twice", "ask for 2 answers"),
        ("Waits", "ask for 2 answers"),
    ],
)
def test_a_wrapper_of_the_student_that_does_more_than_observe_is_refused(name: str, said: str) -> None:
    assert hasattr(viewed, name)
    own = ((f"tests.support.viewed:{name}", {}),)
    with pytest.raises(InputError, match=said) as caught:
        played(make_env(EnvSpec("CartPole-v1", allow_import=True, student_wrappers=own)))
    assert str(caught.value).startswith("student.wrappers: ") and "\n" not in str(caught.value)


def test_which_wrappers_only_observe() -> None:
    skips = ("MaxAndSkipObservation", {"skip": 2})
    assert judged_by((*STACK, *LIMIT, skips, *DELAY)) == (*LIMIT, skips)
    assert seen_by((*STACK, *LIMIT, skips, *DELAY)) == (*STACK, *DELAY)
    for entry in ("MaxAndSkipObservation", {"TimeLimit": {"max_episode_steps": 9}}, "AtariWrapper"):
        with pytest.raises(InputError, match="or put it into env.wrappers"):
            views_of([entry])
    with pytest.raises(InputError, match=r"^student.wrappers: .* in one entry"):
        views_of([{"StackFrames": {"n": 2}, "DelayObservation": {"delay": 1}}])


@pytest.mark.parametrize("backend", ["native", "envpool"])
def test_a_backend_without_single_environments_is_refused(backend: str) -> None:
    with pytest.raises(InputError, match=f"env.backend {backend}: .* use sync or async"):
        with_views(EnvSpec("CartPole-v1"), DELAY, backend)
    assert with_views(EnvSpec("CartPole-v1", backend="native"), DELAY, "auto").backend == "sync"


@pytest.mark.parametrize(
    ("wrappers", "said"),
    [
        ((("Delayed", {}),), "student.wrappers: Delayed is not a wrapper"),
        ((("StackFrames", {"n": 0}),), "student.wrappers: StackFrames with n"),
        ((("AddRenderObservation", {}),), "student.wrappers: AddRenderObservation cannot be applied"),
        (BLIND, "add --allow-import"),
    ],
)
def test_a_mistake_names_the_students_wrappers(wrappers: Wrappers, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make_env(EnvSpec("CartPole-v1", student_wrappers=wrappers))
    assert "\n" not in str(caught.value)


def test_mixed_kinds_keep_their_values() -> None:
    spec = EnvSpec("CartPole-v1", student_wrappers=(("DtypeObservation", {"dtype": "float64"}),))
    env = make_env(spec)
    packing = packing_of(env.observation_space)
    assert packing.dtype == "float64" and packing.shape == (8,)
    row = packing.pack(env.reset(seed=2)[0])
    assert np.array_equal(row[:4], row[4:])
