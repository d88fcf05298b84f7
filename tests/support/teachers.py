"""Untrained models, zips and pickles for the teacher tests."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher

SHARED = Path(__file__).parents[2] / ".." / "shared" / "teachers"
N_OBSERVATIONS = 256


class Spaces(gym.Env):
    """An environment with the given spaces, whose observations are random and whose episodes last five steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self._left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._left = 5
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return self.observation_space.sample(), float(np.sum(action)), self._left == 0, False, {}


def box(*shape: int, low: float = -2.0, high: float = 3.0, dtype: Any = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


def observations(space: spaces.Space, n: int = N_OBSERVATIONS, seed: int = 0) -> Any:
    """n random observations, of a Dict one array for each key; of a Box also far outside its usual values."""
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Dict):
        return {key: observations(inner, n, seed + i) for i, (key, inner) in enumerate(space.spaces.items())}
    if isinstance(space, spaces.Box) and space.dtype != np.uint8:
        return (rng.standard_normal((n, *space.shape)) * 3).astype(space.dtype)
    space.seed(seed)
    return np.stack([space.sample() for _ in range(n)])


def shared_index() -> list[dict[str, Any]]:
    """The records of the shared teachers; none where they are absent."""
    path = SHARED / "index.json"
    return json.loads(path.read_text()) if path.is_file() else []


def shared_folder(record: dict[str, Any]) -> Path:
    return SHARED / record["folder"]


needs_shared = pytest.mark.skipif(not (SHARED / "index.json").is_file(), reason="../shared/teachers is absent")


def members(path: Path) -> dict[str, bytes]:
    """The members of a zip by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, content: dict[str, bytes]) -> Path:
    path.write_bytes(zip_bytes(content))
    return path


def zip_bytes(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def edit_data(path: Path, **changes: Any) -> Path:
    """The zip with fields of its `data` replaced; None removes one."""
    content = members(path)
    data = json.loads(content["data"])
    data.update(changes)
    content["data"] = json.dumps({key: value for key, value in data.items() if value is not None}).encode()
    return write_zip(path, content)


class Gadget:
    """An object whose unpickling creates the file `sentinel`."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.sentinel), "w")


def write_yaml(path: Path, **values: Any) -> None:
    """A settings file as the zoo writes it."""
    pairs = [[key, value] for key, value in values.items()]
    path.write_text("!!python/object/apply:collections.OrderedDict\n- " + json.dumps(pairs))


def refused(source: Any, *parts: str, **kwargs: Any) -> None:
    """The source is refused in one line that holds the parts."""
    with pytest.raises(InputError) as error:
        load_teacher(source, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
