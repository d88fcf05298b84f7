"""A hostile file costs little: seconds and megabytes are bounded."""

from __future__ import annotations

import io
import json
import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC

from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import read_normalizer
from policykd.teachers.pickledata import MAX_OPCODES, DecodeError, decode
from policykd.teachers.yamldata import read_yaml
from tests.support.teachers import (
    Spaces,
    box,
    edit_data,
    members,
    write_zip,
)

SECONDS, MEGABYTES = 2.0, 1200


@pytest.fixture(scope="module")
def model_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.zip"
    PPO("MlpPolicy", Spaces(box(4), box(2)), device="cpu", use_sde=True, policy_kwargs={"net_arch": [8]}).save(path)
    load_teacher(path)
    return path


@pytest.fixture
def zipped(model_zip: Path, tmp_path: Path) -> Path:
    return write_zip(tmp_path / "model.zip", members(model_zip))


def refused(call: Callable[[], Any], *parts: str) -> None:
    """InputError of one line that holds the parts, within the bounds."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as error:
        call()
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 900
    for part in parts:
        assert part in message


def state_dict(**tensors: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def box_entry(**changes: Any) -> dict[str, Any]:
    entry = {":type:": "<class 'gymnasium.spaces.box.Box'>", ":serialized:": "", "dtype": "float32", "_shape": [4]}
    return entry | {"low": "[-1. -1. -1. -1.]", "high": "[1. 1. 1. 1.]"} | changes


SPACES: dict[str, dict[str, Any]] = {
    "many dimensions": box_entry(_shape=[9] * 1_000_000),
    "a product without end": box_entry(_shape=[10**4000] * 8),
    "petabytes": box_entry(_shape=[2**50]),
    "negative": box_entry(_shape=[-4]),
    "a long print": box_entry(low="[" + "1. " * 1_000_000 + "]"),
    "deep lists": box_entry(low=json.loads("[" * 900 + "]" * 900)),
    "reversed bounds": box_entry(low="[2. 2. 2. 2.]", high="[nan 1. 1. 1.]"),
    "object dtype": box_entry(dtype="object"),
    "long kind": {":type:": "<class 'x." + "y" * 100_000 + "'>"},
    "broken kind": {":type:": "<class 'x.a\nb'>"},
    "huge bits": {":type:": "<class 'gymnasium.spaces.multi_binary.MultiBinary'>", "n": 2**50},
    "many bits": {":type:": "<class 'gymnasium.spaces.multi_binary.MultiBinary'>", "n": [7] * 500_000},
    "negative count": {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": -3},
    "no count": {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>"},
    "many branches": {":type:": "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>", "nvec": [3] * 200_000},
    "huge branches": {":type:": "<class 'gymnasium.spaces.multi_discrete.MultiDiscrete'>", "nvec": [2**62, 2**62]},
}


@pytest.mark.parametrize("field", ["observation_space", "action_space"])
@pytest.mark.parametrize("kind", SPACES)
def test_spaces(zipped: Path, field: str, kind: str) -> None:
    edit_data(zipped, **{field: SPACES[kind]})
    refused(lambda: load_teacher(zipped), "model.zip")


@pytest.mark.parametrize(
    "data",
    [b"[" * 200_000, b"[" + b"0," * 10_000_000 + b"0]", b'{"a":' + b"9" * 10_000 + b"}", b"\xff\xfe", b"null", b"{}"],
    ids=["deep", "long", "digits", "bytes", "null", "empty"],
)
def test_json(zipped: Path, data: bytes) -> None:
    write_zip(zipped, members(zipped) | {"data": data})
    refused(lambda: load_teacher(zipped), "data")


@pytest.mark.parametrize("bomb", ["data", "policy.pth", "_stable_baselines3_version"])
def test_members_that_unfold(zipped: Path, bomb: str) -> None:
    content = members(zipped) | {bomb: b"\0" * (300 * 2**20 if bomb == "policy.pth" else 20 * 2**20)}
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    refused(lambda: load_teacher(zipped), bomb, "more than")


def test_a_member_that_lies_about_its_size(zipped: Path) -> None:
    content = members(zipped)
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    raw = bytearray(zipped.read_bytes())
    at = raw.rindex(b"policy.pth") - 46  # its entry in the central directory
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")
    zipped.write_bytes(raw)
    refused(lambda: load_teacher(zipped), "policy.pth")


def test_ten_thousand_layers(zipped: Path) -> None:
    one = torch.ones(1, 1)
    layers = {f"mlp_extractor.policy_net.{2 * i}.weight": one for i in range(9_000)}
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**layers)})
    refused(lambda: load_teacher(zipped), "at most 64 layers")
    names = {"mlp_extractor.policy_net." + "9" * 900 + ".weight": one, "a\n" * 500: torch.tensor([float("nan")])}
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**names)})
    refused(lambda: load_teacher(zipped), "NaN")
    names["a\n" * 500] = one
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**names)})
    refused(lambda: load_teacher(zipped), "action_net")


def test_weights_whose_use_overflows(zipped: Path) -> None:
    weights = torch.load(io.BytesIO(members(zipped)["policy.pth"]), weights_only=True)
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**weights | {"log_std": weights["log_std"] + 90})})
    refused(lambda: load_teacher(zipped), "log_std")
    large = weights["action_net.weight"].double() + 1e300
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**weights | {"action_net.weight": large})})
    refused(lambda: load_teacher(zipped), "action_net.weight", "single precision")


@pytest.mark.parametrize("prefix", ["../../", "/tmp/", "C:\\", "archive/../../"])
def test_member_names_lead_nowhere(zipped: Path, prefix: str) -> None:
    content = members(zipped)
    write_zip(zipped, {prefix + "data": b"{}", **content, prefix + "evil.py": b"raise SystemExit"})
    before = sorted(zipped.parent.iterdir())
    assert load_teacher(zipped).info.algo == "ppo"
    assert sorted(zipped.parent.iterdir()) == before
    write_zip(zipped, {prefix + name: data for name, data in content.items()})
    refused(lambda: load_teacher(zipped), "without data and policy.pth")


def test_repeated_members(zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("data", b"{}")
    refused(lambda: load_teacher(zipped), "more than once")


def test_too_many_members_and_opcodes(zipped: Path) -> None:
    write_zip(zipped, {f"m{i}": b"" for i in range(20_001)})
    refused(lambda: load_teacher(zipped), "members")
    spent = []
    for _ in range(3):  # the least of them: beside another busy process the same work counts more
        start = time.process_time()
        with pytest.raises(DecodeError, match="opcodes"):
            decode(b"N0" * MAX_OPCODES + b"N.")
        spent.append(time.process_time() - start)
    assert min(spent) < SECONDS


def test_options_that_are_no_numbers(zipped: Path) -> None:
    for options in ({"clip_mean": "x\n" * 1000}, {"clip_mean": 1e400}, {"use_expln": "__import__('os')"}):
        edit_data(zipped, policy_kwargs=options)
        refused(lambda: load_teacher(zipped), f"policy_kwargs.{next(iter(options))}")


def test_options_of_numpy_count(tmp_path: Path) -> None:
    options = {"clip_mean": np.float32(0.25), "use_expln": np.bool_(True)}
    model = SAC("MlpPolicy", Spaces(box(4), box(2)), use_sde=True, policy_kwargs=options, buffer_size=10, device="cpu")
    model.policy.actor.mu[0].weight.data.mul_(50)
    model.save(tmp_path / "sac.zip")
    batch = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    expected, _ = model.predict(batch, deterministic=True)
    np.testing.assert_array_equal(load_teacher(tmp_path / "sac.zip").predict(batch, deterministic=True)[0], expected)


MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))


CUBE = "a: &a [" + "1," * 99 + "1]\nb: &b [" + "*a ," * 99 + "*a ]\nc: [" + "*b ," * 99 + "*b ]\n"


@pytest.mark.parametrize(
    "text",
    [MERGES, "a: " + "1:" * 10_000 + "1", "x" * 70_000, "&a [*a, *a]", LAUGHS, CUBE, "a: " + "[" * 33 + "]" * 33],
    ids=["merges", "sexagesimal", "large", "itself", "laughs", "cube", "deep"],
)
def test_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    refused(lambda: read_yaml(path), "config.yml")


def test_yaml_with_a_few_aliases(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("a: &a [1, 2]\nb: [*a, *a]\nc: &c x\nd: *c\n")
    assert read_yaml(tmp_path / "config.yml") == {"a": [1, 2], "b": [[1, 2], [1, 2]], "c": "x", "d": "x"}


def test_json_statistics(tmp_path: Path) -> None:
    path = tmp_path / "normalizer.json"
    for text in ("[" * 100_000, "{}", "3", " " * (2**24 + 1), '{"format": 1, "mean": [[1], 2], "var": 3}'):
        path.write_text(text)
        refused(lambda: read_normalizer(path), "normalizer.json")
