"""What a file names is never run, and damage of any kind ends in one line."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from policykd.spine.errors import InputError
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import read_normalizer
from policykd.teachers.yamldata import read_yaml
from tests.support.teachers import Gadget, Spaces, box, edit_data, members, write_zip, zip_bytes

_watched: list[list[str]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watched and event in ("pickle.find_class", "exec", "os.system", "subprocess.Popen", "compile"):
        _watched[-1].append(f"{event} {args!r:.80}")


sys.addaudithook(_audit)


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    return tmp_path / "sentinel"


@pytest.fixture
def nothing_runs(sentinel: Path, zipped: Path, statistics: Path) -> Iterator[None]:
    """Fails the test if a gadget ran, or if anything was unpickled or executed meanwhile.

    Imports execute modules: by the time of the other two fixtures they are over.
    """
    _watched.append([])
    yield
    events = _watched.pop()
    assert not sentinel.exists()
    assert events == []


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    model = PPO("MlpPolicy", Spaces(box(30), spaces.Discrete(3)), device="cpu", policy_kwargs={"net_arch": [8]})
    model.save(tmp_path / "model.zip")
    load_teacher(tmp_path / "model.zip")
    return tmp_path / "model.zip"


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    venv = VecNormalize(DummyVecEnv([lambda: Spaces(box(30), spaces.Discrete(3))]))
    venv.reset()
    venv.save(str(tmp_path / "vecnormalize.pkl"))
    read_normalizer(tmp_path / "vecnormalize.pkl")
    return tmp_path / "vecnormalize.pkl"


def gadget(sentinel: Path) -> bytes:
    return pickle.dumps(Gadget(sentinel))


def test_the_gadget_works(sentinel: Path) -> None:
    pickle.loads(gadget(sentinel)).close()
    assert sentinel.exists()


@pytest.mark.usefixtures("nothing_runs")
def test_gadgets_in_the_serialised_fields(zipped: Path, sentinel: Path) -> None:
    data = json.loads(members(zipped)["data"])
    fields = [key for key, value in data.items() if isinstance(value, dict) and ":serialized:" in value]
    assert {"policy_class", "observation_space", "action_space"} <= set(fields)
    for key in fields:
        data[key][":serialized:"] = base64.b64encode(gadget(sentinel)).decode()
    write_zip(zipped, members(zipped) | {"data": json.dumps(data).encode()})
    assert load_teacher(zipped).predict(np.zeros(30, np.float32))[0].shape == ()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("member", ["policy.pth", "data"])
def test_gadgets_in_place_of_a_member(zipped: Path, sentinel: Path, member: str) -> None:
    write_zip(zipped, members(zipped) | {member: gadget(sentinel)})
    with pytest.raises(InputError):
        load_teacher(zipped)


@pytest.mark.usefixtures("nothing_runs")
def test_gadget_among_the_weights(zipped: Path, sentinel: Path) -> None:
    for evil in ({"action_net.weight": Gadget(sentinel)}, Gadget(sentinel), [Gadget(sentinel)]):
        inner = zip_bytes({"archive/data.pkl": pickle.dumps(evil, 2), "archive/version": b"3"})
        write_zip(zipped, members(zipped) | {"policy.pth": inner})
        with pytest.raises(InputError, match="torch state dict"):
            load_teacher(zipped)


@pytest.mark.usefixtures("nothing_runs")
def test_gadget_in_the_statistics(statistics: Path, sentinel: Path) -> None:
    statistics.write_bytes(gadget(sentinel))
    with pytest.raises(InputError, match="VecNormalize"):
        read_normalizer(statistics)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("tag", ["apply", "new"])
def test_python_tags_in_yaml(tmp_path: Path, sentinel: Path, tag: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"a: !!python/object/{tag}:builtins.open ['{sentinel}', w]\nb: !!python/name:os.system\n")
    assert read_yaml(path) == {"a": [str(sentinel), "w"], "b": ""}


def test_ordered_dict_in_yaml_is_a_dict(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("!!python/object/apply:collections.OrderedDict\n- - - a\n    - 1\n  - - b\n    - {c: 2}\n")
    assert read_yaml(path) == {"a": 1, "b": {"c": 2}}


@pytest.mark.parametrize(
    "text", ["[1, 2", "- 1", "a: [" * 5000, "? {a: 1}\n: 2", "!!python/object/apply:collections.OrderedDict [[1]]"]
)
def test_odd_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def _mutations(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    rng = np.random.default_rng(seed)
    for _ in range(n):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), 1 + int(rng.integers(3))):
            changed[at] ^= 1 << int(rng.integers(8))
        yield bytes(changed)
    for end in rng.integers(0, len(data), n // 4):
        yield data[:end]


def _survives(load: Callable[[], Any]) -> None:
    """The call returns finite numbers, or raises InputError of one line, soon."""
    start = time.process_time()
    message = ""
    try:
        result = load()
        if isinstance(result, Teacher):
            assert all(torch.isfinite(layer.weight).all() for layer in result.network.layers)
        elif result is not None:
            assert np.isfinite([result.mean, result.std]).all()
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 700
    assert time.process_time() - start < 2.0


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("member", ["data", "policy.pth", None])
def test_flipped_bits_and_truncation_of_a_zip(zipped: Path, member: str | None) -> None:
    content, whole = members(zipped), zipped.read_bytes()
    for changed in _mutations(whole if member is None else content[member], 120, 3):
        if member is None:
            zipped.write_bytes(changed)
        else:
            write_zip(zipped, content | {member: changed})  # with a valid outer checksum
        _survives(lambda: load_teacher(zipped))


@pytest.mark.usefixtures("nothing_runs")
def test_flipped_bits_inside_the_weights(zipped: Path, tmp_path: Path) -> None:
    content = members(zipped)
    (tmp_path / "inner.zip").write_bytes(content["policy.pth"])
    inner = members(tmp_path / "inner.zip")
    name = next(name for name in inner if name.endswith("data.pkl"))
    for changed in _mutations(inner[name], 300, 4):
        write_zip(zipped, content | {"policy.pth": zip_bytes(inner | {name: changed})})
        _survives(lambda: load_teacher(zipped))


@pytest.mark.usefixtures("nothing_runs")
def test_flipped_bits_in_serialised_spaces(zipped: Path) -> None:
    data = json.loads(members(zipped)["data"])
    for key in ("observation_space", "action_space"):
        plain = base64.b64decode(data[key][":serialized:"])
        for changed in _mutations(plain, 100, 5):
            edit_data(zipped, **{key: data[key] | {":serialized:": base64.b64encode(changed).decode()}})
            _survives(lambda: load_teacher(zipped))
        edit_data(zipped, **{key: data[key]})


@pytest.mark.usefixtures("nothing_runs")
def test_flipped_bits_in_statistics(statistics: Path) -> None:
    for changed in _mutations(statistics.read_bytes(), 300, 6):
        statistics.write_bytes(changed)
        _survives(lambda: read_normalizer(statistics))


def test_a_zip_bomb_is_refused_before_it_unfolds(zipped: Path) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**25)
    write_zip(zipped, members(zipped) | {"policy.pth": buffer.getvalue()})
    with pytest.raises(InputError, match="33554432 bytes, more than"):
        load_teacher(zipped)


def test_a_huge_discrete_space_costs_nothing(zipped: Path) -> None:
    data = json.loads(members(zipped)["data"])
    huge = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>", "n": 2**40, "start": 0}
    for key in ("observation_space", "action_space"):
        edit_data(zipped, **{key: huge})
        with pytest.raises(InputError, match=r"outputs|one-hot"):
            load_teacher(zipped)
        edit_data(zipped, **{key: data[key]})
