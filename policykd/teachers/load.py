"""`load_teacher`: a teacher from whatever the user has, by files that are only read, or from a live model."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from policykd.spine.device import resolve_device
from policykd.spine.envargs import safe_kwargs
from policykd.spine.errors import InputError
from policykd.spine.files import refuse_device
from policykd.spine.wrappers import Wrappers, from_file
from policykd.teachers import hub
from policykd.teachers.assemble import Origin, make_teacher
from policykd.teachers.base import Teacher
from policykd.teachers.env_ids import id_in_name, is_plain, modern_id
from policykd.teachers.live import from_model, is_model, wrapped_teacher
from policykd.teachers.modelspec import UnsupportedPolicy
from policykd.teachers.normalize import read_normalizer
from policykd.teachers.sb3zip import read_zip
from policykd.teachers.trusted import load_trusted, read_once
from policykd.teachers.yamldata import read_yaml
from policykd.teachers.zoo import STATISTICS, ZooEntry, details_of, find_zip, read_entry

BUILTIN = "builtin:"
HUB = hub.PREFIX
BUILTIN_FOLDER = Path(__file__).parent / "builtin"
RUN_ZIP, RUN_RECORD, RUN_STATISTICS, RUN_CONFIG = "teacher.zip", "teacher.json", "normalizer.json", "config.yaml"
STUDENT = "student.safetensors"
_KINDS = (
    "an SB3 zip, an RL-Zoo folder, a run folder of policykd train, an .onnx file, builtin:NAME, hf:ORG/REPO, or a live "
    "model"
)
_MAX_RECORD = 2**20


class Statistics:
    """Observation statistics from `path`, or none; `given` tells no file from one that says not to normalise.

    `label` is what the note calls them, in place of the path.
    """

    def __init__(self, path: str | Path | None, label: str | None = None) -> None:
        self.given = path is not None
        self.normalizer = None if path is None else read_normalizer(Path(path))
        self.notes = (f"statistics of {label or path} are applied",) if self.normalizer else ()


@dataclass(frozen=True)
class Request:
    """What the user asked for: `source` as it was given, statistics to apply, and an id that replaces the source's."""

    source: str
    statistics: Statistics
    env_id: str | None = None
    trust: bool = False  # whether stable-baselines3's own loader may open what the safe reader does not understand

    def with_statistics(self, path: Path, label: str | None = None) -> Request:
        """The same with the statistics that the source brings, unless the user gave some."""
        return self if self.statistics.given else replace(self, statistics=Statistics(path, label))

    def origin(
        self, sha256: str, trained_on: str | None, kwargs: dict[str, Any], notes: tuple[str, ...] = ()
    ) -> Origin:
        """The teacher's origin. Keyword arguments belong to the environment of the source, and stay with it."""
        if self.env_id is None:
            env_id, mapped = modern_id(trained_on, self.source) if trained_on else (None, None)
            notes = (*notes, *([mapped] if mapped else []))
        else:
            env_id = self.env_id
            trained_on = trained_on if trained_on and is_plain(trained_on) else None
            same = trained_on is not None and env_id in (trained_on, modern_id(trained_on, self.source)[0])
            kwargs = kwargs if same else {}
        kwargs = safe_kwargs(kwargs, self.source)
        return Origin(self.source, sha256, env_id, trained_on, kwargs, (*notes, *self.statistics.notes))


