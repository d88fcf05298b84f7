"""What a worker process of `policykd.rollout.workers` does: it steps a block of environments when it is told to.

Messages are bytes: to a worker `s` and the dtype of the actions (step), `r` and a JSON list of [slot, seed] (start new
episodes), or nothing (end); from it `k` (done), or `i` or `n` and the line of an InputError or NumericsError. Arrays
lie in memory that all processes share.
"""

from __future__ import annotations

import json
import math
import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from policykd.rollout.envs import EnvSpec
from policykd.rollout.vecenv import SyncEnvs
from policykd.spine.errors import InputError, NumericsError, brief
from policykd.spine.types import Array

Fields = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Layout:
    """The shared memory: `fields` by name, each a shape [N, ...] and a dtype; behind them room for actions [N, *A] of
    any numeric dtype."""

    fields: Fields
    action_shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._begin() + 8 * math.prod(self.action_shape)

    def views(self, memory: Any) -> dict[str, Array]:
        """An array for each field."""
        found, begin = {}, 0
        for name, (shape, dtype) in self.fields.items():
            found[name] = np.frombuffer(memory, dtype, math.prod(shape), begin).reshape(shape)
            begin += _rounded(math.prod(shape) * np.dtype(dtype).itemsize)
        return found

    def actions(self, memory: Any, dtype: str) -> Array:
        """The actions [N, *A] in this dtype."""
        return np.frombuffer(memory, dtype, math.prod(self.action_shape), self._begin()).reshape(self.action_shape)

    def _begin(self) -> int:
        return sum(_rounded(math.prod(shape) * np.dtype(dtype).itemsize) for shape, dtype in self.fields.values())


def _rounded(size: int) -> int:
    return -(-size // 64) * 64


def serve(connection: Connection, memory: Any, layout: Layout, spec: EnvSpec, slots: Sequence[int]) -> None:
    """Makes the environments of `slots` and obeys until the other side ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    end_with_parent()
    try:
        envs = SyncEnvs(spec, len(slots), lambda _: None)
        _answer(connection, b"k")
        views = {name: view[slots[0] : slots[-1] + 1] for name, view in layout.views(memory).items()}
        _put(views, observation=envs.observation, mask=envs.mask)
        while message := connection.recv_bytes():
            _obey(message, envs, views, layout.actions, (memory, slots))
            _answer(connection, b"k")
    except (EOFError, BrokenPipeError):
        return
    except NumericsError as error:
        _answer(connection, b"n" + str(error).encode())
    except InputError as error:
        _answer(connection, b"i" + str(error).encode())
    except Exception as error:
        line = f"env {spec.id}: a worker process raised {type(error).__name__}: {brief(error)}; try env.backend=sync"
        _answer(connection, b"i" + line.encode())


def end_with_parent() -> None:
    """A thread that ends this process when its parent is gone, even in a step that hangs."""
    parent = mp.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _obey(message: bytes, envs: SyncEnvs, views: dict[str, Array], actions: Any, place: tuple[Any, Any]) -> None:
    if message[:1] == b"r":
        envs.start([(slot, seed) for slot, seed in json.loads(message[1:])])
        _put(views, observation=envs.observation, mask=envs.mask)
        return
    memory, slots = place
    step = envs.step(actions(memory, message[1:].decode())[slots[0] : slots[-1] + 1])
    _put(views, observation=step.observation, reward=step.reward, done=step.done, success=step.success, mask=step.mask)
    if step.ends is not None:
        views["terminated"][step.done] = step.ends.terminated


def _put(views: dict[str, Array], **values: Array | None) -> None:
    for name, value in values.items():
        if value is not None:
            views[name][...] = value


def _answer(connection: Connection, message: bytes) -> None:
    try:
        connection.send_bytes(message)
    except (BrokenPipeError, OSError):
        raise EOFError from None
