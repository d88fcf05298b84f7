"""Fails when a disturbance is not what it says, follows from anything but the seed of the episode and the step in it,
touches a run that asks for none, or when the teacher's labels are not those of the true state."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.evaluation.episodes import random_actor, run_episodes
from policykd.loss.distributions import Categorical
from policykd.rollout.collect import Rollout, Shard, collect, label
from policykd.rollout.disturbance import Disturbance, neutral, noise_unit
from policykd.rollout.envs import EnvSpec, factory_spec
from policykd.rollout.vecenv import Step, VectorEnvs, make_batch
from policykd.rollout.workers import AsyncEnvs
from policykd.spine.config.rollout import RolloutConfig
from policykd.spine.config.schema import EnvConfig
from policykd.spine.packing import packing_of
from policykd.spine.seeding import SeedKey
from tests.support.core import Quiet, StubTeacher
from tests.support.masked import LENGTH, discrete, multi_binary, multi_discrete
from tests.support.pictures import IMAGE, Patch

UNIT = {"CartPole-v1": [0.5, 0.4, 0.05, 0.6], "Pendulum-v1": [0.7, 0.7, 2.0]}
ALL = Disturbance(np.array([0.05, 0.04, 0.005, 0.06], np.float32), 1, 0.3)


def spec_of(env_id: str, backend: Any = "sync", **how: Any) -> EnvSpec:
    if "noise" in how:
        how["noise"] = np.array(UNIT[env_id], np.float32) * np.float32(how["noise"])
    return EnvSpec(env_id, backend=backend, disturbance=Disturbance(**how) if how else None)


def follow(spec: EnvSpec, steps: int, n: int = 3) -> tuple[list[np.ndarray], list[np.ndarray], list[Step]]:
    """What is seen [n, *O], what is true, and the steps, of actions that are drawn beforehand."""
    counts = [0] * n

    def next_seed(slot: int) -> int:
        counts[slot] += 1
        return 1000 * slot + counts[slot]

    env = make_batch(spec, n, next_seed)
    env.action_space.seed(3)
    actions = [np.stack([np.asarray(env.action_space.sample()) for _ in range(n)]) for _ in range(steps)]
    try:
        seen = [env.reset([1000 * slot for slot in range(n)])]
        true, found = [getattr(env, "truth", seen[0])], []
        for action in actions:
            found.append(env.step(action))
            seen.append(found[-1].observation)
            true.append(getattr(env, "truth", seen[-1]))
        return seen, true, found
    finally:
        env.close()


@pytest.mark.parametrize("env_id", UNIT)
def test_noise_has_the_deviation_that_was_asked_for_and_leaves_the_environment_alone(env_id: str) -> None:
    seen, true, _ = follow(spec_of(env_id, noise=0.1), 400)
    plain, _, _ = follow(spec_of(env_id), 400)
    assert np.array_equal(true, plain)
    by_slot = (np.array(seen) - np.array(true)) / (0.1 * np.array(UNIT[env_id]))
    assert np.abs(np.corrcoef(by_slot[..., 0].T) - np.eye(3)).max() < 0.2  # each episode has its own
    added = by_slot.reshape(-1, len(UNIT[env_id]))
    assert np.abs(added.mean(0)).max() < 0.15
    assert np.abs(added.std(0) - 1).max() < 0.1
    assert np.abs(np.corrcoef(added[:-3, 0], added[3:, 0])[0, 1]) < 0.1  # of one step and the next


@pytest.mark.parametrize(("env_id", "delay"), [("Pendulum-v1", 1), ("Pendulum-v1", 3), ("CartPole-v1", 2)])
def test_an_action_arrives_so_many_steps_late(env_id: str, delay: int) -> None:
    """The late environment is one that was given the same actions, moved back, after idle ones."""
    env = gym.make(env_id)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(8)]
    idle = [neutral(env.action_space)] * delay
    expected = [env.reset(seed=5)[0], *(env.step(action)[0] for action in [*idle, *actions][:8])]
    late = make_batch(spec_of(env_id, delay=delay), 1, lambda _: None)
    seen = [late.reset([5])[0], *(late.step(np.array([action])).observation[0] for action in actions)]
    late.close()
    assert np.array_equal(expected, seen)
    assert env_id != "Pendulum-v1" or (idle[0] == 0).all()


def test_a_new_episode_owes_nothing_to_the_last_one() -> None:
    """After the first pole has fallen the idle action comes again, not what the old episode had on its way."""
    done: list[Any] = []
    env = make_batch(spec_of("CartPole-v1", delay=3), 1, lambda _: 77)
    env.reset([1])
    while not done:
        step = env.step(np.array([1]))
        done = [step] if step.done[0] else []
    seen = [done[0].observation[0], *(env.step(np.array([1])).observation[0] for _ in range(3))]
    env.close()
    plain = gym.make("CartPole-v1")
    assert np.array_equal(seen, [plain.reset(seed=77)[0], *(plain.step(0)[0] for _ in range(3))])


@pytest.mark.parametrize("noise", [{}, {"noise": 0.1}])
def test_a_lost_observation_is_the_last_one_that_arrived(noise: dict[str, float]) -> None:
    seen, true, steps = follow(spec_of("Pendulum-v1", drop=0.4, **noise), 500)
    lost = np.array([(now == before).all(-1) for before, now in pairwise(seen)])
    began = np.array([step.done for step in steps])
    assert began.any() and not lost[began].any()  # an episode's first one always arrives
    assert abs(lost.mean() - 0.4) < 0.05
    moved = np.array([(now != before).all(-1) for before, now in pairwise(true)])
    assert moved.mean() > 0.95  # the environment went on
    if not noise:
        assert np.array_equal(np.array(seen[1:])[~lost], np.array(true[1:])[~lost])


@pytest.mark.parametrize("other", ["async one", "async two", "native"])
def test_disturbances_follow_from_the_episode_whatever_steps_it(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native class has other episodes, but the same seeds for them, so the same noise from every beginning."""
    spec = EnvSpec("CartPole-v1", disturbance=ALL)
    seen, true, steps = follow(spec, 90)
    if other.startswith("async"):
        workers = {"async one": 1, "async two": 2}[other]
        real = AsyncEnvs.__init__
        monkeypatch.setattr(AsyncEnvs, "__init__", lambda self, *a: real(self, *a, workers=workers))
        again, truth, _ = follow(replace(spec, backend="async"), 90)
        assert np.array_equal(seen, again) and np.array_equal(true, truth)
        return
    spec = replace(spec, disturbance=replace(ALL, delay=0, drop=0.0))
    found = {}
    for backend in ("sync", "native"):
        seen, true, steps = follow(replace(spec, backend=backend), 90)
        begun = 0  # the third episode of the first slot
        starts = []
        for t, step in enumerate(steps):
            begun += bool(step.done[0])
            if begun == 2 and step.acting[0]:
                starts.append(seen[t + 1][0] - true[t + 1][0])
        found[backend] = np.array(starts[:5])
    assert len(found["sync"]) == 5
    assert np.allclose(found["sync"], found["native"], atol=1e-6)


