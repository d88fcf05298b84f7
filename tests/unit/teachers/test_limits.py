"""A hostile file costs little: seconds and megabytes are bounded, and the loaders of pickle are never reached."""

from __future__ import annotations

import base64
import io
import json
import pickle
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC

from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import read_normalizer
from policykd.teachers.pickledata import MAX_OPCODES, DecodeError, decode
from policykd.teachers.yamldata import read_yaml
from tests.support.teachers import (
    Gadget,
    Spaces,
    box,
    edit_data,
    members,
    needs_shared,
    shared_folder,
    shared_index,
    write_zip,
    zip_bytes,
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
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(InputError) as error:
        call()
    assert time.perf_counter() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 900
    for part in parts:
        assert part in message


def with_policy(path: Path, content: dict[str, bytes]) -> Path:
    return write_zip(path, members(path) | {"policy.pth": zip_bytes(content)})


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
    names = {"mlp_extractor.policy_net." + "9" * 6000 + ".weight": one, "a\n" * 50_000: torch.tensor([float("nan")])}
    write_zip(zipped, members(zipped) | {"policy.pth": state_dict(**names)})
    refused(lambda: load_teacher(zipped), "NaN")
    names["a\n" * 50_000] = one
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
    start = time.perf_counter()
    with pytest.raises(DecodeError, match="opcodes"):
        decode(b"N0" * MAX_OPCODES + b"N.")
    assert time.perf_counter() - start < SECONDS


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


@pytest.mark.parametrize("text", [MERGES, "a: " + "1:" * 30_000 + "1", "x" * 70_000, "&a [*a, *a]"], ids=range(4))
def test_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    refused(lambda: read_yaml(path), "config.yml")


def test_yaml_aliases_are_references(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(LAUGHS)
    start = time.perf_counter()
    assert len(read_yaml(tmp_path / "config.yml")) == 40
    assert time.perf_counter() - start < SECONDS


def test_json_statistics(tmp_path: Path) -> None:
    path = tmp_path / "normalizer.json"
    for text in ("[" * 100_000, "{}", "3", " " * (2**24 + 1), '{"format": 1, "mean": [[1], 2], "var": 3}'):
        path.write_text(text)
        refused(lambda: read_normalizer(path), "normalizer.json")


def test_no_loader_of_pickles_is_reached(zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = tmp_path / "vecnormalize.pkl"
    statistics.write_bytes(pickle.dumps(Gadget(tmp_path / "sentinel")))
    _trap(monkeypatch)
    assert load_teacher(zipped).info.gsde
    with pytest.raises(InputError):
        load_teacher(zipped, vec_normalize=statistics)
    with pytest.raises(AssertionError, match="trapped"):
        pickle.loads(b"N.")


@needs_shared
@pytest.mark.parametrize("record", shared_index(), ids=lambda record: record["folder"])
def test_no_loader_of_pickles_is_reached_by_real_folders(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _trap(monkeypatch)
    assert load_teacher(shared_folder(record)).info.footprint.params == record["actor_params"]


def _trap(monkeypatch: pytest.MonkeyPatch) -> None:
    def trap(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("trapped")

    for module in (pickle, cloudpickle):
        monkeypatch.setattr(module, "loads", trap)
        monkeypatch.setattr(module, "load", trap)
    monkeypatch.setattr(pickle, "Unpickler", trap)
    monkeypatch.setattr(torch, "load", trap)


WATCH = """
import sys
from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
load_teacher(sys.argv[1])  # what has to be imported is imported now
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in
    ("pickle.find_class", "exec", "compile", "import", "os.system", "subprocess.Popen", "socket.connect") else None)
for path in sys.argv[2:]:
    try:
        load_teacher(path)
        print("read")
    except InputError as error:
        print("refused", len(str(error).splitlines()))
print(seen)
if sys.argv[1].endswith("control.zip"):
    import pickle
    pickle.loads(b"cos\\ngetpid\\n(tR.")
    print(seen)
"""


def test_nothing_is_imported_or_executed_in_a_process_of_its_own(model_zip: Path, tmp_path: Path) -> None:
    """Whole module, with every import already made; the control shows that the hook does see an unpickling."""
    sentinel, content = tmp_path / "sentinel", members(model_zip)
    gadget = pickle.dumps(Gadget(sentinel))
    data = json.loads(content["data"])
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(gadget).decode()
    control = write_zip(tmp_path / "control.zip", content)
    files = [
        write_zip(tmp_path / "fields.zip", content | {"data": json.dumps(data).encode()}),
        write_zip(tmp_path / "weights.zip", content | {"policy.pth": gadget}),
        write_zip(tmp_path / "evil:CartPole-v1.zip", content),
    ]
    files.append(with_policy(write_zip(tmp_path / "inner.zip", content), {"archive/data.pkl": gadget}))
    command = [sys.executable, "-c", WATCH, str(control), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *outcomes, clean, caught = done.stdout.splitlines()
    assert outcomes == ["read", "refused 1", "read", "refused 1"]
    assert clean == "[]"
    assert "pickle.find_class" in caught
    assert not sentinel.exists()
    assert load_teacher(files[2]).observation_space == spaces.Box(-2.0, 3.0, (4,), np.float32)
