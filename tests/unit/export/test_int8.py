"""Fails when an export of weights of 8 bits computes something else than the student, or does not hold them as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policykd.compress.int8 import quantised
from policykd.exports.interface import interface_of
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.targets import c99, onnx_file
from policykd.exports.targets.table import Options
from policykd.exports.tolerance import tolerance_of
from tests.support.core import student
from tests.support.export_cases import Case, feed_of

CASES = [("gaussian", (6, 5)), ("categorical", (300,)), ("squashed", ())]  # 300: sums in blocks


@pytest.mark.parametrize(("family", "hidden"), CASES)
@pytest.mark.parametrize("target", [c99, onnx_file])
def test_an_export_computes_what_the_student_does(family, hidden, target, tmp_path: Path) -> None:
    own = quantised(student(family, hidden=hidden))
    case = Case("int8", own, with_distribution=True)
    graph, feed = case.graph, feed_of(case)
    facts = target.write(graph, tmp_path, Options())
    found = target.load(tmp_path, interface_of(graph), facts)(feed)
    exact = run(graph, feed)
    name = "logits" if family == "categorical" else "mean"
    assert not tolerance_of(graph, feed).outputs.exceeded(found[name], exact.outputs).any()
    torch_says = own.distribution_params(torch.from_numpy(feed.observations[0]))[:, : exact.outputs.shape[1]]
    np.testing.assert_allclose(exact.outputs, torch_says.numpy(), rtol=1e-4, atol=1e-5)


def test_constants_take_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    plain = student("gaussian", hidden=(32, 32))
    sizes = []
    for own in (plain, quantised(plain)):
        facts = c99.write(graph_of(own), tmp_path, Options())
        sizes.append(facts["flash_bytes"])
    weights, units = 3 * 32 + 32 * 32 + 32 * 2, 32 + 32 + 2
    assert sizes[0] - sizes[1] == 3 * weights - 4 * units
    assert "static const int8_t policy_weight_3[32][32]" in (tmp_path / "policy.c").read_text()


def test_onnx_holds_int8(tmp_path: Path) -> None:
    import onnx

    graph = graph_of(quantised(student("gaussian")))
    onnx_file.write(graph, tmp_path, Options())
    model = onnx.load(tmp_path / "policy.onnx")
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer) == 3
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert all(min(tensor.dims, default=1) == 1 or len(tensor.dims) == 1 for tensor in floats), "a float matrix"
