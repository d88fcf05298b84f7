"""Files that are either whole or absent: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by `data`, or leaves it untouched: a kill at any moment leaves the old or the new file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder with room and permission"
        ) from None
    _sync_folder(path.parent)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """`write_atomic` of indented JSON; NaN is refused."""
    write_atomic(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in one of our own files, or None when there is no such file; InputError when it was altered."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); the file was altered, start a new run") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds {type(document).__name__}, expected an object; start a new run")
    return document


def refuse_device(path: Path) -> None:
    """InputError for a device, also behind a link: reading one may never end."""
    if path.is_char_device() or path.is_block_device():
        raise InputError(f"{path}: is a device, expected a file or a folder: copy what it gives into a file")


def make_folder(path: Path) -> None:
    """Makes the folder and its parents; InputError when the place cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot make this folder ({error.strerror}); choose one that can be written"
        ) from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{path}: the folder is read-only; choose one that can be written")


def sha256_of(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