def load_teacher(
    source: Any,
    *,
    env_id: str | None = None,
    device: str = "cpu",
    vec_normalize: str | Path | None = None,
    trust: bool = False,
) -> Teacher:
    """A teacher from `source`: an SB3 zip, an RL-Zoo folder, a run folder of ours, an ONNX file with its YAML,
    `builtin:NAME`, `hf:ORG/REPO[@COMMIT]`, a live SB3 model, or a Teacher, such as `make_custom_teacher` makes of any
    module or function.

    `env_id` replaces the environment that the source names; `vec_normalize` is a file of statistics
    (vecnormalize.pkl or our normalizer.json), and takes the place of those that the source brings. No file is
    unpickled, imported or evaluated, unless `trust` lets stable-baselines3's own loader, which runs what a zip holds,
    open one whose policy class or features extractor only its own code understands. Raises InputError, in one line
    that says what to do.
    """
    if isinstance(source, str | Path):
        teacher = _from_path(Request(str(source), Statistics(vec_normalize), env_id, trust))
    elif vec_normalize is not None:
        raise InputError(
            "vec_normalize is a file, but the teacher is a live object: use from_model(model, vec_normalize)"
        )
    elif isinstance(source, Teacher) or is_model(source):
        teacher = source if isinstance(source, Teacher) else from_model(source)
        if env_id not in (None, teacher.info.env_id):
            teacher = teacher.with_info(env_id=env_id, env_kwargs={})
    else:
        own = "; say what it gives with policykd.make_custom_teacher" if callable(source) else "; pass one of these"
        raise InputError(f"teacher is a {type(source).__name__}, expected {_KINDS}{own}")
    where = torch.device(resolve_device(device))
    return teacher if teacher.device == where else teacher.to(where)


def builtin_names() -> list[str]:
    """The teachers that come with the package."""
    return sorted(path.stem for path in BUILTIN_FOLDER.glob("*.zip"))


def _from_path(request: Request) -> Teacher:
    source = request.source
    if source.startswith(BUILTIN):
        return _builtin(request)
    if source.startswith(HUB):
        return _hub(request)
    path = Path(source)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be opened: no such file{_did_you_mean(path)}; expected {_KINDS}") from error
    refuse_device(path)
    if not path.is_dir():
        _refuse_student(path)
        if path.suffix.lower() == ".onnx":
            from policykd.teachers.onnxio.read import read_onnx

            return read_onnx(path, request)
        return _zip(path, request)
    if (path / RUN_ZIP).is_file():
        return _run_folder(path, request)
    _refuse_student(path)
    return _zip(find_zip(path), request)


def _refuse_student(path: Path) -> None:
    """A student's file, or the run folder of `policykd distill`, whether finished or not."""
    is_student = path.suffix == ".safetensors" if path.is_file() else (path / STUDENT).is_file()
    unfinished = (path / RUN_CONFIG).is_file() and (path / "checkpoints").is_dir()
    if is_student or unfinished:
        what = "a student" if path.is_file() else "a run folder of policykd distill, which holds a student"
        raise InputError(
            f"{path}: is {what}, expected a teacher ({_KINDS}): give the teacher it was distilled from (result.json "
            "names it), or open the student with load_student"
        )


def _zip(path: Path, request: Request) -> Teacher:
    """A zip, with the zoo's settings where they lie beside it."""
    refuse_device(path)
    details = details_of(path)
    if details is not None:
        return _zoo(path, details, request)
    named, notes = id_in_name(path.stem) if request.env_id is None else (None, ())
    beside = path.parent / STATISTICS
    if not request.statistics.given and beside.is_file():
        notes = (
            *notes,
            f"{beside} lies beside the teacher and was not applied: add --vec-normalize {beside} if it belongs",
        )
    algo = path.resolve().parent.parent.name
    return _opened(path, algo, request, lambda sha256: request.origin(sha256, named, {}, notes))


def _opened(path: Path, algo: str | None, request: Request, origin: Callable[[str], Origin]) -> Teacher:
    """The zip by the safe reader; where only its own code understands it, and the user said trust, by SB3's loader.

    `origin` gives the teacher's origin from the sha256, and refuses a wrong one before anything is opened.
    """
    try:
        spec, sha256 = read_zip(path, algo=algo)
        return make_teacher(spec, request.statistics.normalizer, origin(sha256))
    except UnsupportedPolicy:
        if not request.trust:
            raise
    raw, sha256 = read_once(path)
    known = origin(sha256)
    return wrapped_teacher(load_trusted(path, raw, sha256, algo), request.statistics.normalizer, known)


def _hub(request: Request) -> Teacher:
    """A repository of the Hub: the zoo's files, all in one folder, and a zip named ALGO-ENV."""
    found = hub.fetch(request.source)
    name, _ = id_in_name(found.zip_path.stem.partition("-")[2])
    entry = read_entry(found.zip_path, found.folder, statistics_given=request.statistics.given, env_name=name or "")
    return _entry(entry, replace(request, source=found.source), found.notes, label=found.source)


