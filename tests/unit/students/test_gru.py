"""Fails when a GRU student computes otherwise than torch's cell, when cutting a sequence changes a bit, when anything
crosses an episode's start, or when its file, its NumPy twin or its family disagree with it."""

from __future__ import annotations

import pickle  # what multiprocessing does with a student
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.evaluation import evaluate_policy
from torch import Tensor

from policykd.loss.distributions import Categorical, DiagGaussian, Distribution
from policykd.spine.artifact import save_artifact
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.students.gru import GruStudent, gru_scan, gru_step
from policykd.students.load import load_student
from policykd.students.normaliser import Normaliser
from policykd.students.numpy_backend import gru_shapes
from policykd.students.recurrent import Episodes, GruFamily
from policykd.students.spec import MemberSpec
from tests.support.core import FAMILIES

N, H = 3, 5


def parts(seed: int = 0, hidden: int = H, n_means: int = 2) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    shapes = gru_shapes(N, hidden, n_means).items()
    return {name: torch.from_numpy(rng.normal(0, 0.7, shape).astype("f4")) for name, shape in shapes}


def student(name: str = "gaussian", seed: int = 0) -> GruStudent:
    distribution, space = FAMILIES[name]
    rng = np.random.default_rng(seed)
    return GruStudent(
        normaliser=Normaliser.measured(rng.normal(1.0, [0.1, 1.0, 20.0], (50, N))),
        parts=parts(seed, n_means=distribution.n_means),
        log_std=torch.full((distribution.n_params - distribution.n_means,), -1.0),
        distribution=distribution,
        action_map=action_map(space, unscale=name == "squashed"),
        observation_space=spaces.Box(-5, 5, (N,), np.float32),
        action_space=space,
        provenance={"policykd": "test"},
    )


def run(policy: GruStudent, seen: Tensor, starts: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    """Parameters [T, B, P] of steps one after the other, and the state behind them."""
    state = policy.initial_state(seen.shape[1]) if state is None else state
    found = []
    for observation, start in zip(seen, starts, strict=True):
        params, state = policy.step(observation, state, start)
        found.append(params)
    return torch.stack(found), state


def test_a_step_is_that_of_torchs_cell() -> None:
    own = parts()
    cell = torch.nn.GRUCell(N, H)
    with torch.no_grad():
        cell.weight_ih.copy_(own["gru.input"])
        cell.weight_hh.copy_(own["gru.state"])
        cell.bias_ih.copy_(own["gru.bias"])
        cell.bias_hh.copy_(torch.cat([torch.zeros(2 * H), own["gru.new_bias"]]))
        x, h = torch.randn(7, N), torch.randn(7, H)
        assert torch.allclose(gru_step(own, x, h), cell(x, h), atol=1e-6)


def test_the_kernel_of_learning_follows_the_steps_of_acting() -> None:
    own, x, h = parts(), torch.randn(4, 9, N), torch.randn(4, H)
    states, last = gru_scan(own, x, h.unsqueeze(0))
    for t in range(9):
        h = gru_step(own, x[:, t], h)
        assert torch.allclose(states[:, t], h, atol=1e-5)
    assert torch.allclose(last[0], h, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 4), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 99))
