"""The loaders of pickle are never reached, and nothing is imported or executed while a file is read."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO

from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
from tests.support.comparing import trapped
from tests.support.teachers import (
    Gadget,
    Spaces,
    box,
    members,
    needs_shared,
    shared_folder,
    shared_index,
    write_zip,
    zip_bytes,
)


@pytest.fixture(scope="module")
def model_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.zip"
    PPO("MlpPolicy", Spaces(box(4), box(2)), device="cpu", use_sde=True, policy_kwargs={"net_arch": [8]}).save(path)
    load_teacher(path)
    return path


@pytest.fixture
def zipped(model_zip: Path, tmp_path: Path) -> Path:
    return write_zip(tmp_path / "model.zip", members(model_zip))


def with_policy(path: Path, content: dict[str, bytes]) -> Path:
    return write_zip(path, members(path) | {"policy.pth": zip_bytes(content)})


def test_no_loader_of_pickles_is_reached(zipped: Path, tmp_path: Path) -> None:
    statistics = tmp_path / "vecnormalize.pkl"
    statistics.write_bytes(pickle.dumps(Gadget(tmp_path / "sentinel")))
    with trapped():
        assert load_teacher(zipped).info.gsde
        with pytest.raises(InputError):
            load_teacher(zipped, vec_normalize=statistics)
        with pytest.raises(AssertionError, match="trapped"):
            pickle.loads(b"N.")
        with pytest.raises(AssertionError, match="trapped"):
            PPO.load(zipped)


@needs_shared
@pytest.mark.parametrize("record", shared_index(), ids=lambda record: record["folder"])
def test_no_loader_of_pickles_is_reached_by_real_folders(record: dict[str, Any]) -> None:
    with trapped():
        assert load_teacher(shared_folder(record)).info.footprint.params == record["actor_params"]


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
