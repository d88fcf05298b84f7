"""Fails when two processes can run in one folder, when a dead one keeps it locked, or when a checkpoint that was
altered or is not whole is taken for a good one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policykd.spine.checkpoint import RunFolder, next_run_folder
from policykd.spine.errors import InputError

ROOT = Path(__file__).parents[3]
STATE = {"flat": np.arange(5, dtype=np.float32), "step": np.array([3.0], np.float32)}
HOLDER = """
import sys, time
from pathlib import Path
from policykd.spine.checkpoint import RunFolder
with RunFolder(Path(sys.argv[1]), resume=True):
    print("held", flush=True)
    time.sleep(600)
"""


def refused(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    (made.path / "config.yaml").write_text("")
    return made


def test_a_folder_is_held_by_one_process_and_freed_by_its_death(folder: RunFolder) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert "another process" in refused(RunFolder(folder.path, resume=True).__enter__)
        process.send_signal(signal.SIGKILL)
    with RunFolder(folder.path, resume=True):
        pass


def test_what_may_become_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty")
    RunFolder(tmp_path / "empty")  # a run that stopped before anything was settled is not in the way
    for name in ("config.yaml", "events.out.tfevents.1"):
        (tmp_path / "empty" / name).write_text("")
        assert "--resume" in refused(RunFolder, tmp_path / "empty")
        (tmp_path / "empty" / name).unlink()
    (tmp_path / "file").write_text("")
    assert "a file" in refused(RunFolder, tmp_path / "file")
    assert "nothing to resume" in refused(RunFolder, tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()


def _fail(path: Path, *, measured: bool = False) -> None:
    def run() -> None:
        with RunFolder(path) as folder:
            (path / "config.yaml").write_text("")
            if measured:
                folder.save_facts("baseline", {})
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run()


def test_a_failure_before_anything_is_settled_leaves_the_place_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "new", "mine/a/b", "other/c"):
        _fail(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert list((tmp_path / "mine").iterdir()) == []
    _fail(tmp_path / "kept", measured=True)
    assert (tmp_path / "kept" / "checkpoints" / "baseline.json").is_file()


def test_leftovers_of_a_killed_write_go(folder: RunFolder) -> None:
    leftovers = [folder.path / ".result.json.17.tmp", folder.checkpoints / ".state.99.tmp"]
    for path in leftovers:
        path.write_text("half")
    (folder.path / "config.yaml").write_text("")
    with RunFolder(folder.path, resume=True):
        assert not any(path.exists() for path in leftovers)


def test_a_place_that_another_run_took_meanwhile_is_refused(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first:
        first.save_facts("baseline", {})
    assert "another run" in refused(second.__enter__)
    assert (tmp_path / "run" / "checkpoints" / "baseline.json").is_file()


def test_state_round_trip(folder: RunFolder) -> None:
    assert folder.load_state() is None and folder.load_shard(0) is None and folder.load_facts("report") is None
    folder.save_state(0, STATE, {"timesteps": 10})
    folder.save_state(1, {name: value + 1 for name, value in STATE.items()}, {"timesteps": 20})
    found = folder.load_state()
    assert found is not None and found[1]["timesteps"] == 20 and found[1]["round"] == 1
    for name, value in STATE.items():
        np.testing.assert_array_equal(found[0][name], value + 1)
        assert found[0][name].dtype == value.dtype
    assert len(list(folder.checkpoints.glob("state-*"))) == 1
    folder.save_shard(4, {"x": np.arange(6).reshape(2, 3).T})
    np.testing.assert_array_equal(folder.load_shard(4)["x"], np.arange(6).reshape(2, 3).T)
    folder.drop_shards()
    assert folder.load_shard(4) is None
    folder.save_facts("baseline", {"a": 1})
    assert folder.load_facts("baseline") == {"a": 1}


def test_the_pointer_moves_last(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from policykd.spine import checkpoint

    folder.save_state(0, STATE, {})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        folder.save_state(1, STATE, {})
    found = folder.load_state()
    assert found is not None and found[1]["round"] == 0


def test_an_altered_state_is_refused(folder: RunFolder) -> None:
    folder.save_state(0, STATE, {})
    path = folder.checkpoints / "state-0000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "sha256" in refused(folder.load_state)
    path.unlink()
    assert "not there" in refused(folder.load_state)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"round": 0}', '{"round": 0, "state": "state-0000.safetensors"}'])
def test_a_broken_pointer_is_refused(folder: RunFolder, text: str) -> None:
    folder.save_state(0, STATE, {})
    (folder.checkpoints / "latest.json").write_text(text)
    refused(folder.load_state)


@pytest.mark.parametrize("name", ["../config.yaml", "../../outside", "latest.json"])
def test_a_pointer_names_only_what_lies_beside_it(folder: RunFolder, name: str) -> None:
    folder.save_state(0, STATE, {})
    pointer = folder.checkpoints / "latest.json"
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), "state": name}))
    refused(folder.load_state)


def test_a_shard_that_is_not_whole_is_refused(folder: RunFolder) -> None:
    folder.save_shard(0, {"x": np.zeros(100)})
    path = next(folder.checkpoints.glob("shard-*"))
    path.write_bytes(path.read_bytes()[:-8])
    assert str(path) in refused(folder.load_shard, 0)


def test_next_free_folder(tmp_path: Path) -> None:
    assert [next_run_folder(tmp_path / "runs", "ppo").name for _ in range(3)] == ["ppo-1", "ppo-2", "ppo-3"]
    (tmp_path / "runs" / "dqn-1").write_text("")
    assert next_run_folder(tmp_path / "runs", "dqn").name == "dqn-2"