def test_a_cut_sequence_gives_the_same_bits(steps: int, batch: int, cuts: list[int], seed: int) -> None:
    policy, generator = student(seed=seed), torch.Generator().manual_seed(seed)
    seen = torch.randn(steps, batch, N, generator=generator)
    starts = torch.rand(steps, batch, generator=generator) < 0.2
    whole, end = run(policy, seen, starts)
    found, state = [], None
    for begin, stop in zip([0, *sorted(cuts)], [*sorted(cuts), steps], strict=True):
        if begin < min(stop, steps):
            part, state = run(policy, seen[begin:stop], starts[begin:stop], state)
            found.append(part)
    assert torch.equal(torch.cat(found), whole) and torch.equal(state[0], end[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from([0.0, 1e30, float("inf"), float("nan")]))
def test_nothing_crosses_an_episodes_start(before: int, after: int, poison: float) -> None:
    policy, generator = student(), torch.Generator().manual_seed(before)
    seen = torch.randn(before + after, 2, N, generator=generator)
    starts = torch.zeros(before + after, 2, dtype=torch.bool)
    starts[0] = starts[before] = True
    other = seen.clone()
    other[:before, 0] = poison
    clean, dirty = run(policy, seen, starts)[0], run(policy, other, starts)[0]
    assert torch.equal(clean[before:], dirty[before:])
    assert torch.equal(clean[:, 1], dirty[:, 1]), "nor from one slot to another"
    alone = run(policy, seen[before:], starts[before:])[0]
    assert torch.equal(alone, clean[before:])


def test_an_observation_alone_is_not_enough() -> None:
    with pytest.raises(InputError, match="step by step"):
        student().distribution_params(torch.zeros(1, N))


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_its_file_gives_the_same_student_and_a_twin_in_numpy(name: str, tmp_path: Path) -> None:
    policy, path = student(name), tmp_path / "student.safetensors"
    save_artifact(path, *policy.to_artifact())
    again, plain = load_student(path), load_student(path, backend="numpy")
    assert isinstance(again, GruStudent) and again.footprint == policy.footprint
    rng = np.random.default_rng(1)
    states: list[Any] = [None, None, None]
    for t in range(20):
        seen, start = rng.normal(1, 3, (4, N)).astype("f4"), rng.random(4) < 0.2
        if name in ("gaussian", "squashed"):
            same = []
            for k, one in enumerate((policy, again, plain)):
                action, states[k] = one.predict(seen, states[k], start, deterministic=True)
                same.append(action)
            assert np.array_equal(same[0], same[1])
            assert np.allclose(same[0], same[2], atol=1e-5), t
        else:
            for k, one in enumerate((policy, again, plain)):
                _, states[k] = one.predict(seen, states[k], start, deterministic=True)
        assert np.allclose(states[0][0], states[2][0], atol=1e-5)
    save_artifact(path, *again.to_artifact())
    first = path.read_bytes()
    save_artifact(path, *policy.to_artifact())
    assert path.read_bytes() == first
    sent = pickle.loads(pickle.dumps(policy))
    assert all(torch.equal(sent.parts[k], v) for k, v in policy.parts.items())


@pytest.mark.parametrize("missing", sorted(gru_shapes(N, H, 2)))
def test_a_damaged_file_is_refused(missing: str, tmp_path: Path) -> None:
    tensors, document = student().to_artifact()
    path = tmp_path / "student.safetensors"
    save_artifact(path, {**tensors, missing: tensors[missing][:-1]}, document)
    with pytest.raises(InputError, match=missing):
        load_student(path)
    save_artifact(path, {k: v for k, v in tensors.items() if k != missing}, document)
    with pytest.raises(InputError, match=missing):
        load_student(path)


def test_predict_says_what_is_wrong_with_a_state() -> None:
    policy = student()
    with pytest.raises(InputError, match="pass what predict returned"):
        policy.predict(np.zeros((2, N), "f4"), (np.zeros((1, 3, H), "f4"),))
    with pytest.raises(InputError, match="episode_start has 3"):
        policy.predict(np.zeros((2, N), "f4"), None, np.zeros(3, bool))


def test_sb3_evaluates_it_with_its_memory() -> None:
    """evaluate_policy hands the state back, and says where episodes begin."""
    seen: list[tuple[bool, bool]] = []
    space = spaces.Box(-2, 2, (1,), np.float32)
    one = {"parts": parts(n_means=1), "distribution": DiagGaussian(1), "log_std": torch.zeros(1)}
    policy = replace(student(), **one, action_space=space, action_map=action_map(space, unscale=False))
    inner = policy.predict

    def watched(observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        seen.append((state is None, bool(episode_start[0])))
        return inner(observation, state, episode_start, deterministic)

    object.__setattr__(policy, "predict", watched)
    mean, _ = evaluate_policy(policy, gym.make("Pendulum-v1"), n_eval_episodes=2, warn=False)  # type: ignore[arg-type]
    assert mean < 0
    assert seen[0] == (True, True) and seen[1] == (False, False) and seen[200][1]


@pytest.mark.parametrize("distribution", [Categorical(4), DiagGaussian(2)])
def test_members_are_what_they_would_be_alone(distribution: Distribution) -> None:
    specs = [MemberSpec(1, 4, 0, "gru"), MemberSpec(1, 4, 1, "gru"), MemberSpec(1, 9, 0, "gru")]
    family = GruFamily(specs, N, distribution, root_seed=3)
    inputs, before = torch.randn(6, 8, N), [torch.randn(6, spec.width) for spec in specs]
    slope = torch.randn(len(specs), 6, 8, distribution.n_params)
    norms, singles = gradient(family, inputs, before, slope), []
    for index, spec in enumerate(specs):
        lonely = GruFamily([spec], N, distribution, root_seed=3)
        assert all(
            torch.equal(a, b) for a, b in zip(lonely.parts(0).values(), family.parts(index).values(), strict=True)
        )
        singles.append(gradient(lonely, inputs, before[index : index + 1], slope[index : index + 1]))
        for name, part in lonely.parts(0, lonely.grad).items():
            assert torch.allclose(part, family.parts(index, family.grad)[name], atol=1e-5), name
        own = sum(part.numel() for part in lonely.parts(0).values())
        assert own == spec.footprint(N, distribution.n_means).params
    assert torch.allclose(norms, torch.cat(singles), rtol=1e-5)
    family.scale_member_grads(torch.tensor([0.0, 1.0, 2.0]))
    assert torch.allclose(family.member_grad_norms(), norms * torch.tensor([0.0, 1.0, 2.0]), rtol=1e-5)


def gradient(family: GruFamily, inputs: Tensor, before: list[Tensor], slope: Tensor) -> Tensor:
    flat = family.flat.detach().requires_grad_()
    family.outputs(flat, inputs, before).backward(slope)
    assert flat.grad is not None
    family.grad.copy_(flat.grad)
    return family.member_grad_norms()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(0, 9))
def test_whole_episodes_are_scanned_as_they_were_acted(lengths: list[int], seed: int) -> None:
    specs = [MemberSpec(1, 4, 0, "gru"), MemberSpec(1, 7, 0, "gru")]
    family = GruFamily(specs, N, Categorical(3), root_seed=seed)
    inputs = torch.randn(sum(lengths), N, generator=torch.Generator().manual_seed(seed))
    start = torch.cat([torch.arange(n) == 0 for n in lengths])
    for index, after in enumerate(family.scan(inputs, Episodes.of(start))):
        hidden = torch.zeros(1, specs[index].width)
        for row in range(len(inputs)):
            hidden = torch.zeros_like(hidden) if start[row] else hidden
            hidden = gru_step(family.parts(index), inputs[row : row + 1], hidden)
            assert torch.allclose(after[row], hidden[0], atol=1e-5)
