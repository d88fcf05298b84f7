"""Fails when an export that is not the student passes: sabotage is caught by replay, with the manifest hashed anew."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd import api
from policykd.exports.bundle import Wishes
from policykd.exports.graph import Dense, Graph, Normalise
from policykd.exports.manifest import read_manifest, write_manifest
from policykd.exports.module import GraphModule, inputs_of
from policykd.exports.module import named as computed
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.targets.table import Options, target
from policykd.exports.vectors import draws, read
from policykd.exports.verify import replay
from policykd.loss.distributions import Categorical
from policykd.spine.actions import ActionMap
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES, student
from tests.support.matrix import DICT
from tests.unit.export.test_c99 import on_cortex_m4f

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
    action, wide = graph.action, {"low": [-1e30] * 2, "high": [1e30] * 2}  # SB3 clips to the space itself
    free = ActionMap("clip", action.shape, action.dtype, (-1e30,) * 2, (1e30,) * 2)
    return replace(graph, action=free, action_space={**graph.action_space, **wide})


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


@pytest.mark.parametrize("to", ["onnx", "c", "torch", "sb3"])
@pytest.mark.parametrize(("name", "what", "harm"), SABOTAGE, ids=[f"{name}-{what}" for name, what, _ in SABOTAGE])
def test_sabotage_is_caught_by_replay(name: str, what: str, harm: Any, to: str, tmp_path: Path) -> None:
    folder = exported(name, to, tmp_path / "out", verify=False)
    document = read_manifest(folder).document
    for file in document["facts"]["files"]:
        (folder / file).unlink()
    document["facts"] = target(to).write(harm(graph_of(named(name))), folder, Options())
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
        ({"files": {}}, "gives no sha256 of README.md, policy.onnx, student.safetensors"),
        ({"facts": {}}, "facts.files"),
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
    from policykd.exports.targets import onnx_file

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


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../x", "away/passwd"])
def test_a_file_outside_of_the_folder_is_not_read(name: str, tmp_path: Path) -> None:
    folder = exported("gaussian", "onnx", tmp_path / "out")
    (folder / "away").symlink_to("/etc")
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "files": {**document["files"], name: "0"}}))
    with pytest.raises(InputError, match=r"does not lie in the folder|away/passwd: missing"):
        api.verify(folder, episodes=0)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", lambda d: d["interface"]["action"].update(low=[0.0, 0.0]), "not that of the student"),
        ("manifest.json", lambda d: d["interface"].update(action_masks=5), "not that of the student"),
        ("vectors.safetensors", None, "not those of the student"),
        ("student.safetensors", None, "not those of the student"),
    ],
)
def test_what_lies_beside_the_artifact_is_that_of_the_student(
    file: str, change: Any, message: str, tmp_path: Path
) -> None:
    folder = exported("gaussian", "onnx", tmp_path / "out")
    other = api.export(student("gaussian", seed=9), "onnx", tmp_path / "other", how=SYNTHETIC)[0]["folder"]
    document = read_manifest(folder).document
    if change is None:
        (folder / file).write_bytes((Path(other) / file).read_bytes())
    else:
        change(document)
    write_manifest(folder, {key: value for key, value in document.items() if key not in ("files", "format")})
    with pytest.raises(InputError, match=message):
        api.verify(folder, episodes=0)


def test_the_spread_is_proved_too(tmp_path: Path) -> None:
    folder = exported("gaussian", "onnx", tmp_path / "out", with_distribution=True)
    document, graph = read_manifest(folder).document, graph_of(named("gaussian"), with_distribution=True)
    harmed = replace(graph, head=replace(graph.head, log_std=graph.head.log_std + np.float32(1)))
    target("onnx").write(harmed, folder, Options())
    write_manifest(folder, {key: value for key, value in document.items() if key not in ("files", "format")})
    with pytest.raises(InputError, match="256 of 256 test vectors differ"):
        api.verify(folder, episodes=0)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_right_program_that_adds_in_another_order_passes(name: str, tmp_path: Path) -> None:
    """Hidden units in another order are the same function."""
    rng = np.random.default_rng(3)
    folder = exported(name, "onnx", tmp_path / "out", with_distribution=True)
    manifest, graph = read_manifest(folder), graph_of(named(name), with_distribution=True)
    for _ in range(20):
        module = GraphModule(_reordered(graph, rng))

        def runtime(feed: Any, module: Any = module) -> Any:
            with torch.no_grad():
                return computed(manifest.interface, module(*inputs_of(manifest.interface, feed)))

        assert replay(manifest, runtime, graph)["count"] == 256


def test_another_policy_is_caught_in_the_loop(tmp_path: Path) -> None:
    import gymnasium as gym

    from policykd.exports.verify import Check, Stage, play
    from policykd.learn.setup.session import Work
    from policykd.rollout.envs import EnvSpec
    from policykd.spine.stop import NeverStop
    from policykd.spine.tracker import NullTracker

    env = gym.make("CartPole-v1")
    weight = torch.tensor([[-1.0, 1.0], [-5.0, 5.0], [-30.0, 30.0], [-10.0, 10.0]])
    plain = Normaliser(np.zeros(4, np.float32), np.ones(4, np.float32))
    good = MlpStudent(
        plain, ((weight, torch.zeros(2)),), torch.zeros(0), "tanh", Categorical(2),
        action_map(env.action_space, unscale=False), env.observation_space, env.action_space,
    )  # fmt: skip
    folder = Path(api.export(good, "onnx", tmp_path / "out", how=SYNTHETIC)[0]["folder"])
    manifest, work, stage = read_manifest(folder), Work(NullTracker(), NeverStop()), Stage(EnvSpec("CartPole-v1"), good)
    graph = graph_of(good)
    assert play(manifest, lambda feed: {"action": run(graph, feed).action}, good, stage, Check(5), work)["equal"] == 5
    with pytest.raises(InputError, match=r"in the loop the onnx artifact returns .*, the student 500 "):
        play(manifest, lambda feed: {"action": 1 - run(graph, feed).action}, good, stage, Check(5), work)


FIGURES: list[Any] = [
    "x",
    [],
    {"student_return": {"mean": "a", "ci95": ["b", "c"]}},
    {"retention": {}},
    {"env": 'a")\nimport os\n#', "retention": {"value": 1, "ci95": [1, 2, 3]}},
]


@pytest.mark.parametrize("figures", FIGURES)
def test_a_card_holds_nothing_but_names_and_numbers_of_the_file(figures: Any, tmp_path: Path) -> None:
    odd = replace(named("gaussian"), provenance={"figures": figures, "teacher": "x", "policykd": "```"})
    for to in ("onnx", "sb3"):
        api.export(odd, to, tmp_path / to, how=SYNTHETIC)
        card = (tmp_path / to / "README.md").read_text()
        assert "import os" not in card and "none are recorded" in card


@pytest.mark.parametrize("to", ["onnx", "torch", "sb3"])
@pytest.mark.parametrize("name", ["gaussian", "masked"])
def test_the_card_tells_how_to_load_it(name: str, to: str, tmp_path: Path) -> None:
    if (name, to) == ("gaussian", "sb3"):
        pytest.skip("its example needs a registered environment with this student's spaces")
    folder = exported(name, to, tmp_path / "out")
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    if to == "sb3":
        assert "from sb3_contrib import MaskablePPO" in code and "PPO.load" in code
        return
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_folders_that_cannot_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for name in ("link", "nowhere"):
        api.export(named("gaussian"), "onnx", tmp_path / name, how=SYNTHETIC)
        assert (tmp_path / name / "policy.onnx").is_file()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("CC", "/bin/false")
    with pytest.raises(InputError) as caught:
        api.export(named("gaussian"), "c", tmp_path / "p1/p2/p3", how=SYNTHETIC)
    assert "\n" not in str(caught.value) and not (tmp_path / "p1").exists()


def test_the_public_names_stay_functions() -> None:
    code = (
        "import policykd, policykd.exports.bundle\n"
        "from policykd import InputError\n"
        "for _ in range(2):\n"
        "    for call in (lambda: policykd.export('none', 'c'), lambda: policykd.verify('none')):\n"
        "        try: call()\n"
        "        except InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("no such") == 4, done.stderr[-500:]


MAIN = '#include "policy.h"\nint main(void) { return policy_selftest() != 0; }\n'


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt-get install gcc")
@pytest.mark.parametrize("name", NAMES)
def test_the_self_test_that_is_shipped_passes_however_it_is_compiled(name: str, tmp_path: Path) -> None:
    """Contracted into fused multiply-adds, vectorised, without math.h: all are right programs."""
    folder = exported(name, "c", tmp_path / "out")
    (folder / "main.c").write_text(MAIN)
    files = ["main.c", "policy.c", "policy_selftest.c", "-lm"]
    for flags in (["-O0"], ["-O2"], ["-O3", "-march=native", "-ffp-contract=fast"], ["-O2", "-DPOLICY_NO_MATH_H"]):
        subprocess.run(["gcc", *flags, *files, "-o", "test"], cwd=folder, check=True)
        assert subprocess.run(["./test"], cwd=folder, check=False).returncode == 0, flags
    text = (folder / "policy_selftest.c").read_text()
    harmed = text.replace("policy_inputs + i,", "policy_inputs + (i + 1) % 256,")
    assert harmed != text
    (folder / "policy_selftest.c").write_text(harmed)
    subprocess.run(["gcc", *files, "-o", "test"], cwd=folder, check=True)
    assert subprocess.run(["./test"], cwd=folder, check=False).returncode == 1


@pytest.mark.parametrize("more", [(), ("-DPOLICY_NO_MATH_H",)], ids=["math.h", "no-math.h"])
@pytest.mark.parametrize("name", NAMES)
def test_the_self_test_that_is_shipped_passes_on_a_cortex_m4f(name: str, more: tuple[str, ...], tmp_path: Path) -> None:
    on_cortex_m4f(exported(name, "c", tmp_path / "out"), *more)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_tolerance_is_at_most_four_errors_of_float32(name: str, tmp_path: Path) -> None:
    """The errors are measured another way here: the torch module of the same function, hidden units reordered."""
    folder = exported(name, "onnx", tmp_path / "out")
    manifest, graph, rng = read_manifest(folder), graph_of(named(name)), np.random.default_rng(5)
    error, largest = np.zeros(graph.head.size), np.zeros(graph.head.size)
    for feed in (read(folder, manifest.interface).feed, draws(graph, np.random.default_rng(1))):
        exact = run(graph, feed).outputs
        largest = np.maximum(largest, np.abs(exact).max(0))
        for _ in range(20):
            with torch.no_grad():
                ports = inputs_of(manifest.interface, feed)[: len(graph.ports)]
                found = GraphModule(_reordered(graph, rng)).outputs(*ports).numpy().astype(np.float64)
            error = np.maximum(error, np.abs(found - exact).max(0))
    bound = manifest.tolerance.outputs
    assert (bound.absolute + bound.relative * largest <= 4 * error * 1.25).all()  # two estimates of one maximum
    assert (bound.absolute + bound.relative * largest >= error).all()


def _reordered(graph: Graph, rng: np.random.Generator) -> Graph:
    """The same function with its hidden units in another order."""
    layers = list(graph.layers)
    for index in (1, 3):
        one, two = layers[index], layers[index + 2]
        assert isinstance(one, Dense) and isinstance(two, Dense)
        order = rng.permutation(len(one.bias))
        layers[index] = Dense(one.weight[:, order], one.bias[order])
        layers[index + 2] = Dense(two.weight[order], two.bias)
    return replace(graph, layers=tuple(layers))
