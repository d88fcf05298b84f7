"""Labelled data on disk: a folder of shards in safetensors, and index.json, which says what they are.

docs/methods/offline.md describes the format. A reader trusts nothing in it: what the data is about must be what its
own teacher is about, each file has the size and the sha256 that the index gives, and every array the shape and dtype
that follow from the reader's own spaces. Nothing is executed, and no name in the index leads to another file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.rollout.collect import TEACHER, Rollout
from policykd.spine.checkpoint import Tensors, pack, unpack
from policykd.spine.errors import InputError, brief
from policykd.spine.files import read_json, sha256_of, write_atomic, write_json

INDEX = "index.json"
_FORMAT = 1
_MOST_INDEX = 16 * 2**20  # bytes
_HEADER = 16 * 2**10  # of a safetensors file with a dozen arrays, at most
MOST_SHARD = 4 * 2**30  # bytes: a shard lies in memory while it is collected, and while it is read

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Columns by name: the shape of one row, and the dtype."""


def layout_of(observation: tuple[tuple[int, ...], str], action: tuple[tuple[int, ...], str], sizes: Sizes) -> Layout:
    """The columns of a shard; `last` has a row for each episode that ended, all others one for each step."""
    columns: Layout = {
        "observation": observation,
        "params": ((sizes.params,), "float32"),
        "action": action,
        "reward": ((), "float64"),
        "terminated": ((), "bool"),
        "truncated": ((), "bool"),
        "start": ((), "bool"),
        "actor": ((), "int8"),
        "last": observation,
    }
    return columns | ({"mask": ((sizes.choices,), "bool")} if sizes.choices else {})


@dataclass(frozen=True)
class Sizes:
    """Parameters of the teacher's distribution, and choices of an action mask (0 without masks)."""

    params: int
    choices: int = 0


