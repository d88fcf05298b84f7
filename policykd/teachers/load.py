"""`load_teacher`: a teacher from whatever the user has, by files that are only read, or from a live model."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import torch

from policykd.spine.errors import InputError
from policykd.teachers.assemble import Origin, make_teacher
from policykd.teachers.base import Teacher
from policykd.teachers.env_ids import id_in_name, modern_id
from policykd.teachers.live import from_model, is_model
from policykd.teachers.normalize import read_normalizer
from policykd.teachers.sb3zip import read_zip
from policykd.teachers.zoo import STATISTICS, details_of, find_zip, read_entry

BUILTIN = "builtin:"
BUILTIN_FOLDER = Path(__file__).parent / "builtin"
RUN_ZIP, RUN_RECORD, RUN_STATISTICS = "teacher.zip", "teacher.json", "normalizer.json"
_KINDS = "an SB3 zip, an RL-Zoo folder, a run folder of policykd train, builtin:NAME, or a live model"
_MAX_RECORD = 2**20


class Statistics:
    """Observation statistics from `path`, or none; `given` tells no file from one that says not to normalise.

    `label` is what the note calls them, in place of the path.
    """

    def __init__(self, path: str | Path | None, label: str | None = None) -> None:
        self.given = path is not None
        self.normalizer = None if path is None else read_normalizer(Path(path))
        self.notes = (f"statistics of {label or path} are applied",) if self.normalizer else ()


def load_teacher(
    source: Any, *, env_id: str | None = None, device: str = "cpu", vec_normalize: str | Path | None = None
) -> Teacher:
    """A teacher from `source`: an SB3 zip, an RL-Zoo folder, a run folder of ours, `builtin:NAME`, or a live SB3 model.

    `env_id` replaces the environment that the source names; `vec_normalize` is a file of statistics
    (vecnormalize.pkl or our normalizer.json), and takes the place of those that the source brings. No file is
    unpickled, imported or evaluated. Raises InputError, in one line that says what to do.
    """
    if isinstance(source, str | Path):
        teacher = _from_path(str(source), Statistics(vec_normalize))
    elif vec_normalize is not None:
        raise InputError(
            "vec_normalize is a file, but the teacher is a live object: use from_model(model, vec_normalize)"
        )
    elif isinstance(source, Teacher):
        teacher = source
    elif is_model(source):
        teacher = from_model(source)
    else:
        raise InputError(f"teacher is a {type(source).__name__}, expected {_KINDS}")
    if env_id is not None:
        teacher = teacher.with_info(env_id=env_id)
    return teacher if teacher.device == torch.device(device) else teacher.to(device)


def builtin_names() -> list[str]:
    """The teachers that come with the package."""
    return sorted(path.stem for path in BUILTIN_FOLDER.glob("*.zip"))


def _from_path(source: str, statistics: Statistics) -> Teacher:
    if source.startswith(BUILTIN):
        return _builtin(source, statistics)
    if source.startswith("hf:"):
        raise InputError(f"{source}: Hugging Face is not supported yet: download the file and pass its path")
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be opened: no such file{_did_you_mean(path)}; expected {_KINDS}") from error
    if path.is_dir():
        return _run_folder(path, statistics) if (path / RUN_ZIP).is_file() else _zip(find_zip(path), source, statistics)
    return _zip(path, source, statistics)


def _zip(path: Path, source: str, statistics: Statistics) -> Teacher:
    """A zip, with the zoo's settings where they lie beside it."""
    details = details_of(path)
    if details is not None:
        return _zoo(path, details, source, statistics)
    spec, sha256 = read_zip(path, algo=path.resolve().parent.parent.name)
    env_id, notes = id_in_name(path.stem, source)
    beside = path.parent / STATISTICS
    if not statistics.given and beside.is_file():
        notes = (
            *notes,
            f"{beside} lies beside the teacher and was not applied: pass it as vec_normalize if it belongs",
        )
    origin = Origin(source, sha256, env_id, path.stem if env_id else None, {}, (*notes, *statistics.notes))
    return make_teacher(spec, statistics.normalizer, origin)


def _zoo(path: Path, details: Path, source: str, statistics: Statistics) -> Teacher:
    entry = read_entry(path, details, statistics_given=statistics.given)
    spec, sha256 = read_zip(path, algo=entry.algo)
    env_id, mapped = modern_id(entry.env_id, source)
    if entry.statistics is not None:
        statistics = Statistics(entry.statistics)
    notes = (*([mapped] if mapped else []), *statistics.notes)
    origin = Origin(source, sha256, env_id, entry.env_id, entry.env_kwargs, notes)
    return make_teacher(spec, statistics.normalizer, origin)


def _run_folder(folder: Path, statistics: Statistics) -> Teacher:
    """A folder that `policykd train` wrote."""
    record = _record(folder / RUN_RECORD) if (folder / RUN_RECORD).is_file() else {}
    found = [folder / name for name in (RUN_STATISTICS, STATISTICS) if (folder / name).is_file()]
    if found and not statistics.given:
        statistics = Statistics(found[0])
    elif record.get("normalized") is True and not statistics.given:
        raise InputError(
            f"{folder / RUN_STATISTICS}: missing, but {folder / RUN_RECORD} says that observations were normalised: "
            "restore the file, or pass another as vec_normalize"
        )
    return _recorded(folder / RUN_ZIP, record, str(folder), statistics)


def _builtin(source: str, statistics: Statistics) -> Teacher:
    name, names = source.removeprefix(BUILTIN), builtin_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {BUILTIN}{close[0]}? " if close else ""
        listed = ", ".join(names) or "none, since this installation has none"
        raise InputError(f"{source}: no such built-in teacher: {hint}Expected one of {listed}")
    beside = BUILTIN_FOLDER / f"{name}.{RUN_STATISTICS}"
    if beside.is_file() and not statistics.given:
        statistics = Statistics(beside, source)
    return _recorded(BUILTIN_FOLDER / f"{name}.zip", _record(BUILTIN_FOLDER / f"{name}.json"), source, statistics)


def _recorded(path: Path, record: dict[str, Any], source: str, statistics: Statistics) -> Teacher:
    """A zip with our JSON record: {"algo", "env_id", "env_kwargs", "sha256" of the zip, ...}."""
    algo, trained_on, kwargs = record.get("algo"), record.get("env_id"), record.get("env_kwargs")
    spec, sha256 = read_zip(path, algo=algo if isinstance(algo, str) else None)
    if record.get("sha256", sha256) != sha256:
        raise InputError(
            f"{path}: is not the file of its record (sha256 differs): restore it, or train the teacher again"
        )
    env_id, mapped = modern_id(trained_on, source) if isinstance(trained_on, str) else (None, None)
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    notes = (*([mapped] if mapped else []), *statistics.notes)
    origin = Origin(source, sha256, env_id, trained_on if isinstance(trained_on, str) else None, kwargs, notes)
    return make_teacher(spec, statistics.normalizer, origin)


def _record(path: Path) -> dict[str, Any]:
    remedy = "expected the teacher's JSON record: restore the file"
    try:
        if path.stat().st_size > _MAX_RECORD:
            raise InputError(f"{path}: more than {_MAX_RECORD} bytes, {remedy}")
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no readable JSON ({type(error).__name__}), {remedy}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: holds a {type(record).__name__}, {remedy}")
    return record


def _did_you_mean(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return f" (nor a folder {path.parent})"
    close = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
