"""What one action costs on the exported C, compiled and timed here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.graph import Graph
from policykd.exports.interface import interface_of
from policykd.exports.of_student import graph_of
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.learn.setup.session import Session
from policykd.search.grid import blank, graph_if_any
from policykd.search.standing import Candidate
from policykd.spine.errors import InputError
from policykd.students.spec import Activation, MemberSpec
from policykd.students.student import Student
from policykd.teachers.base import Teacher

_OBSERVATIONS, _CALLS = 64, 200


class Latencies:
    """Microseconds of each architecture, measured once, with random observations; kept with the run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, float | None] = session.folder.load_facts("latency") or {}

    def of(self, candidate: Candidate) -> float | None:
        """Median of one action; None where there is no C compiler, where C cannot hold the student, or where its kind
        is not exported."""
        return self._remembered(candidate.spec, candidate.student)

    def within(self, specs: Sequence[MemberSpec], most: float) -> list[MemberSpec]:
        """Those of the architectures, smallest first, whose action takes at most `most` microseconds: of each depth up
        to the first that takes longer. At least the smallest, which was found fast enough when the run began."""
        config, found, slow = self._session.config.student, list[MemberSpec](), list[MemberSpec]()
        for spec in specs:
            self._session.work.check()
            if any(smaller.within(spec) for smaller in slow):
                continue
            student = blank(self._session.teacher, spec, config.activation, config.keys)
            measured = self._remembered(spec, student)
            if measured is not None and measured <= most:
                found.append(spec)
            else:
                slow.append(spec)
        return found or list(specs[:1])

    def _remembered(self, spec: MemberSpec, student: Student) -> float | None:
        name = "x".join(map(str, spec.architecture))
        if name not in self._known:
            graph = graph_if_any(student.to("cpu"))
            self._known[name] = None if graph is None else measured_us(graph)
            self._session.folder.save_facts("latency", self._known)
        return self._known[name]


def refuse_impossible(
    teacher: Teacher, spec: MemberSpec, activation: Activation, most: float, keys: Sequence[str] | None = None
) -> None:
    """InputError where even this architecture takes longer than `most` microseconds, or cannot be measured."""
    try:
        graph = graph_of(blank(teacher, spec, activation, keys))
    except InputError as error:
        raise InputError(
            f"search.max_us: is measured on exported C, and nothing can be exported here ({error}): leave it out, or "
            "bound search.max_params"
        ) from None
    measured = measured_us(graph)
    if measured is None:
        raise InputError("search.max_us: needs a C compiler to measure with: install gcc or clang, or leave it out")
    if measured > most:
        raise InputError(
            f"search.max_us: found {most:g}, but an action of the smallest student takes {measured:.3g} us in C here: "
            "raise the limit"
        )


def measured_us(graph: Graph) -> float | None:
    """Median microseconds of one action of the exported C (-O2), called from C; None where it cannot be compiled."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            c99.write(graph, Path(folder), Options())
            runtime: Any = c99.load(Path(folder), interface_of(graph), {})
    except InputError:
        return None
    rng = np.random.default_rng(0)
    seen = tuple(
        rng.integers(0, 2, (_OBSERVATIONS, *port.shape)).astype(port.dtype)
        if np.dtype(port.dtype).kind in "iub"
        else rng.standard_normal((_OBSERVATIONS, *port.shape)).astype(port.dtype)
        for port in graph.ports
    )
    mask = np.ones((_OBSERVATIONS, graph.head.mask_size), np.bool_) if graph.masked else None
    records = runtime.layout.records(seen, mask, None)
    results = np.zeros(len(records), runtime.layout.output_type)
    memory: list[Any] = [np.zeros((len(records), graph.state_size), np.float32), np.zeros(len(records), np.uint8)]
    between = [part.ctypes.data for part in memory] if graph.state_size else []  # the states, and what is to be reset
    spent = []
    for _ in range(_CALLS):
        begin = time.perf_counter_ns()
        runtime.library.policy_batch(len(records), records.ctypes.data, *between, results.ctypes.data)
        spent.append(time.perf_counter_ns() - begin)
    return float(np.median(spent)) / 1e3 / _OBSERVATIONS
