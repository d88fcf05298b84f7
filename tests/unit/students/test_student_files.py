"""Fails when a saved student acts otherwise than the one that was saved, when equal students give unequal bytes, when
the NumPy backend needs more than NumPy, or when a damaged file is read or gives anything but one line."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.numpy import save
from stable_baselines3.common.evaluation import evaluate_policy

from policykd.spine.artifact import load_artifact, save_artifact
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES, student

OBSERVATIONS = np.random.default_rng(7).normal(1.0, 8.0, (300, 3)).astype(np.float32)
NAMES = sorted(FAMILIES)


def saved(tmp_path: Path, policy: MlpStudent) -> Path:
    path = tmp_path / "student.safetensors"
    assert save_artifact(path, *policy.to_artifact()) == path.stat().st_size
    return path


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", NAMES)
def test_round_trip_is_exact(name: str, activation: str, tmp_path: Path) -> None:
    policy = student(name, activation)
    path = saved(tmp_path, policy)
    first = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load_student(path)
        x = torch.from_numpy(OBSERVATIONS)
        assert torch.equal(policy.distribution_params(x), again.distribution_params(x))
    assert again.distribution == policy.distribution and again.action_map == policy.action_map
    assert again.observation_space == policy.observation_space and again.action_space == policy.action_space
    assert again.provenance == policy.provenance and again.footprint == policy.footprint
    save_artifact(path, *again.to_artifact())
    assert path.read_bytes() == first
    save_artifact(path, *student(name, activation).to_artifact())
    assert path.read_bytes() == first, "equal students must give equal bytes"
    assert load_student(tmp_path).footprint == policy.footprint, "a run folder stands for its student"


@pytest.mark.parametrize("hidden", [(), (7,), (6, 5, 4)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_equals_torch(name: str, activation: str, hidden: tuple[int, ...], tmp_path: Path) -> None:
    policy = student(name, activation, hidden=hidden)
    plain = load_student(saved(tmp_path, policy), backend="numpy")
    n = policy.distribution.n_means
    expected = policy.distribution_params(torch.from_numpy(OBSERVATIONS)).numpy()[:, :n]
    np.testing.assert_allclose(plain.means(OBSERVATIONS), expected, rtol=2e-5, atol=2e-5)
    ours, _ = plain.predict(OBSERVATIONS, deterministic=True)
    theirs, _ = policy.predict(OBSERVATIONS, deterministic=True)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    else:
        np.testing.assert_array_equal(ours, theirs)
    single, _ = plain.predict(OBSERVATIONS[0], deterministic=True)
    np.testing.assert_allclose(single, theirs[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_samples_as_torch_does(name: str, tmp_path: Path) -> None:
    policy = student(name, hidden=(4,), seed=3)
    small = tuple((0.3 * w, 0.3 * b) for w, b in policy.layers)
    policy = replace(policy, layers=small)
    plain = load_student(saved(tmp_path, policy), backend="numpy")
    batch = np.repeat(OBSERVATIONS[:1], 20_000, 0)
    ours = np.asarray(plain.predict(batch)[0], np.float64).reshape(len(batch), -1)
    theirs = np.asarray(policy.predict(batch)[0], np.float64).reshape(len(batch), -1)
    tolerance = 5 * ours.std(0).max() / np.sqrt(len(batch)) + 1e-3
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=tolerance, rtol=0)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=tolerance, rtol=0)
    plain.seed(1)
    once = plain.predict(batch)[0]
    plain.seed(1)
    np.testing.assert_array_equal(once, plain.predict(batch)[0])
    policy.seed(1)
    once = policy.predict(batch)[0]
    policy.seed(1)
    np.testing.assert_array_equal(once, policy.predict(batch)[0])


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("name", NAMES)
def test_actions_respect_the_space(name: str, backend: Any, deterministic: bool, tmp_path: Path) -> None:
    policy = student(name)
    policy = replace(policy, layers=tuple((5 * w, b) for w, b in policy.layers))
    acting = load_student(saved(tmp_path, policy), backend=backend)
    actions, state = acting.predict(OBSERVATIONS, state=None, deterministic=deterministic)
    assert state is None and len(actions) == len(OBSERVATIONS)
    for action in actions:
        assert policy.action_space.contains(np.asarray(action)), action


def test_numpy_student_runs_where_torch_gymnasium_and_sb3_are_absent(tmp_path: Path) -> None:
    policy = student("squashed")
    path = saved(tmp_path, policy)
    code = (
        "import sys\n"
        "for name in ('torch', 'gymnasium', 'stable_baselines3'): sys.modules[name] = None\n"
        "import json, numpy as np\n"
        "from policykd.students.load import load_student\n"
        f"student = load_student({str(path)!r}, backend='numpy')\n"
        f"observation = np.array({OBSERVATIONS[0].tolist()!r}, np.float32)\n"
        "print(json.dumps(student.predict(observation, deterministic=True)[0].tolist()))\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    expected = policy.predict(OBSERVATIONS[0], deterministic=True)[0]
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5, atol=1e-6)


def test_evaluate_policy_of_sb3_takes_a_student() -> None:
    weight = torch.tensor([[0.0, 0.1], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    env = gym.make("CartPole-v1")
    policy = replace(
        student("categorical"),
        normaliser=Normaliser(np.zeros(4, np.float32), np.ones(4, np.float32)),
        layers=((weight, torch.zeros(2)),),
        observation_space=env.observation_space,
        action_space=env.action_space,
        distribution=type(FAMILIES["categorical"][0])(2),
        action_map=replace(student("categorical").action_map, start=()),
    )
    mean, _ = evaluate_policy(policy, env, n_eval_episodes=3, warn=False)
    assert mean == 500


def edited(tmp_path: Path, edit: Any) -> Path:
    """A student file after `edit(tensors, document)`."""
    tensors, document = student("gaussian").to_artifact()
    tensors, document = dict(tensors), json.loads(json.dumps({"format": 1, **document}))
    edit(tensors, document)
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(save(tensors, {"policykd": json.dumps(document)}))
    return path


def drop(*keys: str) -> Any:
    def edit(_: Any, document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return edit


def put(value: Any, *keys: str) -> Any:
    def edit(_: Any, document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return edit


def tensor(name: str, value: Any) -> Any:
    def edit(tensors: Any, _: Any) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return edit


DAMAGE = {
    "format": put(2, "format"),
    "no format": drop("format"),
    "layers do not chain": put([[3, 6], [5, 5], [5, 2]], "architecture", "layers"),
    "layers are text": put("layers", "architecture", "layers"),
    "no layers": put([], "architecture", "layers"),
    "outputs": put({"type": "DiagGaussian", "dim": 3}, "distribution"),
    "architecture is a list": put([], "architecture"),
    "kind": put("cnn", "architecture", "kind"),
    "activation": put("gelu", "architecture", "activation"),
    "distribution": put("Poisson", "distribution", "type"),
    "limit is negative": put(-1, "architecture", "normaliser_limit"),
    "limit is nan": put(float("nan"), "architecture", "normaliser_limit"),
    "observation shape": put([4], "observation_space", "shape"),
    "action map kind": put("exec", "action_map", "kind"),
    "action bounds": put([0.0, 0.0, 0.0], "action_map", "low"),
    "action dtype": put("bogus", "action_map", "dtype"),
    "action shape": put([3], "action_map", "shape"),
    "weight shape": tensor("layers.0.weight", np.zeros((3, 7), np.float32)),
    "weight missing": tensor("layers.1.bias", None),
    "log_std missing": tensor("log_std", None),
    "extra tensor": tensor("more", np.zeros(2, np.float32)),
    "nan": tensor("layers.0.bias", np.full(6, np.nan, np.float32)),
    "inf": tensor("log_std", np.full(2, np.inf, np.float32)),
    "float64": tensor("layers.0.bias", np.zeros(6)),
    "integers": tensor("layers.0.bias", np.zeros(6, np.int32)),
    **{f"no {'.'.join(keys)}": drop(*keys) for keys in [
        ("architecture",), ("architecture", "kind"), ("architecture", "layers"), ("architecture", "activation"),
        ("architecture", "normaliser_limit"), ("distribution",), ("distribution", "type"), ("distribution", "dim"),
        ("action_map",), ("action_map", "kind"), ("action_map", "shape"), ("action_map", "dtype"),
        ("action_map", "low"),
        ("observation_space",), ("observation_space", "shape"), ("action_space",), ("provenance",),
    ]},
}  # fmt: skip


def refused(path: Path, backend: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_student(path, backend=backend)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damaged_student_is_refused_in_one_line(damage: str, backend: Any, tmp_path: Path) -> None:
    refused(edited(tmp_path, DAMAGE[damage]), backend)


@pytest.mark.parametrize("provenance", [[], None, "x", 3])
def test_an_odd_provenance_is_refused(provenance: Any, tmp_path: Path) -> None:
    path = edited(tmp_path, lambda tensors, document: document.update(provenance=provenance))
    assert "provenance" in refused(path, "numpy")


def test_undamaged_file_of_the_same_making_is_read(tmp_path: Path) -> None:
    load_student(edited(tmp_path, lambda *_: None))


@pytest.mark.parametrize("key", ["type", "low", "high", "dtype"])
def test_torch_backend_refuses_a_broken_space(key: str, tmp_path: Path) -> None:
    refused(edited(tmp_path, drop("observation_space", key)), "torch")
    refused(edited(tmp_path, drop("action_space", key)), "torch")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path, student("gaussian")).read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in [*range(0, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(path, "numpy")
    path.write_bytes(data + b"more")
    refused(path, "numpy")


def test_no_bit_flip_gives_more_than_one_line(tmp_path: Path) -> None:
    data = saved(tmp_path, student("gaussian")).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.safetensors"
    messages = []
    for position in rng.integers(0, len(data), 300):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        try:
            load_student(path)  # a flip in a weight or a name of the provenance cannot be seen
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 a zip", b"\xff" * 64, save({"x": np.zeros(2, np.float32)})],
    ids=["empty", "zip", "noise", "foreign"],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    refused(path, "numpy")


@pytest.mark.parametrize("text", ["not json", "[1]", "null", "[" * 100_000], ids=["text", "list", "null", "deep"])
def test_headers_that_are_no_document_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(save({"x": np.zeros(2, np.float32)}, {"policykd": text}))
    refused(path, "numpy")


def test_missing_file_and_unknown_backend(tmp_path: Path) -> None:
    refused(tmp_path / "student.safetensors", "numpy")
    saved(tmp_path, student("gaussian"))
    with pytest.raises(InputError, match="jax"):
        load_student(tmp_path, backend="jax")  # type: ignore[call-overload]


def test_nan_in_the_document_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_artifact(tmp_path / "x", {}, {"figure": float("nan")})
    assert not list(tmp_path.iterdir())


def test_artifact_of_no_student_round_trips(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5]).reshape(1)}
    save_artifact(tmp_path / "x", tensors, {"k": 1})
    found, document = load_artifact(tmp_path / "x")
    assert document == {"format": 1, "k": 1} and found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
    save_artifact(tmp_path / "y", dict(reversed(tensors.items())), {"k": 1})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_wrong_observation_shape_is_refused(backend: Any, tmp_path: Path) -> None:
    acting = load_student(saved(tmp_path, student("categorical")), backend=backend)
    for wrong in (np.zeros(4, np.float32), np.zeros((2, 4), np.float32), np.zeros((2, 2, 3), np.float32)):
        with pytest.raises(InputError, match="shape"):
            acting.predict(wrong)