def test_policies_are_disturbed_alike_on_equal_seeds_and_a_block_of_seeds_changes_nothing() -> None:
    def told(actor: Any, seeds: Any) -> list[Any]:
        kept: dict[int, Any] = {}

        def acts(observation: Any, turn: Any) -> Any:
            for row, start in zip(observation, turn.start, strict=True):
                if start:
                    kept[len(kept)] = row
            return actor(observation, turn)

        acts.takes_turn = True  # type: ignore[attr-defined]
        run_episodes(spec, acts, seeds, Quiet())
        return list(kept.values())

    spec = spec_of("CartPole-v1", noise=0.5, drop=0.2)
    chance = random_actor(spaces.Discrete(2), 0)
    left = lambda observation, turn: np.zeros(len(observation), np.int64)  # noqa: E731
    assert np.array_equal(told(chance, range(10)), told(left, range(10)))
    assert np.array_equal(told(left, range(10))[4:], told(left, range(4, 10)))


def cartpole_teacher() -> StubTeacher:
    weight = torch.tensor([[0.0, 0.1], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    observed = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    return StubTeacher(lambda x: x @ weight, Categorical(2), spaces.Discrete(2), observed)


def gathered(spec: EnvSpec, beta: float) -> Rollout:
    teacher = cartpole_teacher()
    shard = Shard(SeedKey(0, "collect"), 3, 60, beta, RolloutConfig(teacher_stochastic=False))
    return collect(shard, spec, teacher, lambda x: -teacher.function(x), Quiet())


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_labels_are_of_the_true_state_and_students_see_the_disturbed_one(beta: float) -> None:
    rollout, teacher = gathered(EnvSpec("CartPole-v1", disturbance=ALL), beta), cartpole_teacher()
    assert rollout.truth is not None
    assert not np.isclose(rollout.observation, rollout.truth).all(-1).any()
    labels = label(rollout, teacher, Quiet())
    assert np.array_equal(labels, teacher.function(torch.from_numpy(rollout.truth)).numpy())


def test_whoever_acts_goes_by_what_is_theirs_to_see() -> None:
    """Two rollouts that differ in noise alone: the teacher does not notice, the student does."""
    quiet, loud = (spec_of("CartPole-v1", noise=x) for x in (0.001, 3.0))
    assert np.array_equal(gathered(quiet, 1.0).truth, gathered(loud, 1.0).truth)
    assert not np.array_equal(gathered(quiet, 0.0).truth, gathered(loud, 0.0).truth)
    plain = gathered(EnvSpec("CartPole-v1"), 1.0)
    assert plain.truth is None and np.array_equal(plain.observation, gathered(loud, 1.0).truth)


@pytest.mark.parametrize("make", [discrete, multi_discrete, multi_binary])
def test_a_late_action_that_is_no_longer_allowed_is_not_taken(make: Any) -> None:
    """The environment refuses every masked action (`Guarded`)."""
    spec = replace(factory_spec(make), masked=True, disturbance=Disturbance(delay=2))
    env = make()
    found = run_episodes(spec, random_actor(env.action_space, 0), range(6), Quiet())
    assert (found.lengths == LENGTH).all()


class Mixed(gym.Env[Any, Any]):
    """A picture, a number, a count, a choice and bits that drift with time."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (2, 2, 1), np.uint8),
        number=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        count=spaces.Box(0, 20, (1,), np.int32),
        choice=spaces.Discrete(30),
        bits=spaces.MultiBinary(2),
    )
    action_space = spaces.MultiDiscrete([2, 3], start=[1, -1])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._seen(), 0.0, False, self.t == 20, {}

    def _seen(self) -> Any:
        picture, t = np.full((2, 2, 1), 255 - self.t, np.uint8), self.t
        number, count = np.array([t, -t], np.float32), np.array([t], np.int32)
        return {"picture": picture, "number": number, "count": count, "choice": t, "bits": np.array([1, 0], np.int8)}


def test_only_numbers_of_a_dict_are_disturbed_and_stay_what_they_are() -> None:
    spec = factory_spec(Mixed)
    packing = packing_of(Mixed.observation_space)
    actor = random_actor(Mixed.action_space, 0)
    visited = run_episodes(spec, actor, range(2), Quiet(), keep_visited=100).visited
    unit = noise_unit(Mixed.observation_space, packing, visited)
    parts = {leaf.path[0]: slice(leaf.begin, leaf.begin + leaf.size) for leaf in packing.leaves}
    assert (unit[parts["picture"]] == 255).all() and (unit[parts["bits"]] == 0).all() and unit[parts["choice"]] == 0
    assert np.allclose(unit[parts["number"]], np.std(np.arange(20)), rtol=0.1)
    noisy = replace(spec, disturbance=Disturbance(noise=unit * np.float32(0.2)))
    seen, true, _ = follow(noisy, 30, 2)
    seen, true = np.concatenate(seen), np.concatenate(true)
    for name, part in parts.items():
        assert np.array_equal(seen[:, part], true[:, part]) == (name in ("choice", "bits")), name
    for name, high in (("picture", 255), ("count", 20)):
        values = seen[:, parts[name]]
        assert (values == np.rint(values)).all() and values.min() >= 0 and values.max() <= high
    assert (neutral(Mixed.action_space) == [1, -1]).all()


def test_idle_actions() -> None:
    low, high = [-1, 0, 2, -np.inf, -np.inf], [3, np.inf, np.inf, -1, np.inf]
    box = spaces.Box(np.array(low), np.array(high), dtype=np.float64)
    assert neutral(box).tolist() == [1, 0, 2, -1, 0]
    assert neutral(spaces.Discrete(3, start=-1)) == -1
    assert neutral(spaces.MultiBinary(2)).tolist() == [0, 0]


def test_nothing_is_wrapped_where_nothing_is_disturbed() -> None:
    for spec in (EnvSpec("CartPole-v1"), EnvSpec("CartPole-v1", disturbance=Disturbance())):
        seen, true, _ = follow(spec, 3)
        assert seen[0] is true[0]  # there is no truth beside what is seen
    native = make_batch(EnvSpec("CartPole-v1", backend="native"), 2, lambda _: 0)
    assert isinstance(native, VectorEnvs)
    native.close()


def test_choices_alone_are_left_alone() -> None:
    space = spaces.Discrete(16)
    unit = noise_unit(space, packing_of(space), np.arange(16.0))
    assert unit.shape == () and unit == 0


def test_noise_on_a_picture_has_its_shape_again_after_it_was_written_down() -> None:
    """A run's documents hold the units flat."""

    def make() -> Any:
        return Patch()

    spec = factory_spec(make, EnvConfig())
    visited = np.zeros((4, *IMAGE.shape), np.uint8)
    units = noise_unit(IMAGE, packing_of(IMAGE), visited).reshape(-1)
    assert (units == 255).all()
    noisy = replace(spec, disturbance=Disturbance(noise=0.1 * units))
    clean, seen = (make_batch(one, 2, lambda slot: slot).reset([5, 6]).astype(float) for one in (spec, noisy))
    inside = (clean > 60) & (clean < 80)
    assert seen.shape == clean.shape and 15 < (seen - clean)[inside].std() < 35
