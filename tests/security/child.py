"""Opens hostile inputs in a process whose every audit event is watched: `python -m tests.security.child JOBS`.

JOBS holds a line of JSON for each input. The process opens a valid input of each kind first, so that whatever the
package has to import is imported; then it forks for every batch, arms the hook and prints a line of JSON for each input.
`--control` instead opens gadgets with the loaders of SB3 and PyYAML, under the same hook.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

BATCH = 400
SECONDS = 2.0
GIGABYTE = 2**30
_HARD_SECONDS = 8
# Events that say nothing of what runs: looking at frames and attributes, and comparing text. Everything else that is no
# reading of the input itself fails. None of these takes a name, a path or code out of a file.
HARMLESS = frozenset(
    {"builtins.id", "object.__getattr__", "sys._getframe", "sys._getframemodulename", "sys.unraisablehook"}
)
_LISTING = frozenset(
    {"os.listdir", "os.scandir", "pathlib.Path.glob", "glob.glob", "pathlib.Path.rglob", "glob.glob/2"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """The hook. While `folder` is set, every event is recorded that is not a reading below it."""

    def __init__(self) -> None:
        self.folder = ""
        self.events: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.folder or event in HARMLESS:
            return
        if event == "open" and self._inside(args[0]) and not args[2] & _WRITING:
            return
        if event in _LISTING and self._inside(args[0]):
            return
        self.events.append(f"{event} {args!r:.200}")

    def _inside(self, path: Any) -> bool:
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return (name + "/").startswith(self.folder + "/") and ".." not in name.split("/")


class TooSlowError(BaseException):
    """The input took far more than it may; no reader catches this."""


def _too_slow(*_: Any) -> None:
    raise TooSlowError


class Memory:
    """The peak of this process above what it had before, in bytes; its files are opened before the hook is armed."""

    def __init__(self) -> None:
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self.before = 0

    def start(self) -> None:
        """Forget the peak."""
        os.pwrite(self._clear, b"5", 0)
        self.before = self._field(b"VmHWM:")

    def above(self) -> int:
        """The peak since `start`."""
        return self._field(b"VmHWM:") - self.before

    def data(self) -> int:
        """What RLIMIT_DATA counts."""
        return self._field(b"VmData:")

    def _field(self, name: bytes) -> int:
        text = os.pread(self._status, 8192, 0)
        return int(text[text.index(name) + len(name) :].split(None, 1)[0]) * 1024


def openers(bases: Path) -> dict[str, Callable[[str], Any]]:
    """What opens each kind of input. `bases` holds the valid statistics and teacher that accompany some."""
    from policykd.exports.manifest import read_manifest
    from policykd.exports.vectors import read
    from policykd.spine.config.load import load_config, load_train_config
    from policykd.students.load import load_student
    from policykd.teachers.load import load_teacher
    from policykd.teachers.normalize import read_normalizer

    def student(path: str) -> Any:
        load_student(path, backend="numpy")
        return load_student(path)

    def export(path: str) -> Any:
        manifest = read_manifest(Path(path))
        read(Path(path), manifest.interface)
        return manifest

    return {
        "teacher": load_teacher,
        "teacher+statistics": lambda path: load_teacher(path, vec_normalize=Path(path).parent / "vecnormalize.pkl"),
        "normalizer": lambda path: read_normalizer(Path(path)),
        "student": student,
        "config": load_config,
        "train config": load_train_config,
        "export": export,
    }


def facts(found: Any) -> str:
    """Spaces and shapes of what was read; an assertion for anything that is not finite."""
    import numpy as np
    import torch

    if getattr(getattr(found, "info", None), "algo", None) == "onnx":
        batch = (np.zeros((3, 4), np.float32), np.full((300, 4), 1e6, np.float32))
        actions = [found.predict(rows.reshape(len(rows), *found.observation_space.shape))[0] for rows in batch]
        assert all(np.isfinite(action).all() for action in actions), "an action that is not finite"
        return f"{found.observation_space.shape} {found.action_space} {found.info.layers}"
    if hasattr(found, "network"):
        tensors = list(_tensors(found.network))
        assert all(torch.isfinite(part).all() for part in tensors), "a weight that is not finite"
        _acts(found)
        return f"{found.observation_space} {found.action_space} {[tuple(part.shape) for part in tensors]}"
    if hasattr(found, "to_artifact"):
        tensors, _ = found.to_artifact()
        assert all(np.isfinite(value).all() for value in tensors.values()), "a tensor that is not finite"
        return f"{found.observation_space} {found.action_space} {sorted((k, v.shape) for k, v in tensors.items())}"
    if hasattr(found, "parts"):
        return f"statistics { {name: facts(part) for name, part in found.parts.items()} }"
    if hasattr(found, "std"):
        assert np.isfinite([found.mean, found.std]).all(), "a statistic that is not finite"
        return f"statistics {found.mean.shape}"
    return type(found).__name__


def _tensors(part: Any) -> Iterator[Any]:
    """Every tensor of a network, in the order of its fields."""
    import torch

    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, tuple):
        for item in part:
            yield from _tensors(item)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors(getattr(part, field.name))


def _acts(teacher: Any) -> None:
    """Zeros of the space as an observation give finite actions, alone and in a batch, with and without exploring."""
    import numpy as np
    from gymnasium import spaces

    def zeros(space: Any, *batch: int) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: zeros(inner, *batch) for key, inner in space.spaces.items()}
        return np.zeros((*batch, *space.shape), space.dtype)

    acted, width = teacher.action_space, teacher.distribution.n_params
    masks = np.ones(width * (2 if isinstance(acted, spaces.MultiBinary) else 1), np.bool_) if teacher.masked else None
    for batch in ((), (3,)):
        seen, mask = zeros(teacher.observation_space, *batch), masks
        if batch and masks is not None:
            mask = np.tile(masks, (3, 1))
        for deterministic in (True, False):
            action, _ = teacher.predict(seen, deterministic=deterministic, action_masks=mask)
            assert np.isfinite(action).all(), "an action that is not finite"
            assert np.shape(action) == (*batch, *acted.shape), f"actions of shape {np.shape(action)}"


def attempt(job: dict[str, Any], opener: Callable[[str], Any], watch: Watch, memory: Memory) -> dict[str, Any]:
    """What came of opening one input: refused, read or escaped, the message or facts, seconds, bytes, events."""
    from policykd.spine.errors import ConfigError, InputError

    folder = str(Path(job["folder"]))
    path = folder if job["opened"] == "." else f"{folder}/{job['opened']}"
    watch.events = []
    memory.start()
    signal.setitimer(signal.ITIMER_PROF, _HARD_SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * _HARD_SECONDS)  # ends the process where C code never returns
    start, found, lines = time.process_time(), None, []
    watch.folder = folder
    try:
        found = opener(path)
        outcome, text = "read", ""
    except ConfigError as error:
        outcome, text, lines = "refused", "", error.problems
    except InputError as error:
        outcome, text, lines = "refused", "", [str(error)]
    except (Exception, TooSlowError) as error:
        outcome, text = "escaped", f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        watch.folder = ""
    seconds, peak = time.process_time() - start, memory.above()
    if outcome == "read" and found is not None:
        try:
            text = facts(found)
        except Exception as error:
            outcome, text = "escaped", f"read, but {type(error).__name__}: {error}"[:300]
    short = [line[:2000] for line in lines[:40]]
    return {"outcome": outcome, "text": text, "lines": short, "longest": max(map(len, lines), default=0),
            "seconds": seconds, "peak": peak, "events": watch.events[:5]}  # fmt: skip


def _batch(jobs: list[dict[str, Any]], table: dict[str, Callable[[str], Any]]) -> None:
    memory, watch = Memory(), Watch()
    limit = memory.data() + 2 * GIGABYTE  # a guard, so that a bomb ends the input and not the machine
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    signal.signal(signal.SIGPROF, _too_slow)
    sys.addaudithook(watch)
    for job in jobs:
        result = {"number": job["number"], **attempt(job, table[job["opener"]], watch, memory)}
        os.write(1, (json.dumps(result) + "\n").encode())


def main(jobs_file: str, work: str) -> None:
    """Warm up, then a fork for each batch, one after the other."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a printed warning reads the source of whoever warned
    jobs = [json.loads(line) for line in Path(jobs_file).read_text().splitlines()]
    table = openers(Path(work))
    os.chdir(work)
    memory, quiet = Memory(), Watch()
    signal.signal(signal.SIGPROF, _too_slow)
    for job in [job for job in jobs if job["warm"]]:
        result = attempt(job, table[job["opener"]], quiet, memory)
        os.write(1, (json.dumps({"number": job["number"], **result}) + "\n").encode())
    rest = [job for job in jobs if not job["warm"]]
    for at in range(0, len(rest), BATCH):
        pid = os.fork()
        if pid == 0:
            try:
                _batch(rest[at : at + BATCH], table)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    if sys.argv[1] == "--control":
        from tests.security.control import control

        control(Path(sys.argv[2]))
    else:
        main(sys.argv[1], sys.argv[2])
