"""`c`: policy.h and policy.c, C99 without a heap, float32; compiled here to be replayed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.c.header import header_of
from policykd.exports.c.layout import INT32, Layout
from policykd.exports.c.runtime import FILES, compiled
from policykd.exports.c.selftest import SelfTest, write_selftest
from policykd.exports.c.source import source_of
from policykd.exports.graph import Graph, Tree
from policykd.exports.interface import Interface, Runtime, interface_of
from policykd.exports.targets.table import Options
from policykd.exports.tolerance import Tolerance
from policykd.exports.vectors import Vectors
from policykd.spine.errors import InputError
from policykd.spine.files import write_atomic

RUNS_CODE = True
EXAMPLE = """\
/* cc -std=c99 -O2 main.c policy.c -lm */
#include "policy.h"

int main(void)
{
    policy_input input = {0}; /* raw observations; its arrays are listed in policy.h */
    policy_output output;
    return policy_act(&input, &output); /* 0, and output.action in the units of the environment */
}
"""
EXAMPLE_WITH_STATE = """\
/* cc -std=c99 -O2 main.c policy.c -lm */
#include "policy.h"

int main(void)
{
    policy_input input = {0}; /* raw observations; its arrays are listed in policy.h */
    policy_output output;
    float state[POLICY_STATE_SIZE];
    policy_reset(state);                      /* where an episode begins */
    return policy_act(&input, state, &output); /* every step: 0, and output.action in the units of the environment */
}
"""


def check(graph: Graph, options: Options) -> None:
    """InputError for choices that are no int32, and for bounds between which float32 has no numbers."""
    del options
    ranges = [(first, first + n) for port in graph.ports for first, n in zip(port.start, port.nvec, strict=True)]
    head = graph.head
    ranges += [(first, first + n) for first, n in zip(graph.action.start, head.branches, strict=False)]
    for first, end in ranges:
        if first <= INT32.min or end >= INT32.max:
            raise InputError(
                f"c: choices from {first} to {end - 1} are no int32, which C students take: start them at 0 in the "
                "environment"
            )
    if graph.action.kind == "unscale":
        low, high = (np.asarray(bound, np.float32) for bound in (graph.action.low, graph.action.high))
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.isfinite(high - low).all():
                raise InputError("c: the action's bounds are too far apart for float32: give the Box finite ones")


def write(graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
    """policy.h and policy.c. Facts: `flash_bytes` of constants (the code comes on top), `stack_bytes` of arrays in
    `policy_act` (of images `static_bytes` instead), `ram_bytes` (those, one input, one output and one state),
    `macs`."""
    layout, source = Layout(interface_of(graph)), source_of(graph)
    texts = (header_of(graph, layout, source, str(options.metadata.get("title", ""))), source.text)
    for name, text in zip(FILES, texts, strict=True):
        write_atomic(folder / name, text.encode("ascii"))
    structs = layout.input_type.itemsize + layout.output_type.itemsize + 4 * graph.state_size
    return {
        "files": list(FILES),
        "inside": _inside(graph),
        "outside": ["drawing uniform numbers for the noise"] * graph.stochastic
        + ["a state for each environment, and its reset"] * bool(graph.state_size),
        "bytes": sum(map(len, texts)),
        "flash_bytes": source.flash,
        "stack_bytes": source.stack,
        **({"static_bytes": source.static} if source.static else {}),
        "ram_bytes": source.stack + source.static + structs,
        "macs": graph.footprint.macs,
    }


def load(folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
    """policy.c, compiled by the system's compiler outside of `folder`."""
    del facts
    return compiled(folder, interface)


def _inside(graph: Graph) -> list[str]:
    found = [] if any(isinstance(layer, Tree) for layer in graph.layers) else ["normaliser"]
    if any(port.nvec for port in graph.ports):
        found.append("one-hot choices")
    if graph.head.kind == "numbers":
        found += ["squash"] * graph.head.squash
        bounded = any(map(math.isfinite, (*graph.action.low, *graph.action.high)))
        found += ["scale to the action bounds"] if graph.action.kind == "unscale" else ["clip to the bounds"] * bounded
    found += ["action mask"] * graph.masked
    found += ["noise"] * graph.stochastic
    return found


_MOST_TESTED = 2**17
"""Numbers that are observed in the self-test, all vectors together: they lie in flash."""
_LEAST_TESTED = 4  # vectors


def prove(graph: Graph, vectors: Vectors, tolerance: Tolerance, folder: Path) -> None:
    """policy_selftest.c: the test vectors, for the device; sequences one behind the other."""
    bound = tolerance.action
    none = np.zeros(1)
    absolute, relative = (none, none) if bound is None else (bound.absolute, bound.relative)
    most = max(_LEAST_TESTED, _MOST_TESTED // graph.n_features)
    if not vectors.lanes and len(vectors.feed) > most:  # images: spread evenly, so that all sorts of vectors are there
        vectors = vectors.rows(np.linspace(0, len(vectors.feed) - 1, most).astype(np.int64))
    if vectors.lanes:
        vectors = vectors.rows(np.arange(len(vectors.feed)).reshape(-1, vectors.lanes).T.ravel())
    test = SelfTest(vectors.feed, vectors.action, absolute, relative, vectors.margin, tolerance.margin)
    write_selftest(graph, test, folder)