def table(rollout: Rollout, params: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The columns of a whole rollout, one environment after the other, each in the order of its steps."""
    steps = rollout.steps
    assert steps is not None
    keep = _turned(rollout.acting)
    flat = np.flatnonzero(keep.reshape(-1))

    def rows(values: NDArray[Any]) -> NDArray[Any]:
        turned = _turned(values)
        return turned.reshape(keep.size, *turned.shape[2:])[flat]

    terminated = np.zeros_like(steps.done)
    terminated[steps.done] = steps.terminated
    start = rollout.start.copy()
    start[0] = True  # every shard starts at a reset
    t, slot = np.nonzero(steps.done)
    found = {
        "observation": rows(rollout.observation),
        "params": rows(params),
        "action": rows(steps.action),
        "reward": rows(steps.reward),
        "terminated": rows(terminated),
        "truncated": rows(steps.done & ~terminated),
        "start": rows(start),
        "actor": rows(np.minimum(rollout.actor, 0)).astype(np.int8),
        "last": steps.last[np.lexsort((t, slot))],
    }
    return found if rollout.mask is None else {**found, "mask": rows(rollout.mask)}


def returns_of(columns: Tensors) -> NDArray[np.float64]:
    """Returns [K] of the episodes that ended inside the shard."""
    begins = np.flatnonzero(columns["start"])
    ended = np.logical_or.reduceat(columns["terminated"] | columns["truncated"], begins)
    return np.asarray(np.add.reduceat(columns["reward"], begins)[ended])


class Stored:
    """A folder of shards; `document` is its index."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self.path, self.document = path, document

    @property
    def shards(self) -> list[dict[str, Any]]:
        """What the index says of each shard."""
        found: list[dict[str, Any]] = self.document["shards"]
        return found

    @property
    def rows(self) -> list[int]:
        """Labelled states of each shard."""
        return [shard["rows"] for shard in self.shards]

    def add(self, columns: Tensors, facts: dict[str, Any]) -> None:
        """Writes the next shard, and then the index that knows it; `facts` of it go into the index."""
        data, index = pack(columns), len(self.shards)
        write_atomic(self._file(index), data)
        sizes = {"rows": len(columns["reward"]), "episodes": len(columns["last"]), "bytes": len(data)}
        self.shards.append({"file": self._file(index).name, **sizes, "sha256": sha256_of(data), **facts})
        self.save()

    def save(self) -> None:
        """Writes the index."""
        write_json(self.path / INDEX, self.document)

    def read(self, index: int, layout: Layout) -> dict[str, NDArray[Any]]:
        """The columns of a shard; InputError where it is not what the index and `layout` say."""
        path, said = self._file(index), self.shards[index]
        try:
            size = path.stat().st_size
        except OSError:
            raise InputError(f"{path}: missing, but {INDEX} names it; collect the data again") from None
        expected = sum(
            (said["episodes"] if name == "last" else said["rows"]) * row_bytes(column)
            for name, column in layout.items()
        )
        if size != said["bytes"] or not expected <= size <= expected + _HEADER or size > MOST_SHARD:
            raise InputError(
                f"{path}: has {size} bytes, expected {said['bytes']} and about {expected} for {said['rows']} states; "
                "it was altered, collect the data again"
            )
        data = path.read_bytes()
        if sha256_of(data) != said["sha256"]:
            raise InputError(f"{path}: its sha256 is not the one in {INDEX}; it was altered, collect the data again")
        columns = unpack(path, data)
        for name, (shape, dtype) in layout.items():
            rows = said["episodes"] if name == "last" else said["rows"]
            found = columns.get(name)
            if found is None or found.shape != (rows, *shape) or str(found.dtype) != dtype:
                raise InputError(
                    f"{path}: {name} is {'missing' if found is None else f'{found.dtype} {found.shape}'}, expected "
                    f"{dtype} {(rows, *shape)}; collect the data again"
                )
        _check_values(path, columns)
        return columns

    def _file(self, index: int) -> Path:
        return self.path / f"shard-{index:04d}.safetensors"


def row_bytes(column: tuple[tuple[int, ...], str]) -> int:
    """Of one row of a column."""
    return int(np.prod(column[0], dtype=np.int64)) * np.dtype(column[1]).itemsize


def open_stored(path: Path) -> Stored:
    """The data in a folder, complete or not; InputError where it is none."""
    index = path / INDEX
    if not index.is_file():
        raise InputError(f"{path}: no labelled data (no {INDEX} in it); give a folder that policykd collect wrote")
    if index.stat().st_size > _MOST_INDEX:
        raise InputError(f"{index}: {index.stat().st_size} bytes, expected at most {_MOST_INDEX}; is it an index?")
    try:
        document = read_json(index) or {}
    except RecursionError:
        raise InputError(f"{index}: lists within lists, too deep to read; is it an index?") from None
    if document.get("kind") != "labelled data" or document.get("format") != _FORMAT:
        kind, number = brief(document.get("kind"), 40), brief(document.get("format"), 40)
        raise InputError(f"{index}: found {kind} of format {number}, expected labelled data of format {_FORMAT}")
    shards = document.get("shards")
    whole = isinstance(document.get("about"), dict) and type(document.get("complete")) is bool
    if not whole or not isinstance(shards, list) or not all(map(_is_entry, shards)):
        raise InputError(f"{index}: incomplete; the file was altered, collect the data again")
    return Stored(path, document)


def new_stored(path: Path, about: dict[str, Any], plan: dict[str, Any]) -> Stored:
    """An empty folder of data; `plan` says how it is made."""
    import policykd

    head = {"format": _FORMAT, "kind": "labelled data", "policykd": policykd.__version__}
    return Stored(path, {**head, "complete": False, "about": about, "plan": plan, "shards": []})


def refuse_other(stored: Stored, about: dict[str, Any]) -> None:
    """InputError where the data is about another teacher, or other spaces, than `about`."""
    theirs = stored.document["about"]
    teacher = theirs.get("teacher")
    mine = about["teacher"]
    voices, own = theirs.get("ensemble"), about.get("ensemble")
    same_files = isinstance(teacher, dict) and teacher.get("sha256") == mine["sha256"]
    if same_files and own is not None and voices != own:
        raise InputError(
            f"{stored.path}: was labelled by these teachers as {brief(voices, 200)}, expected {brief(own, 200)}: give "
            "the data's ensemble.how, ensemble.weights and ensemble.q_temperatures"
        )
    if not isinstance(teacher, dict) or teacher.get("fingerprint") != mine["fingerprint"]:
        found = brief(teacher.get("sha256") if isinstance(teacher, dict) else teacher, 16)
        raise InputError(
            f"{stored.path}: was labelled by another teacher (sha256 {found}) than {mine['sha256'][:13]}...: give that "
            "teacher with --teacher, and the statistics it had with --vec-normalize"
        )
    for name, value in about.items():
        if name not in ("teacher", "env", "q_temperature") and theirs.get(name) != value:
            raise InputError(
                f"{stored.path}: its {name.replace('_', ' ')} is {brief(theirs.get(name), 80)}, expected "
                f"{brief(value, 80)}; give the environment and the wrappers with which it was collected"
            )


def _turned(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.swapaxes(values, 0, 1))


def _is_entry(entry: Any) -> bool:
    def count(name: str) -> bool:
        return type(entry.get(name)) is int and 0 <= entry[name] < 2**40

    if not isinstance(entry, dict) or not all(map(count, ("rows", "episodes", "bytes"))) or not entry["rows"]:
        return False
    mean = entry.get("return", "")  # null where no episode ended
    return isinstance(entry.get("sha256"), str) and (mean is None or (type(mean) is float and math.isfinite(mean)))


def _check_values(path: Path, columns: Tensors) -> None:
    """InputError for labels or observations that are no numbers; a masked action's logit may be -inf."""
    params, seen = columns["params"], columns["observation"]
    odd = np.isnan(params) | (params == np.inf) | (np.isneginf(params) & ("mask" not in columns))
    if odd.any() or (seen.dtype.kind == "f" and not np.isfinite(seen).all()):
        what = "params" if odd.any() else "observation"
        raise InputError(f"{path}: {what} holds numbers that are not finite; collect the data again")
    if not columns["start"][0] or (columns["actor"] < TEACHER).any():
        raise InputError(f"{path}: does not begin with an episode, or names nobody as actor; collect the data again")
