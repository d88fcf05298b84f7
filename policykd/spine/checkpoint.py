"""A run folder: locked while in use, every file whole or absent, a pointer file written last.

checkpoints/
  shard-RRRR.safetensors   the labelled data of round R, written when its collection ends
  state-RRRR.safetensors   weights, optimizer, snapshots after round R
  latest.json              the pointer: {"round", "state", "sha256", ...}; what it names exists
  NAME.json                measurements that are made once (baseline, report)
A kill at any moment leaves the last pointer and everything it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from policykd.spine.errors import InputError, Interrupted
from policykd.spine.files import make_folder, read_json, sha256_of, write_atomic, write_json

Tensors = Mapping[str, NDArray[Any]]


class RunFolder:
    """Use as a context manager: the folder is locked inside, and released by the system if the process dies.

    `fresh`: the caller has just made the folder for this run. A folder made for a run that ends before anything was
    settled goes again; nothing that others put there is touched.
    """

    def __init__(self, path: Path, *, resume: bool = False, fresh: bool = False) -> None:
        self.path = path
        self._resume = resume
        self.checkpoints = path / "checkpoints"
        if resume:
            if not (path / "config.yaml").is_file():
                raise InputError(
                    f"{path}: nothing to resume (no config.yaml in it); give a run folder, or start without --resume"
                )
        elif not is_free(path):
            kind = "not empty" if path.is_dir() else "a file"
            raise InputError(f"{path}: exists and is {kind}; choose another --out, or continue it with --resume {path}")
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        self._made = [path] if fresh else made  # innermost first
        make_folder(self.checkpoints)
        self._lock = FileLock(path / ".lock")
        self._hashes: dict[str, str] = {}

    def __enter__(self) -> Self:
        make_folder(self.checkpoints)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path}: another process is running in this folder; wait for it or choose another"
            ) from None
        if not self._resume and not is_free(self.path):
            self._lock.release()
            raise InputError(f"{self.path}: another run has just been made there; choose another --out")
        for leftover in (*self.path.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")):
            leftover.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = error is not None and not isinstance(error, Interrupted) and not self._resume
        unsettled = failed and not any(self.checkpoints.iterdir())
        if unsettled:
            self.checkpoints.rmdir()
            (self.path / "config.yaml").unlink(missing_ok=True)
        self._lock.release()
        if unsettled:  # nothing was measured: the next try finds the place as this one did
            (self.path / ".lock").unlink(missing_ok=True)
            for folder in self._made:
                if any(folder.iterdir()):
                    break
                folder.rmdir()

    def save_shard(self, round_index: int, tensors: Tensors) -> None:
        """The labelled data of one round."""
        data = pack(tensors)
        write_atomic(self._shard(round_index), data)
        self._hashes[str(round_index)] = sha256_of(data)

    @property
    def shards(self) -> list[int]:
        """The rounds whose labelled data the last checkpoint counts on, in order."""
        return sorted(map(int, self._hashes))

    def load_shard(self, round_index: int) -> dict[str, NDArray[Any]] | None:
        """The labelled data of one round, or None when its collection had not ended."""
        path = self._shard(round_index)
        if not path.is_file():
            return None
        data = path.read_bytes()
        if sha256_of(data) != self._hashes.setdefault(str(round_index), sha256_of(data)):
            raise InputError(f"{path}: its sha256 is not the one in latest.json; it was altered, start a new run")
        return unpack(path, data)

    def save_state(self, round_index: int, tensors: Tensors, facts: dict[str, Any]) -> None:
        """The state after a round; the pointer moves only when the state is safe, then the old state goes."""
        name = f"state-{round_index:04d}.safetensors"
        data = pack(tensors)
        write_atomic(self.checkpoints / name, data)
        pointer = {"round": round_index, "state": name, "sha256": sha256_of(data), "shards": self._hashes, **facts}
        write_json(self.checkpoints / "latest.json", pointer)
        for old in self.checkpoints.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def load_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The last state and its facts, or None before the end of round 0; InputError when it was altered."""
        pointer = self.load_facts("latest")
        if pointer is None:
            return None
        if not {"round", "state", "sha256"} <= pointer.keys():
            raise InputError(
                f"{self.checkpoints / 'latest.json'}: incomplete; the checkpoint was altered, start a new run"
            )
        path = self.checkpoints / str(pointer["state"])
        if path.parent != self.checkpoints or not path.is_file():
            raise InputError(
                f"{self.checkpoints / 'latest.json'}: names {pointer['state']!r}, which is not there; start a new run"
            )
        data = path.read_bytes()
        if sha256_of(data) != pointer["sha256"]:
            raise InputError(
                f"{path}: its sha256 is not the one in latest.json; the checkpoint was altered, start a new run"
            )
        self._hashes.update(pointer.get("shards", {}))
        return unpack(path, data), pointer

    def save_facts(self, name: str, facts: dict[str, Any]) -> None:
        """Measurements that are made once."""
        write_json(self.checkpoints / f"{name}.json", facts)

    def load_facts(self, name: str) -> dict[str, Any] | None:
        """What `save_facts` wrote, or None."""
        return read_json(self.checkpoints / f"{name}.json")

    def forget_facts(self, name: str) -> None:
        """Takes back what `save_facts` wrote."""
        (self.checkpoints / f"{name}.json").unlink(missing_ok=True)

    def drop_shards(self) -> None:
        """Frees the labelled data of a finished run."""
        for path in self.checkpoints.glob("shard-*.safetensors"):
            path.unlink()

    def _shard(self, round_index: int) -> Path:
        return self.checkpoints / f"shard-{round_index:04d}.safetensors"


def is_free(path: Path) -> bool:
    """Whether there is no such folder, or nothing in it but what a run leaves that stopped before it was settled."""
    if not path.is_dir():
        return not path.exists()
    for entry in path.iterdir():
        if entry.name == "checkpoints" and entry.is_dir() and not any(entry.iterdir()):
            continue
        if entry.name != ".lock":
            return False
    return True


def next_run_folder(root: Path, name: str) -> Path:
    """Makes and returns the first free `root/name-N`, N = 1, 2, ...; two processes never get the same one."""
    make_folder(root)
    number = 1
    while True:
        path = root / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise InputError(f"{path}: cannot make this folder ({error.strerror}); give one with --out") from None
        return path


def pack(tensors: Tensors) -> bytes:
    """The arrays as a safetensors file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def unpack(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file; InputError where it is none, which names `path`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); delete it and resume again") from None
