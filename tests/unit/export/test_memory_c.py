"""Fails when the C of a student with a memory warns, leaves its bounds, does not forget, or misses a wrong vector."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from policykd.exports.c.gru import SIGMOID
from policykd.exports.interface import interface_of
from policykd.exports.of_student import graph_of
from policykd.exports.sequences import sequences_of
from policykd.exports.stepwise import run_stepwise, stepwise
from policykd.exports.targets import c99
from policykd.exports.targets.table import Options
from policykd.exports.vectors import LANES, proof_of
from tests.support.remembering import remembering
from tests.unit.export.test_c99 import SANE, STRICT, on_cortex_m4f, sh, tool

MAIN = """
#include "policy.h"
#include <stdio.h>
#include <string.h>
static policy_input input;
static policy_output output;
static float state[POLICY_STATE_SIZE];
int main(void)
{
    const int wrong = policy_selftest();
    int i;
    for (i = 0; i < 256; ++i) { /* any bits, NaN as well, in the state too */
        memset(&input, i, sizeof input);
        memset(state, 255 - i, sizeof state);
        policy_act(&input, state, &output);
    }
    policy_reset(state);
    memset(&input, 0, sizeof input);
    if (policy_act(&input, state, &output) != POLICY_OK) printf("not forgotten\\n");
    if (wrong) printf("vector %d\\n", wrong);
    return wrong != 0;
}
"""


def written(family: str, folder: Path, harm: Any = None, **changes: Any) -> Any:
    """The files of a random student with a self-test, the vectors of which `harm` changes; its graph."""
    student = replace(remembering(family, **changes), masked=family == "bernoulli")
    graph = graph_of(student, stochastic=family != "gaussian", with_distribution=family != "gaussian")
    c99.check(graph, Options())
    c99.write(graph, folder, Options())
    vectors, tolerance = proof_of(graph, sequences_of(graph, None, None), LANES)
    c99.prove(graph, vectors if harm is None else harm(vectors), tolerance, folder)
    (folder / "main.c").write_text(MAIN)
    return graph


def test_no_warning_in_c_and_in_cpp(tmp_path: Path) -> None:
    written("bernoulli", tmp_path)
    for compiler in ("gcc", "clang"):
        tool(compiler, compiler)
        for more in ((), ("-DPOLICY_NO_MATH_H",)):
            files = ("policy.c", "policy_selftest.c")
            sh(compiler, "-std=c99", "-pedantic", *STRICT, *more, "-c", *files, cwd=tmp_path)
            sh(compiler, "-x", "c++", "-std=c++11", *STRICT, "-Wshadow", "-fsyntax-only", *more, *files, cwd=tmp_path)


@pytest.mark.parametrize(("family", "more"), [("gaussian", ("-DPOLICY_NO_MATH_H",)), ("multi", ())])
def test_self_test_passes_under_sanitizers(family: str, more: tuple[str, ...], tmp_path: Path) -> None:
    tool("gcc", "gcc")
    written(family, tmp_path)
    files = ("main.c", "policy.c", "policy_selftest.c")
    sh("gcc", "-std=c99", "-O1", *SANE, *more, *files, "-o", "a.out", *(() if more else ("-lm",)), cwd=tmp_path)
    assert sh("./a.out", cwd=tmp_path) == ""


def _off(vectors: Any) -> Any:
    action = np.array(vectors.action)
    action[5 * LANES + 2] += 0.01  # step 5 of the third sequence
    return replace(vectors, action=action)


def test_self_test_names_the_first_wrong_vector_and_a_missing_reset(tmp_path: Path) -> None:
    written("gaussian", tmp_path, _off)
    build = ("cc", "-std=c99", "main.c", "policy.c", "policy_selftest.c", "-o", "a.out", "-lm")
    sh(*build, cwd=tmp_path)
    assert sh("./a.out", cwd=tmp_path, code=1) == f"vector {2 * 64 + 5 + 1}\n", "sequences lie one behind the other"
    written("gaussian", tmp_path)
    text = (tmp_path / "policy.c").read_text()
    (tmp_path / "policy.c").write_text(text.replace("state[j] = 0.0f;", "state[j] *= 1.0f;"))
    sh(*build, cwd=tmp_path)
    assert sh("./a.out", cwd=tmp_path, code=1).startswith("not forgotten\nvector ")


def test_cortex_m4f_under_qemu(tmp_path: Path) -> None:
    written("gaussian", tmp_path)
    on_cortex_m4f(tmp_path, "-DPOLICY_NO_MATH_H")
    written("gaussian", tmp_path, _off)
    on_cortex_m4f(tmp_path, code=2 * 64 + 5 + 1)


def test_many_inputs(tmp_path: Path) -> None:
    """Beyond 256 they are summed in blocks."""
    student = remembering("gaussian", hidden=6, spread=0.05, space=spaces.Box(-3, 3, (700,), np.float32))
    graph = graph_of(student)
    facts = c99.write(graph, tmp_path, Options())
    feed = sequences_of(graph, None, None).rows(slice(0, 12 * LANES))
    found = stepwise(c99.load(tmp_path, interface_of(graph), facts), feed, LANES, graph.state_size)
    np.testing.assert_allclose(found["state_out"], run_stepwise(graph, feed, LANES).state, atol=2e-5)
    assert facts["flash_bytes"] == 4 * (graph.footprint.params + graph.footprint.constants + 2 * 2)


def test_own_logistic_function_is_exact_to_the_last_places(tmp_path: Path) -> None:
    batch = "void many(int n, const float *x, float *y) { for (int i = 0; i < n; ++i) y[i] = policy_sigmoid(x[i]); }"
    (tmp_path / "s.c").write_text(SIGMOID + batch)
    sh("cc", "-std=c99", "-O2", "-shared", "-fPIC", "s.c", "-o", "s.so", cwd=tmp_path)
    x = np.concatenate([np.linspace(0, 39.99, 200_001), [1e-45, 1e-30, 1e-8, 40, 88, 3e38, np.inf]]).astype(np.float32)
    x = np.concatenate([x, -x])
    y = np.empty_like(x)
    pointer = ctypes.POINTER(ctypes.c_float)
    ctypes.CDLL(str(tmp_path / "s.so")).many(len(x), x.ctypes.data_as(pointer), y.ctypes.data_as(pointer))
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    near = np.abs(x) < 40
    assert (np.abs(y - exact)[near] / np.spacing(exact[near].astype(np.float32))).max() < 3.0
    assert np.abs(y - exact)[~near].max() < 5e-18
