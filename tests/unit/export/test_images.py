"""Graphs with images on every target: what comes out is what the reference gives, and a harmed one is found."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from policykd.exports import vectors
from policykd.exports.c.selftest import SelfTest, write_selftest
from policykd.exports.graph import Conv, Graph, Parallel, Residual
from policykd.exports.interface import interface_of
from policykd.exports.manifest import Manifest
from policykd.exports.module import GraphModule, inputs_of
from policykd.exports.reference import run
from policykd.exports.targets import c99, onnx_file
from policykd.exports.targets.table import Options, target
from policykd.exports.tolerance import margin_of
from policykd.exports.verify import replay
from policykd.spine.errors import InputError
from tests.support.export_cases import assert_equal, read_back
from tests.support.image_graphs import GRAPHS, dense, feed_of, normalise
from tests.unit.export.test_c99 import MAIN, SANE, STRICT, on_cortex_m4f, sh, tool

TARGETS = ("onnx", "c", "torch")


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_target_is_the_reference(name, to, tmp_path):
    graph, module = GRAPHS[name], target(to)
    module.check(graph, Options())
    facts = json.loads(json.dumps(module.write(graph, tmp_path, Options())))
    runtime, feed = module.load(tmp_path, read_back(graph), facts), feed_of(graph, 300)
    found = runtime(feed)
    assert_equal(graph, feed, found)
    assert len(np.unique(found["action"])) > 1
    one = feed.rows(slice(7, 8))
    assert_equal(graph, one, runtime(one))


@pytest.mark.parametrize("opset", range(11, 22))
@pytest.mark.parametrize("name", GRAPHS)
def test_every_opset(name, opset, tmp_path):
    graph = GRAPHS[name]
    facts = onnx_file.write(graph, tmp_path, Options(opset=opset))
    feed = feed_of(graph)
    runtime = onnx_file.load(tmp_path, read_back(graph), facts)
    assert_equal(graph, feed, runtime(feed))
    assert runtime(feed.rows(slice(0, 0)))["action"].shape == (0, *graph.action.shape)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_module_is_the_reference_in_float64(name):
    graph, feed = GRAPHS[name], feed_of(GRAPHS[name])
    inputs = inputs_of(interface_of(graph), feed)[: len(graph.ports)]
    outputs = GraphModule(graph).double().outputs(*inputs)
    assert outputs.dtype == torch.float64
    np.testing.assert_allclose(outputs.numpy(), run(graph, feed).outputs, rtol=1e-12, atol=1e-12)


def _with_self_test(name, folder, n):
    graph, feed = GRAPHS[name], feed_of(GRAPHS[name], n)
    c99.write(graph, folder, Options())
    exact = run(graph, feed)
    test = SelfTest(feed, exact.action, 1e-4, 1e-4, margin_of(graph, feed, exact.outputs), 1e-4)
    write_selftest(graph, test, folder)
    return graph, feed


@pytest.mark.parametrize("name", GRAPHS)
def test_c_is_clean(name, tmp_path):
    """No warnings in C and C++; no index out of its array and no undefined operation, whatever bits come in."""
    _with_self_test(name, tmp_path, 8)
    (tmp_path / "main.c").write_text(MAIN)
    files = ("policy.c", "policy_selftest.c")
    for compiler in ("gcc", "clang"):
        tool(compiler, compiler)
        sh(compiler, "-std=c99", "-pedantic", *STRICT, "-fsyntax-only", *files, cwd=tmp_path)
        sh(compiler, "-x", "c++", "-std=c++11", *STRICT, "-Wshadow", "-fsyntax-only", *files, cwd=tmp_path)
    sh("gcc", "-std=c99", "-O1", *SANE, "main.c", *files, "-o", "a.out", "-lm", cwd=tmp_path)
    assert sh("./a.out", cwd=tmp_path) == ""


@pytest.mark.parametrize("name", ["image", "several"])
def test_cortex_m4f_under_qemu(name, tmp_path):
    graph, feed = _with_self_test(name, tmp_path, 8)
    on_cortex_m4f(tmp_path)
    wrong = np.array(run(graph, feed).action)
    wrong[4] += 1
    write_selftest(graph, SelfTest(feed, wrong, atol=1e-3), tmp_path)
    on_cortex_m4f(tmp_path, code=5)


@pytest.mark.parametrize("name", GRAPHS)
def test_flash_and_ram_are_those_of_the_files(name, tmp_path):
    graph = GRAPHS[name]
    facts = c99.write(graph, tmp_path, Options())
    layers = 4 * (graph.footprint.params + graph.footprint.constants)
    assert layers <= facts["flash_bytes"] <= layers + 4 * 16  # and bounds and choices
    sh("cc", "-std=c99", "-Os", "-c", "policy.c", "-o", "policy.o", cwd=tmp_path)
    sizes = dict.fromkeys([".data", ".bss"], 0)
    for line in sh(tool("size", "binutils"), "-A", "policy.o", cwd=tmp_path).splitlines():
        section, *rest = line.split() or [""]
        if section in sizes:
            sizes[section] += int(rest[0])
    assert sizes[".data"] == facts["stack_bytes"] == 0
    assert facts["static_bytes"] <= sizes[".bss"] <= facts["static_bytes"] + 32 * 8  # each aligned
    assert facts["ram_bytes"] > facts["static_bytes"] + 4 * sum(port.size for port in graph.ports)
    header = (tmp_path / "policy.h").read_text()
    assert f"RAM: {facts['static_bytes']} bytes of static arrays;" in header
    assert "one thread at a time may call it" in header


def test_blocks_share_their_memory(tmp_path):
    graph = GRAPHS["residual"]
    block = graph.layers[2]
    long = replace(graph, layers=(*graph.layers[:3], *[block] * 9, *graph.layers[3:]))
    one, ten = (c99.write(each, tmp_path, Options())["static_bytes"] for each in (graph, long))
    assert one == ten


def _flipped(layers):
    """The largest weight of the last convolution, at any depth, has another sign."""
    for at in reversed(range(len(layers))):
        layer = layers[at]
        if isinstance(layer, Conv):
            weight = layer.weight.copy()
            weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] *= -1
            changed = replace(layer, weight=weight)
        elif isinstance(layer, Residual):
            changed = Residual(_flipped(layer.layers))
        elif isinstance(layer, Parallel):
            (begin, end, inner), *rest = layer.parts
            changed = Parallel(((begin, end, _flipped(inner)), *rest))
        else:
            continue
        return (*layers[:at], changed, *layers[at + 1 :])
    raise AssertionError("no convolution")


@functools.cache
def _proof(graph: Graph):
    return vectors.proof_of(graph, vectors.feed_of(graph, None, None))


def _replayed(graph: Graph, made: Graph, to: str, folder) -> dict:
    """The proof of an export whose files hold `made`."""
    module = target(to)
    proof, tolerance = _proof(graph)
    vectors.write(proof, interface_of(graph), folder)
    facts = module.write(made, folder, Options())
    manifest = Manifest(folder, to, read_back(graph), tolerance, facts, {})
    return replay(manifest, module.load(folder, manifest.interface, facts), graph)


@pytest.mark.parametrize(("name", "to"), [*(("image", to) for to in TARGETS), ("several", "onnx"), ("residual", "c")])
def test_a_changed_weight_of_a_convolution_is_found(name, to, tmp_path, monkeypatch):
    graph = GRAPHS[name]
    monkeypatch.setattr(vectors, "_MOST_NUMBERS", 1)  # as few draws as for a large image
    for folder in ("right", "wrong"):
        (tmp_path / folder).mkdir()
    assert _replayed(graph, graph, to, tmp_path / "right")["count"] == 256
    harmed = replace(graph, layers=_flipped(graph.layers))
    with pytest.raises(InputError, match=f"the {to} artifact is not the student: .* of 256 test vectors differ"):
        _replayed(graph, harmed, to, tmp_path / "wrong")


def test_of_large_images_fewer_are_drawn(monkeypatch):
    graph = GRAPHS["image"]
    assert len(vectors.draws(graph, np.random.default_rng(0))) == 2**24 // (432 + 8400) // 4 * 4
    monkeypatch.setattr(vectors, "_MOST_NUMBERS", (432 + 8400) * 1001)
    drawn = vectors.draws(graph, np.random.default_rng(0))
    assert len(drawn) == 1000
    near, mean = drawn.observations[0][:250].reshape(-1, 3), graph.layers[1].mean
    assert np.abs(near.mean(0) - mean).max() < 5
    assert len(np.unique(near)) > 100
    monkeypatch.setattr(vectors, "_MOST_NUMBERS", 1)
    feed = vectors.feed_of(graph, None, None)
    assert len(feed) == 256
    assert feed.mask.shape == (256, 5)


def test_sb3_refuses_them_in_one_line():
    rng, graph = np.random.default_rng(0), GRAPHS["residual"]
    shared = replace(graph, layers=(normalise(rng, 3, repeat=144), dense(rng, 432, 3)))
    for graph in (*GRAPHS.values(), shared):
        known = replace(
            graph, stochastic=False, with_distribution=False, observation_space={"": 0}, action_space={"": 0}
        )
        with pytest.raises(InputError, match=r"expected a normaliser, then dense|convolutions, or encoders") as error:
            target("sb3").check(known, Options())
        assert "\n" not in str(error.value)
