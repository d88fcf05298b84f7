"""Fails when a killed or failed write leaves anything but the old or the new file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from policykd.spine.errors import InputError
from policykd.spine.files import make_folder, sha256_of, write_atomic, write_json

ROOT = Path(__file__).parents[3]
SIZE = 3_000_000
# Writes files of one letter each, for ever, and says when each is done.
WRITER = f"""
import sys
from pathlib import Path
from policykd.spine.files import write_atomic
path = Path(sys.argv[1])
while True:
    for letter in (b"a", b"b", b"c"):
        write_atomic(path, letter * {SIZE})
        print(letter.decode(), flush=True)
"""


def test_a_killed_writer_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    cut_short = 0
    for attempt in range(20):
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()  # one file is there; the next is being written
            time.sleep(0.0007 * attempt)
            process.send_signal(signal.SIGKILL)
        data = path.read_bytes()
        assert len(data) == SIZE and len(set(data)) == 1, "neither the old nor the new file"
        cut_short += len(list(tmp_path.glob(".file.*.tmp")))
        for leftover in tmp_path.glob(".file.*.tmp"):
            leftover.unlink()
    assert cut_short > 0, "no write was hit: the test shows nothing"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device") as caught:
        write_atomic(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_data_is_safe_before_the_name_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(handle: int) -> None:
        order.append("fsync")
        fsync(handle)

    def note_replace(self: Path, target: Any) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_atomic(tmp_path / "file", b"x")
    assert order == (["fsync", "rename"] if os.name == "nt" else ["fsync", "rename", "fsync"])


def test_no_folder_and_no_permission(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_atomic(tmp_path / "absent" / "file", b"x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make"):
        make_folder(tmp_path / "file" / "below")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, 2.5, None]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2.5, None]}


def test_sha256_is_pinned() -> None:
    assert sha256_of(b"abc").startswith("ba7816bf8f01cfea")
