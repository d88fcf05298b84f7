"""Fails when an export that is not the student passes: sabotage is caught by replay, with the manifest hashed anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from policykd import api
from policykd.export.bundle import Wishes
from policykd.export.graph import Dense, Graph, Normalise
from policykd.export.manifest import read_manifest, write_manifest
from policykd.export.of_student import graph_of
from policykd.export.targets.table import Options, target
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.students.mlp import MlpStudent
from tests.support.core import FAMILIES, student
from tests.support.matrix import DICT

SYNTHETIC = Wishes(vectors="synthetic", episodes=0)
NAMES = ["categorical", "multi", "bernoulli", "gaussian", "squashed", "masked"]


def named(name: str) -> MlpStudent:
    """A random student of that family; choices from 0, which every target can hold."""
    if name == "masked":
        return replace(named("multi"), masked=True)
    made = student(name)
    if name != "categorical":
        return made
    space = spaces.Discrete(3)
    return replace(made, action_space=space, action_map=replace(made.action_map, start=(0,)))


def exported(name: str, to: str, folder: Path, **changes: Any) -> Path:
    (document,) = api.export(named(name), to, folder, how=replace(SYNTHETIC, **changes))
    assert document["verified"] is None or document["verified"]["passed"]
    return folder


@pytest.mark.parametrize("to", ["onnx", "c", "torch", "sb3"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_student_passes_on_every_target(name: str, to: str, tmp_path: Path) -> None:
    folder = exported(name, to, tmp_path / "out")
    again = api.verify(folder, episodes=0, trust=True)
    assert again["passed"] and again["vectors"]["count"] == 256
    if to == "onnx":
        assert api.verify(folder, episodes=0)["passed"]
    else:
        with pytest.raises(InputError, match="runs what its files hold; add --trust"):
            api.verify(folder, episodes=0)


@pytest.mark.parametrize("to", ["onnx", "c", "torch"])
@pytest.mark.parametrize("name", NAMES)
def test_noise_and_distribution_pass_where_the_target_has_them(name: str, to: str, tmp_path: Path) -> None:
    exported(name, to, tmp_path / "out", stochastic=True, with_distribution=True)


def _flipped(graph: Graph, index: int) -> Graph:
    layer = graph.layers[index]
    assert isinstance(layer, Dense)
    weight = layer.weight.copy()
    weight[np.unravel_index(np.abs(weight).argmax(), weight.shape)] *= -1
    return _with(graph, index, Dense(weight, layer.bias))


def _with(graph: Graph, index: int, layer: Any) -> Graph:
    return replace(graph, layers=(*graph.layers[:index], layer, *graph.layers[index + 1 :]))


def _not_normalised(graph: Graph) -> Graph:
    layer = graph.layers[0]
    assert isinstance(layer, Normalise)
    return _with(graph, 0, Normalise(np.zeros_like(layer.mean), np.ones_like(layer.scale), layer.limit))


def _not_clipped(graph: Graph) -> Graph:
    layer = graph.layers[0]
    assert isinstance(layer, Normalise)
    return _with(graph, 0, Normalise(layer.mean, layer.scale, 1e30))


def _swapped(graph: Graph) -> Graph:
    layer = graph.layers[1]
    assert isinstance(layer, Dense)
    return _with(graph, 1, Dense(layer.weight[[1, 0, 2]], layer.bias))


def _unbounded(graph: Graph) -> Graph:
    action = graph.action
    return replace(graph, action=ActionMap("clip", action.shape, action.dtype, (-1e30,) * 2, (1e30,) * 2))


def _unsquashed(graph: Graph) -> Graph:
    return replace(graph, head=replace(graph.head, squash=False))


SABOTAGE: list[tuple[str, str, Any]] = [
    *[(name, f"flip-{index}", lambda g, index=index: _flipped(g, index)) for name in NAMES for index in (1, 3, 5)],
    *[(name, "normaliser", _not_normalised) for name in NAMES],
    *[(name, "normaliser's clip", _not_clipped) for name in NAMES],
    *[(name, "inputs", _swapped) for name in NAMES],
    ("gaussian", "clip", _unbounded),
    ("squashed", "squash", _unsquashed),
    ("squashed", "unscale", _unbounded),
]


@pytest.mark.parametrize("to", ["onnx", "c"])
@pytest.mark.parametrize(("name", "what", "harm"), SABOTAGE, ids=[f"{name}-{what}" for name, what, _ in SABOTAGE])
def test_sabotage_is_caught_by_replay(name: str, what: str, harm: Any, to: str, tmp_path: Path) -> None:
    folder = exported(name, to, tmp_path / "out", verify=False)
    document = read_manifest(folder).document
    target(to).write(harm(graph_of(named(name))), folder, Options())
    write_manifest(folder, {key: value for key, value in document.items() if key not in ("files", "format")})
    read_manifest(folder)  # every hash is right
    with pytest.raises(InputError, match=f"the {to} artifact is not the student: .* of 256 test vectors differ"):
        api.verify(folder, episodes=0, trust=True)


def test_a_changed_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    folder = exported("gaussian", "onnx", tmp_path / "out")
    data = bytearray((folder / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "policy.onnx").write_bytes(data)
    with pytest.raises(InputError, match=r"policy\.onnx: its sha256 is not the one in manifest\.json"):
        api.verify(folder, episodes=0)
    (folder / "policy.onnx").unlink()
    with pytest.raises(InputError, match=r"policy\.onnx: missing"):
        api.verify(folder, episodes=0)


def _tolerance(numbers: list[Any]) -> dict[str, Any]:
    return {"action": None, "outputs": {"absolute": numbers, "relative": numbers}, "margin": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"target": "exe"}, "target exe"),
        ({"target": ["c"]}, "is no manifest"),
        ({"interface": None}, "is no manifest"),
        ({"tolerance": _tolerance([1])}, "does not fit"),
        ({"tolerance": _tolerance(["nan", 1])}, "finite"),
        ({"files": {"../secret": "0"}}, "does not lie in the folder"),
        ({"files": {"/etc/passwd": "0"}}, "does not lie in the folder"),
        ({"files": 3}, "is no manifest"),
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = exported("gaussian", "onnx", tmp_path / "out")
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message) as caught:
        api.verify(folder, episodes=0)
    assert "\n" not in str(caught.value)
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="no readable JSON"):
        api.verify(folder, episodes=0)


def test_wrong_input_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    broken = named("gaussian")
    broken.layers[0][0][0, 0] = float("nan")
    for policy, to, out, how, message in (
        (named("gaussian"), "onnx", tmp_path / "full", SYNTHETIC, "exists and is not empty"),
        (named("gaussian"), "exe", tmp_path / "a", SYNTHETIC, "no such target, expected one of onnx, c, torch, sb3"),
        (named("gaussian"), "onnx,onnx", tmp_path / "a", SYNTHETIC, "each once"),
        (named("gaussian"), "onnx", tmp_path / "a", replace(SYNTHETIC, options=Options(opset=99)), "opset 99"),
        (named("gaussian"), "c,sb3", tmp_path / "a", replace(SYNTHETIC, stochastic=True), "sb3"),
        (broken, "onnx", tmp_path / "a", SYNTHETIC, "NaN or infinity; nothing is exported"),
        (named("gaussian"), "onnx", tmp_path / "a", Wishes(), "names no environment"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            api.export(policy, to, out, how=how)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_an_export_that_does_not_act_as_the_student_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from policykd.export.targets import onnx_file

    write = onnx_file.write
    monkeypatch.setattr(onnx_file, "write", lambda graph, *rest: write(_not_normalised(graph), *rest))
    with pytest.raises(InputError, match="is not the student"):
        api.export(named("gaussian"), "onnx", tmp_path / "out", how=SYNTHETIC)
    assert list(tmp_path.iterdir()) == []


def test_observations_by_key(tmp_path: Path) -> None:
    base = named("gaussian")
    from policykd.spine.packing import packing_of
    from policykd.students.normaliser import Normaliser

    n = packing_of(DICT).n_features
    rng = np.random.default_rng(0)
    import torch

    first = (torch.from_numpy(rng.normal(size=(n, 6)).astype("f4") / 8), base.layers[0][1])
    normaliser = Normaliser(np.zeros(n, np.float32), np.ones(n, np.float32))
    policy = replace(base, layers=(first, *base.layers[1:]), normaliser=normaliser, observation_space=DICT)
    for to in ("onnx", "c", "torch"):
        assert api.export(policy, to, tmp_path / to, how=SYNTHETIC)[0]["verified"]["passed"]
    names = [port["name"] for port in read_manifest(tmp_path / "c").document["interface"]["inputs"]]
    assert names == list(DICT.spaces)


def test_every_family_has_a_tolerance_of_at_most_four_float32_errors(tmp_path: Path) -> None:
    import torch

    from policykd.export.interface import interface_of
    from policykd.export.module import GraphModule, inputs_of
    from policykd.export.reference import run
    from policykd.export.vectors import read

    for name in FAMILIES:
        folder = exported(name, "onnx", tmp_path / name)
        manifest, graph = read_manifest(folder), graph_of(named(name))
        vectors = read(folder, manifest.interface)
        with torch.no_grad():
            inputs = inputs_of(interface_of(graph), vectors.feed)
            found = GraphModule(graph).outputs(*inputs).numpy().astype(np.float64)
        exact = run(graph, vectors.feed).outputs
        error = np.abs(found - exact).max(0)
        largest = np.abs(exact).max(0)
        floor = np.spacing(largest.astype(np.float32)) / 2
        bound = manifest.tolerance.outputs
        most = bound.absolute + bound.relative * largest
        assert (most <= 4 * np.maximum(error, floor) * (1 + 1e-9)).all()
