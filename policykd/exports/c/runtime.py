"""policy.c on this machine: compiled in a folder of its own, loaded, and called over whole batches."""

from __future__ import annotations

import ctypes
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.c.gru import DRIVER as DRIVER_WITH_STATE
from policykd.exports.c.layout import Layout
from policykd.exports.graph import Array, Feed
from policykd.exports.interface import STATE_OUT, Interface
from policykd.spine.errors import InputError, brief

FILES = ("policy.h", "policy.c")
NOTHING_ALLOWED = 1
_SECONDS = 300
_DRIVER = """\
#include "policy.h"
int policy_batch(int n, const policy_input *inputs, policy_output *outputs);
int policy_bytes(int output);
int policy_batch(int n, const policy_input *inputs, policy_output *outputs)
{
    int status = 0;
    for (int i = 0; i < n; ++i) {
        status |= policy_act(inputs + i, outputs + i);
    }
    return status;
}
int policy_bytes(int output)
{
    return (int)(output ? sizeof(policy_output) : sizeof(policy_input));
}
"""
_counter = itertools.count()


@dataclass(frozen=True)
class CRuntime:
    """The compiled library, called row by row from C."""

    library: Any
    layout: Layout
    name: str

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """`action` [B, *action shape], int64 for choices, each output of the distribution [B, M], and the next state
        [B, H], float32."""
        records = self.layout.records(feed.observations, feed.mask, feed.noise)
        results = np.zeros(len(records), self.layout.output_type)
        state = _states(feed, self.layout.interface.state_size)
        between = [part.ctypes.data for part in state]
        status = self.library.policy_batch(len(records), records.ctypes.data, *between, results.ctypes.data)
        if status & NOTHING_ALLOWED:
            raise InputError(f"{self.name}: an action mask allows nothing in a choice; every choice needs one action")
        interface = self.layout.interface
        found = {member.name: np.ascontiguousarray(results[member.name]) for member in self.layout.outputs}
        action = found["action"].reshape(len(records), *interface.action.shape)
        if interface.kind != "numbers":
            action = action.astype(np.int64 if interface.kind == "choices" else interface.action.dtype)
        return found | {"action": action} | ({STATE_OUT: state[0]} if state else {})


def compiled(folder: Path, interface: Interface) -> CRuntime:
    """policy.c of that folder, built by the system's compiler; InputError where there is none, or it refuses."""
    layout = Layout(interface)
    # a library that is loaded keeps its path: another one at the same path would be the old one
    name = f"policykd_{os.getpid()}_{next(_counter)}.so"
    with tempfile.TemporaryDirectory(prefix="policykd-c-", ignore_cleanup_errors=True) as place:
        work = Path(place)
        for file in FILES:
            try:
                shutil.copyfile(folder / file, work / file)
            except OSError as error:
                raise InputError(f"{folder / file}: cannot be read ({error.strerror}); export again") from None
        (work / "driver.c").write_text(DRIVER_WITH_STATE if interface.state_size else _DRIVER, "ascii")
        _compile([*compiler(), *_flags(), "policy.c", "driver.c", "-o", name, "-lm"], work, str(folder / "policy.c"))
        library = ctypes.CDLL(str(work / name))
    size = interface.state_size
    library.policy_batch.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * (4 if size else 2)]
    found = tuple(library.policy_bytes(what) for what in range(3 if size else 2))
    expected = (layout.input_type.itemsize, layout.output_type.itemsize, 4 * size)[: len(found)]
    if found != expected:
        raise InputError(
            f"{folder / 'policy.h'}: its inputs and outputs take {_sizes(found)} bytes, but those of the "
            f"manifest {_sizes(expected)}: the files do not belong together, export again"
        )
    return CRuntime(library, layout, str(folder / "policy.c"))


def _sizes(found: tuple[int, ...]) -> str:
    return " and ".join(map(str, found))


def _states(feed: Feed, size: int) -> tuple[Array, ...]:
    """States [B, H], which are written over, and where they begin anew, [B]; nothing without a memory."""
    n = len(feed)
    if not size:
        return ()
    state = np.zeros((n, size), np.float32) if feed.state is None else np.array(feed.state, np.float32, order="C")
    start = np.zeros(n, np.uint8) if feed.start is None else np.ascontiguousarray(feed.start, np.uint8)
    return state, start


def compiler() -> list[str]:
    """The command of a C compiler: the environment's CC, or cc, gcc, clang; InputError where there is none."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise InputError(f"CC: {brief(os.environ['CC'])!r} is no command ({error}); expected one like gcc") from None
    if named:
        if shutil.which(named[0]) is None:
            raise InputError(f"CC: {brief(named[0])!r} is not found; name a C compiler, or unset CC to use cc")
        return [str(Path(str(shutil.which(named[0]))).absolute()), *named[1:]]
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name) is not None:
            return [name]
    raise InputError(
        "no C compiler is found (cc, gcc or clang), which replaying a C export needs: apt-get install gcc, or "
        "xcode-select --install; or name one in CC"
    )


def _flags() -> list[str]:
    return ["-O2", "-std=c99", "-dynamiclib" if sys.platform == "darwin" else "-shared", "-fPIC", "-I."]


def _compile(command: list[str], work: Path, name: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the user's own compiler
            command, cwd=work, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{name}: {command[0]} cannot compile it ({brief(error)}); try another one in CC") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise InputError(f"{name}: {command[0]} does not compile it ({brief(first)}); export again")
