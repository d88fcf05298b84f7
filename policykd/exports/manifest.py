"""`manifest.json`: what an export folder holds, what goes in and out, how near it must be, and where it comes from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from policykd.exports.interface import Interface, interface_from_json
from policykd.exports.targets.table import TARGETS
from policykd.exports.tolerance import Bound, Tolerance
from policykd.spine.errors import InputError, brief
from policykd.spine.files import write_json

FILE = "manifest.json"
FORMAT = 1
_ALWAYS = ("README.md", "student.safetensors", "vectors.safetensors")
_MAX_FILE, _MAX_EXPORT, _MAX_NAMES = 2**24, 2**31, 1000


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read and checked. `document` is the whole of it."""

    folder: Path
    target: str
    interface: Interface
    tolerance: Tolerance
    facts: dict[str, Any]
    document: dict[str, Any]


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of the folder but the manifest, by its name in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != FILE:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def write_manifest(folder: Path, document: dict[str, Any]) -> None:
    """The document with the sha256 of every file that lies there now."""
    write_json(folder / FILE, {"format": FORMAT, **document, "files": hashes(folder)})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export folder; InputError, in one line, where it is missing, damaged, or where a file is not
    the one that was written."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {FILE} in it; give a folder that policykd export wrote")
    document = _json(path)
    try:
        if document["format"] != FORMAT or document["target"] not in TARGETS:
            known = ", ".join(TARGETS)
            raise InputError(
                f"{path}: format {brief(document['format'])}, target {brief(document['target'])}: this version reads "
                f"{FORMAT} of {known}; use the policykd that wrote it"
            )
        interface = interface_from_json(document["interface"])
        tolerance = _tolerance(document["tolerance"], interface)
        facts, files = document["facts"], document["files"]
        if not isinstance(facts, dict) or not isinstance(files, dict) or len(files) > _MAX_NAMES:
            raise TypeError("facts and files are objects")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {brief(error)}"
        raise InputError(f"{path}: is no manifest of an export ({reason}); export the student again") from None
    listed = facts.get("files")
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(f"{path}: is no manifest of an export (facts.files); export the student again")
    missing = sorted({*listed, *_ALWAYS} - files.keys())
    if missing:
        raise InputError(f"{path}: gives no sha256 of {brief(', '.join(missing))}; export the student again")
    _check_files(folder, files)
    return Manifest(folder, document["target"], interface, tolerance, facts, document)


def tolerance_json(tolerance: Tolerance) -> dict[str, Any]:
    """The tolerance as the manifest holds it."""
    action = None if tolerance.action is None else tolerance.action.to_json()
    document = {"action": action, "outputs": tolerance.outputs.to_json(), "margin": tolerance.margin}
    return document if tolerance.state is None else document | {"state": tolerance.state.to_json()}


def _tolerance(doc: dict[str, Any], interface: Interface) -> Tolerance:
    action = None if doc["action"] is None else Bound.from_json(doc["action"])
    outputs, margin = Bound.from_json(doc["outputs"]), float(doc["margin"])
    numbers = interface.kind == "numbers"
    if (action is None) == numbers or outputs.absolute.size != interface.n_outputs or not 0 <= margin < 1e30:
        raise ValueError("the tolerance does not fit the interface")
    state = Bound.from_json(doc["state"]) if interface.state_size else None
    if state is not None and state.absolute.size != interface.state_size:
        raise ValueError("the tolerance does not fit the state")
    return Tolerance(action, outputs, margin, state)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise InputError(f"{path}: larger than {_MAX_FILE} bytes; export the student again")
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable JSON ({brief(error)}); export the student again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds a {type(document).__name__}, expected an object; export the student again")
    return document


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    total = 0
    for name, wanted in files.items():
        parts = PurePosixPath(name).parts
        odd = not name.isprintable() or len(name) > 200 or "\\" in name
        if odd or not parts or ".." in parts or PurePosixPath(name).is_absolute():
            raise InputError(f"{folder / FILE}: names the file {brief(name, 60)!r}, which does not lie in the folder")
        path = folder.joinpath(*parts)
        way = [folder.joinpath(*parts[: end + 1]) for end in range(len(parts))]
        if not path.is_file() or any(step.is_symlink() for step in way):
            raise InputError(f"{path}: missing, but {FILE} names it; export the student again")
        total += path.stat().st_size
        if total > _MAX_EXPORT:
            raise InputError(f"{folder}: more than {_MAX_EXPORT} bytes; not an export of a compact student")
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise InputError(f"{path}: its sha256 is not the one in {FILE}; it was changed, export the student again")
