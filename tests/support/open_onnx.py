"""Opens every file of tests/security/onnx_inputs.py in the current folder, watched: python open_onnx.py SEED.

Prints a list of {name, expected, outcome, message, seconds, touched} as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from policykd import InputError, load_teacher
from tests.security.onnx_inputs import CARD, onnx_inputs
from tests.support.onnx_files import write

_QUIET = (
    "object.",
    "builtins.id",
    "compile",
    "marshal.",
    "code.",
    "sys._",
    "import",
    "os.listdir",
    "os.scandir",
    "ctypes.",
    "gc.",
)
touched: list[str] = []


def watch(event: str, args: tuple[Any, ...]) -> None:
    """Notes every opening of a file outside the folder, every writing, and every other act that Python reports."""
    if event == "open":
        path, mode, flags = args
        writes = any(letter in str(mode) for letter in "wax+") or (mode is None and int(flags or 0) & 3)
        here = isinstance(path, str) and Path(path).absolute().parent == Path.cwd()
        if writes or not here:
            touched.append(f"open {path!r} {mode}")
    elif not event.startswith(_QUIET):
        touched.append(event)


def attempt(path: Path) -> tuple[str, str]:
    """What opening and acting comes to."""
    try:
        teacher = load_teacher(path)
        for observation in (np.zeros((3, 4), np.float32), np.full((300, 4), 1e6, np.float32)):
            action, _ = teacher.predict(observation)
            assert action.shape == observation.shape[:1]
    except InputError as error:
        return "refused", str(error)
    except BaseException as error:
        return "raised", f"{type(error).__name__}: {error}"
    return "opened", ""


def main(seed: int) -> None:
    files = [(write(Path(f"{n}.onnx"), data, CARD), expected)
             for n, (_, data, expected) in enumerate(onnx_inputs(seed))]  # fmt: skip
    names = [name for name, _, _ in onnx_inputs(seed)]
    attempt(files[0][0])  # imports everything
    sys.addaudithook(watch)
    report = []
    for name, (path, expected) in zip(names, files, strict=True):
        begin, before = time.process_time(), len(touched)
        outcome, message = attempt(path)
        seconds = time.process_time() - begin
        report.append({"name": name, "expected": expected, "outcome": outcome, "message": message, "seconds": seconds,
                       "touched": touched[before:]})  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]))