def _zoo(path: Path, details: Path, request: Request) -> Teacher:
    return _entry(read_entry(path, details, statistics_given=request.statistics.given), request)


def _entry(entry: ZooEntry, request: Request, notes: tuple[str, ...] = (), label: str | None = None) -> Teacher:
    if entry.statistics is not None:
        request = request.with_statistics(entry.statistics, f"{label}: {entry.statistics.name}" if label else None)

    def origin(sha256: str) -> Origin:
        known = request.origin(sha256, entry.env_id or None, entry.env_kwargs, (*notes, *_wrapped(entry.wrappers)))
        return replace(known, wrappers=entry.wrappers)

    return _opened(entry.zip_path, entry.algo, request, origin)


def _run_folder(folder: Path, request: Request) -> Teacher:
    """A folder that `policykd train` wrote."""
    record = _record(folder / RUN_RECORD) if (folder / RUN_RECORD).is_file() else {}
    found = [folder / name for name in (RUN_STATISTICS, STATISTICS) if (folder / name).is_file()]
    if found:
        request = request.with_statistics(found[0])
    _require_statistics(record, folder / RUN_STATISTICS, request)
    return _recorded(folder / RUN_ZIP, record, request, _wrappers(folder, record))


def _builtin(request: Request) -> Teacher:
    source, names = request.source, builtin_names()
    name = source.removeprefix(BUILTIN)
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {BUILTIN}{close[0]}? " if close else ""
        listed = ", ".join(names) or "none, since this installation has none"
        raise InputError(f"{source}: no such built-in teacher: {hint}Expected one of {listed}")
    beside = BUILTIN_FOLDER / f"{name}.{RUN_STATISTICS}"
    if beside.is_file():
        request = request.with_statistics(beside, source)
    record = _record(BUILTIN_FOLDER / f"{name}.json")
    _require_statistics(record, beside, request)
    return _recorded(BUILTIN_FOLDER / f"{name}.zip", record, request)


def _require_statistics(record: dict[str, Any], path: Path, request: Request) -> None:
    if record.get("normalized") is True and not request.statistics.given:
        raise InputError(
            f"{path}: missing, but the teacher's record says that observations were normalised: restore the file, or "
            "pass another as vec_normalize (without it the teacher acts at random)"
        )


def _wrappers(folder: Path, record: dict[str, Any]) -> Wrappers:
    """What the record says of wrappers, or the configuration of the training where an older record is silent."""
    if "wrappers" in record:
        return from_file(record["wrappers"], f"{folder / RUN_RECORD}: wrappers")
    config = folder / RUN_CONFIG
    environment = read_yaml(config).get("env") if config.is_file() else None
    named = environment.get("wrappers") if isinstance(environment, dict) else None
    return from_file(named, f"{config}: env.wrappers")


def _wrapped(wrappers: Wrappers) -> tuple[str, ...]:
    """A note of what lies around the environment."""
    names = ", ".join(f"{name} {kwargs}" if kwargs else name for name, kwargs in wrappers)
    return (f"trained behind the wrappers {names}"[:300],) if wrappers else ()


def _recorded(path: Path, record: dict[str, Any], request: Request, wrappers: Wrappers = ()) -> Teacher:
    """A zip with our JSON record: {"algo", "env_id", "env_kwargs", "sha256" of the zip, ...}."""
    algo, trained_on, kwargs = record.get("algo"), record.get("env_id"), record.get("env_kwargs")
    trained_on = trained_on if isinstance(trained_on, str) else None

    def origin(sha256: str) -> Origin:
        if record.get("sha256", sha256) != sha256:
            raise InputError(
                f"{path}: is not the file of its record (sha256 differs): restore it, or train the teacher again"
            )
        own = kwargs if isinstance(kwargs, dict) else {}
        return replace(request.origin(sha256, trained_on, own, _wrapped(wrappers)), wrappers=wrappers)

    return _opened(path, algo if isinstance(algo, str) else None, request, origin)


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
