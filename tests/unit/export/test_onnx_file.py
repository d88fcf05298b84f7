from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from policykd.exports.graph import Feed, Head
from policykd.exports.interface import interface_of
from policykd.exports.reference import run
from policykd.exports.targets import onnx_file
from policykd.exports.targets.table import Options
from policykd.spine.errors import InputError
from tests.support.export_cases import CASES, assert_equal, feed_of, on_space, read_back

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SOME = ("squashed-noise", "multi-masked-noise", "bernoulli-masked", "gaussian-nested", "onehot", "unbounded", "even")


def _written(name, folder, **options):
    graph = CASES[name].graph
    onnx_file.check(graph, Options(**options))
    return graph, onnx_file.write(graph, folder, Options(**options))


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_is_the_reference(name, tmp_path):
    graph, facts = _written(name, tmp_path)
    feed = feed_of(CASES[name], 300)
    runtime = onnx_file.load(tmp_path, read_back(graph), facts)
    assert_equal(graph, feed, runtime(feed))
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"] == facts["files"]
    none = runtime(feed.rows(slice(0, 0)))
    assert none["action"].shape == (0, *graph.action.shape)


@pytest.mark.parametrize("opset", range(11, 22))
@pytest.mark.parametrize("name", SOME)
def test_every_opset(name, opset, tmp_path):
    graph, facts = _written(name, tmp_path, opset=opset)
    model = onnx.load(tmp_path / "policy.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert facts["opset"] == opset
    assert facts["ir_version"] == model.ir_version <= {11: 6, 21: 10}.get(opset, 9)
    feed = feed_of(CASES[name])
    assert_equal(graph, feed, onnx_file.load(tmp_path, read_back(graph), facts)(feed))


def test_names_types_and_batch(tmp_path):
    masked = replace(CASES["multi-nested"].student, masked=True)
    case = replace(CASES["multi-nested"], student=masked, stochastic=True)
    onnx_file.write(case.graph, tmp_path, Options())
    model = onnx.load(tmp_path / "policy.onnx")

    def values(entries):
        made = {}
        for value in entries:
            tensor = value.type.tensor_type
            dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
            made[value.name] = (onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, dims)
        return made

    assert values(model.graph.input) == {
        "Class": ("int64", ["batch", 2, 2]),
        "NAN": ("float32", ["batch", 3]),
        "class": ("float32", ["batch", 2, 2]),
        "goal": ("int64", ["batch"]),
        "in. */ the\\.0": ("float32", ["batch"]),
        "in. */ the\\.1": ("int64", ["batch"]),
        "position": ("float32", ["batch", 2]),
        "action_masks": ("bool", ["batch", 5]),
        "noise": ("float32", ["batch", 5]),
    }
    assert values(model.graph.output) == {"action": ("int64", ["batch", 2]), "logits": ("float32", ["batch", 5])}
    feed = feed_of(case)
    assert_equal(case.graph, feed, onnx_file.load(tmp_path, interface_of(case.graph), {})(feed))


def test_metadata_is_json_and_bytes_are_the_same_each_time(tmp_path):
    graph, _ = _written("gaussian", tmp_path, metadata={"teacher": "ünïcode", "figures": [1.5, None]})
    first = (tmp_path / "policy.onnx").read_bytes()
    _written("gaussian", tmp_path, metadata={"figures": [1.5, None], "teacher": "ünïcode"})
    assert (tmp_path / "policy.onnx").read_bytes() == first
    found = {entry.key: json.loads(entry.value) for entry in onnx.load(tmp_path / "policy.onnx").metadata_props}
    assert found == {
        "interface": interface_of(graph).to_json(),
        "metadata": {"teacher": "ünïcode", "figures": [1.5, None]},
    }


def test_ties_take_the_first(tmp_path):
    case = CASES["multi"]
    weight, bias = case.student.layers[-1]
    tied = replace(case, student=replace(case.student, layers=(*case.student.layers[:-1], (weight * 0, bias * 0))))
    onnx_file.write(tied.graph, tmp_path, Options())
    feed = feed_of(tied, 8)
    found = onnx_file.load(tmp_path, interface_of(tied.graph), {})(feed)
    np.testing.assert_array_equal(found["action"], run(tied.graph, feed).action)


@pytest.mark.parametrize("opset", [10, 22, -1])
def test_opset_out_of_range(opset):
    with pytest.raises(InputError, match=f"^opset {opset}: expected 11 to 21$"):
        onnx_file.check(CASES["gaussian"].graph, Options(opset=opset))


def test_refusals(tmp_path, monkeypatch):
    space = spaces.Dict({"": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (1,))})
    unnamed = replace(CASES["gaussian"], student=on_space(space, "gaussian"))
    with pytest.raises(InputError, match="has no name"):
        onnx_file.check(unnamed.graph, Options())
    many = replace(CASES["multi"].graph, head=Head("choices", 2500, (2, 3) * 500))
    with pytest.raises(InputError, match="1000 choices of several sizes, expected at most 900"):
        onnx_file.check(many, Options())
    for value in (object(), float("nan")):
        with pytest.raises(InputError, match="metadata"):
            _written("gaussian", tmp_path, metadata={"x": value})
    assert list(tmp_path.iterdir()) == []
    graph, facts = _written("gaussian", tmp_path)
    with pytest.raises(InputError, match="but the manifest from obs, noise to action"):
        onnx_file.load(tmp_path, interface_of(CASES["gaussian-noise"].graph), facts)
    path = tmp_path / "policy.onnx"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(InputError, match="damaged"):
        onnx_file.load(tmp_path, interface_of(graph), facts)
    model = onnx.load_model_from_string(data)
    model.graph.node[0].op_type = "Loop"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="'Loop'"):
        onnx_file.load(tmp_path, interface_of(graph), facts)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        onnx_file.load(tmp_path, interface_of(graph), facts)
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(InputError, match=r"needs onnxruntime, not installed: pip install 'policykd\[onnx\]'"):
        onnx_file.check(graph, Options())


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    for name in ("multi-nested", "bernoulli-masked-noise"):
        _written(name, tmp_path)
        monkeypatch.chdir(tmp_path)
        exec(compile(onnx_file.EXAMPLE.replace("{name}", "policy"), "example", "exec"), {})
        assert capsys.readouterr().out.startswith("[[")
    assert len(onnx_file.EXAMPLE.splitlines()) <= 10


def test_rows_may_be_any_number(tmp_path):
    graph, facts = _written("squashed-noise", tmp_path)
    runtime = onnx_file.load(tmp_path, interface_of(graph), facts)
    feed = feed_of(CASES["squashed-noise"], 600)
    whole = runtime(feed)["action"]
    for n in (1, 2, 257):
        alone = runtime(Feed((feed.observations[0][:n],), None, feed.noise[:n]))["action"]
        np.testing.assert_allclose(alone, whole[:n], atol=1e-5)
