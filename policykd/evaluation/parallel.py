"""Many episodes of several policies on all cores, with the same results on any number of them.

The seeds of each policy are cut into blocks in one way only; a block has fresh environments and draws of its own, and
is played here or in a helper process, whichever is free. Where helpers cannot be had (an environment that only this
process knows, a policy that cannot be sent), everything is played here.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import torch

from policykd.evaluation.actors import Actor, policy_actor, random_actor
from policykd.evaluation.episodes import Episodes, joined_episodes, run_episodes
from policykd.rollout.envs import EnvSpec, registered
from policykd.rollout.worker import end_with_parent
from policykd.spine.errors import InputError
from policykd.spine.stop import NeverStop
from policykd.spine.types import Policy, Progress

if TYPE_CHECKING:
    from gymnasium import Space

_BLOCK = 20  # episodes of a block, about
_SHARED_FROM = 8  # episodes from which on a job is at least two blocks: one candidate alone is judged on two cores
_AHEAD = 2  # blocks that a helper has been given: it does not wait while a block is played here
_WORTH = 4.0  # seconds of work left from which on helpers are started: they take two to start
_WAITING = 0.1


@dataclass(frozen=True)
class Player:
    """Who plays: a policy, or the random one on `space`. Block k of an evaluation draws from `seed` + k."""

    policy: Policy | None
    space: Space[Any]
    deterministic: bool
    seed: int

    def actor(self, block: int) -> Actor:
        """For one block."""
        seed = self.seed + block
        return (
            random_actor(self.space, seed)
            if self.policy is None
            else policy_actor(self.policy, self.deterministic, seed)
        )


@dataclass(frozen=True)
class Job:
    """Episodes of one player; `keep_visited` as in `run_episodes`."""

    player: Player
    seeds: range
    keep_visited: int = 0


@dataclass(frozen=True)
class _Block:
    job: int
    number: int
    seeds: range
    content: Job
    meaning: str = ""  # of the environment's id in this process

    def play(self, spec: EnvSpec, progress: Progress) -> Episodes:
        keep, share = self.content.keep_visited, len(_cut(self.content.seeds))
        actor = self.content.player.actor(self.number)
        return run_episodes(spec, actor, self.seeds, progress, keep_visited=keep, share=share)


def play(spec: EnvSpec, jobs: Sequence[Job], progress: Progress) -> list[Episodes]:
    """The episodes of each job, in the order of its seeds. Raises what `run_episodes` raises."""
    try:
        return _play(spec, jobs, progress)
    except BaseException:
        dismiss()
        raise


def _play(spec: EnvSpec, jobs: Sequence[Job], progress: Progress) -> list[Episodes]:
    known = _meaning(spec)
    blocks = [_Block(i, k, seeds, job, known) for i, job in enumerate(jobs) for k, seeds in enumerate(_cut(job.seeds))]
    done: dict[tuple[int, int], Episodes] = {}
    waiting = deque(blocks)
    team: _Team | None = None
    while waiting or (team is not None and team.busy):
        progress.check()
        left = _PACE.get(spec.id, 0.0) * sum(len(block.seeds) for block in waiting)
        if team is None and len(waiting) > 1 and (left > _WORTH or (_started() and left > _WAITING)):
            team = _Team(spec)
        if team is not None:
            team.take(waiting)
            for block, episodes in team.finished(block_until=not waiting):
                if episodes is None:  # it cannot be played there
                    waiting.append(block)
                else:
                    done[block.job, block.number] = episodes
                    progress.advance(len(block.seeds))
        if waiting:
            block = waiting.popleft()
            begin = time.perf_counter()
            done[block.job, block.number] = block.play(spec, progress)
            _PACE[spec.id] = (time.perf_counter() - begin) / len(block.seeds)
    parts = [[done[i, k] for k in range(len(_cut(job.seeds)))] for i, job in enumerate(jobs)]
    return [joined_episodes(each) for each in parts]


def _cut(seeds: range) -> list[range]:
    count = max(round(len(seeds) / _BLOCK), 2 if len(seeds) >= _SHARED_FROM else 1)
    ends = [seeds.start + len(seeds) * k // count for k in range(count + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


class _Team:
    """The helper processes while one evaluation runs."""

    def __init__(self, spec: EnvSpec) -> None:
        self._spec, self._pool, self._running = spec, _pool(), dict[Future[Episodes], _Block]()
        self._usable = self._pool is not None and _can_go(spec)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def take(self, waiting: deque[_Block]) -> None:
        """Blocks for each helper, the last ones first; one stays, to be played here."""
        while self._usable and self._pool is not None and len(waiting) > 1 and len(self._running) < _AHEAD * _helpers():
            block = waiting.pop()
            try:
                with _bare_main():
                    sent = self._pool.submit(_played, self._spec, block, torch.get_num_threads())
                    self._running[sent] = block
            except Exception:
                self._usable = False
                waiting.append(block)

    def finished(self, *, block_until: bool) -> Iterator[tuple[_Block, Episodes | None]]:
        """Blocks that ended; None for one that a helper could not play."""
        if not self._running:
            return
        ended = wait(self._running, _WAITING if block_until else 0.0, FIRST_COMPLETED).done
        for future in ended:
            block = self._running.pop(future)
            try:
                yield block, future.result()
            except Exception as error:
                self._usable = False
                if isinstance(error, BrokenProcessPool):
                    dismiss()  # new helpers next time
                yield block, None


def _played(spec: EnvSpec, block: _Block, threads: int) -> Episodes:
    """In a helper. InputError where the environment's id means another one there."""
    torch.set_num_threads(threads)
    if _meaning(spec) != block.meaning:
        raise InputError(f"env {spec.id}: registered otherwise in this process")
    return block.play(spec, _Quiet())


def _meaning(spec: EnvSpec) -> str:
    """What the id stands for here: a user may have registered it anew."""
    return "" if spec.factory is not None else repr(registered(spec))


def _can_go(spec: EnvSpec) -> bool:
    """Whether helpers can make the environment: not with workers or threads of its own, nor from the user's script."""
    return spec.backend not in ("async", "envpool") and getattr(spec.factory, "__module__", "") != "__main__"


class _Quiet(NeverStop):
    """Progress that nobody watches."""

    def advance(self, n: int = 1) -> None:
        """Nothing."""


_SHARED: list[ProcessPoolExecutor] = []
_PACE: dict[str, float] = {}  # seconds of an episode here, of the last block of each environment


def _started() -> bool:
    return bool(_SHARED)


def _helpers() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(min(cores, 16) - 1, 0)


def _pool() -> ProcessPoolExecutor | None:
    """The helpers of this process, one fewer than cores; None on a single core."""
    if not _helpers():
        return None
    if not _SHARED:
        method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
        context = mp.get_context(method)
        _SHARED.append(ProcessPoolExecutor(_helpers(), context, _prepare))
        Finalize(None, dismiss, exitpriority=0)  # atexit's turn comes late in a process that multiprocessing started
    return _SHARED[0]


def dismiss() -> None:
    """Ends the helpers at once."""
    for pool in _SHARED:
        processes = list((getattr(pool, "_processes", None) or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
    _SHARED.clear()


def _prepare() -> None:
    """A helper starts: Ctrl-C reaches every process of a terminal, and the parent decides; it ends with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


@contextmanager
def _bare_main() -> Iterator[None]:
    """A process that is started inside does not run the user's script again, as multiprocessing otherwise makes it do
    (to find functions that are defined there; nothing that is sent here is)."""
    own = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = own
