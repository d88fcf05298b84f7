"""Environments in worker processes: what `SyncEnvs` does, each worker with a block of them, one message a step.

Equal seeds give equal results whatever the number of workers. Processes are started by forkserver (spawn where there
is none), never by fork, which copies torch's threads half. A worker that dies, raises or does not answer in time ends
all of them, with one line that says why.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing as mp
import os
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import connection
from typing import Any, NoReturn

import numpy as np

from policykd.rollout.envs import EnvSpec, make_env
from policykd.rollout.masks import mask_branches
from policykd.rollout.vecenv import Bools, Ends, Step
from policykd.rollout.worker import Layout, serve
from policykd.spine.errors import InputError, NumericsError, brief
from policykd.spine.packing import packing_of
from policykd.spine.types import Array

_STARTING = 60.0  # seconds at least until a worker has imported what it needs and made its environments
_ENDING = 2.0  # seconds in which a worker may end by itself
_TOGETHER = 1.0  # seconds for other workers' errors of the same step
_MODULE = "policykd.rollout.worker"


class AsyncEnvs:
    """Single environments in worker processes; each episode has a seed of its own (`BatchEnv`).

    `next_seed(slot)` as in `SyncEnvs`. InputError where the description cannot be sent to another process, or a worker
    dies, raises, or does not answer within `spec.step_timeout` seconds; NumericsError for a NaN. `close` ends them all.
    """

    def __init__(
        self, spec: EnvSpec, n_envs: int, next_seed: Callable[[int], int | None], workers: int | None = None
    ) -> None:
        env = make_env(spec)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        env.close()
        self.n_envs, self._spec, self._next_seed = n_envs, spec, next_seed
        packing = spec.packing or packing_of(self.observation_space)
        fields: dict[str, tuple[tuple[int, ...], str]] = {
            "observation": ((n_envs, *packing.shape), packing.dtype),
            "reward": ((n_envs,), "float64"),
            "done": ((n_envs,), "bool"),
            "terminated": ((n_envs,), "bool"),
            "success": ((n_envs,), "float64"),
        }
        if spec.masked:
            fields["mask"] = ((n_envs, sum(mask_branches(self.action_space))), "bool")
        layout = Layout(fields, (n_envs, *(self.action_space.shape or ())))
        self._context = _context()
        self._memory = self._context.RawArray("b", layout.size)
        self._layout, self._views = layout, layout.views(self._memory)
        self.mask: Bools | None = np.ones(fields["mask"][0], np.bool_) if spec.masked else None
        self._acting, self._seeds = np.ones(n_envs, np.bool_), [0] * n_envs
        count = min(workers or _cores(), n_envs)
        self._slots = [list(map(int, block)) for block in np.array_split(np.arange(n_envs), count)]
        self._processes: list[Any] = []
        self._connections: list[Any] = []
        try:
            for block in self._slots:
                self._launch(block)
            self._gather(range(count), max(_STARTING, spec.step_timeout), "being made")
        except BaseException:
            self.close(now=True)
            raise

    def reset(self, seeds: Sequence[int]) -> Array:
        self._start(list(enumerate(seeds)))
        self._acting[:] = True
        self._read_mask()
        return self._views["observation"].copy()

    def step(self, actions: Array) -> Step:
        self._layout.actions(self._memory, actions.dtype.str)[...] = actions
        asked = [index for index, block in enumerate(self._slots) if self._acting[block[0] : block[-1] + 1].any()]
        self._tell(asked, b"s" + actions.dtype.str.encode())
        live, views = self._acting.copy(), self._views
        done = views["done"] & live  # a block that was not asked keeps what it said before
        reward, success = np.where(live, views["reward"], 0.0), np.where(live, views["success"], np.nan)
        ends = Ends(views["terminated"][done], views["observation"][done]) if done.any() else None
        restarted = []
        for slot in np.flatnonzero(done).tolist():
            seed = self._next_seed(slot)
            self._acting[slot] = seed is not None
            if seed is not None:
                restarted.append((slot, seed))
        if restarted:
            self._start(restarted)
        self._read_mask()
        mask = None if self.mask is None else self.mask.copy()
        return Step(views["observation"].copy(), reward, done, self._acting.copy(), success, mask, ends)

    def close(self, *, now: bool = False) -> None:
        """Ends every worker, `now` or when it has finished what it does; none is left."""
        for each in self._connections:
            with contextlib.suppress(OSError):
                each.send_bytes(b"")
        until = time.monotonic() + (0.0 if now else _ENDING)
        for process in self._processes:
            process.join(max(until - time.monotonic(), 0.0))
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()
        for each in self._connections:
            each.close()
        self._processes, self._connections = [], []

    def _launch(self, block: list[int]) -> None:
        here, there = self._context.Pipe()
        arguments = (there, self._memory, self._layout, self._spec, block)
        process = self._context.Process(target=serve, args=arguments, daemon=True, name=f"policykd-{block[0]}")
        self._connections.append(here)
        try:
            process.start()
        except Exception as error:
            reason = f"{type(error).__name__}: {brief(error)}"
            raise InputError(
                f"env {self._spec.id}: cannot be sent to a worker process ({reason}); define its function at the top "
                "of a module, or use env.backend=sync"
            ) from None
        finally:
            there.close()
        self._processes.append(process)

    def _start(self, episodes: Iterable[tuple[int, int]]) -> None:
        """New episodes (slot, seed)."""
        mine: dict[int, list[tuple[int, int]]] = {}
        for slot, seed in episodes:
            self._seeds[slot] = seed
            index = next(i for i, block in enumerate(self._slots) if slot <= block[-1])
            mine.setdefault(index, []).append((slot - self._slots[index][0], int(seed)))
        for index, pairs in mine.items():
            self._send(index, b"r" + json.dumps(pairs).encode())
        self._gather(mine, self._spec.step_timeout, "resetting")

    def _tell(self, asked: Sequence[int], message: bytes) -> None:
        for index in asked:
            self._send(index, message)
        self._gather(asked, self._spec.step_timeout, "stepping")

    def _send(self, index: int, message: bytes) -> None:
        try:
            self._connections[index].send_bytes(message)
        except OSError:
            self._died(index, "stepping")

    def _gather(self, asked: Iterable[int], seconds: float, doing: str) -> None:
        """Waits for an answer of each worker; ends them all where one does not come or is an error. Of several errors
        that come together, the first worker's is told, as one process would."""
        waiting = {self._connections[index]: index for index in asked}
        until, errors = time.monotonic() + seconds, dict[int, Exception]()
        while waiting:
            ready = connection.wait(list(waiting), max(until - time.monotonic(), 0.0))
            if errors and not ready:
                break
            if not ready:
                slow = self._name(sorted(waiting.values())[0])
                self._fail(
                    f"{slow} gave no answer within {seconds:g} s while {doing}: mend the environment, or raise "
                    "env.step_timeout"
                )
            for each in ready:
                index = waiting.pop(each)
                error = self._hear(index, doing)
                if error is not None:
                    until = min(until, time.monotonic() + _TOGETHER)
                    errors[index] = error
        if errors:
            self.close(now=True)
            raise errors[min(errors)]

    def _hear(self, index: int, doing: str) -> Exception | None:
        """The error that a worker answers with, if it does."""
        try:
            answer = self._connections[index].recv_bytes()
        except (EOFError, OSError):
            self._died(index, doing)
        if answer == b"k":
            return None
        return (NumericsError if answer[:1] == b"n" else InputError)(answer[1:].decode())

    def _died(self, index: int, doing: str) -> NoReturn:
        process = self._processes[index]
        process.join(_ENDING)
        code = process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        hint = "look for what ended it (memory?), or use env.backend=sync to see where"
        if doing == "being made":
            hint = "in a script of your own, start work under if __name__ == '__main__', or use env.backend=sync"
        self._fail(f"{self._name(index)} ended {how} while {doing}: {hint}")

    def _fail(self, line: str) -> NoReturn:
        self.close(now=True)
        raise InputError(line)

    def _name(self, index: int) -> str:
        block = self._slots[index]
        seeds = brief(", ".join(str(self._seeds[slot]) for slot in block if self._acting[slot]), 60)
        return f"env {self._spec.id}: a worker process with {len(block)} environments (seeds {seeds})"

    def _read_mask(self) -> None:
        if self.mask is not None:
            self.mask[...] = self._views["mask"]


def _cores() -> int:
    """How many this process may use."""
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def _context() -> Any:
    """How processes are started. The server that forks them has imported the worker's modules, and nothing of torch."""
    if "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([_MODULE, "gymnasium"])
    return context
