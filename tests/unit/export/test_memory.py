"""Fails when an export of a student with a memory computes otherwise, does not carry or not forget, or passes although
it is not the student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd import api
from policykd.exports import module
from policykd.exports.bundle import Wishes
from policykd.exports.graph import Feed, Graph
from policykd.exports.gru import Gru
from policykd.exports.interface import interface_of
from policykd.exports.manifest import read_manifest, write_manifest
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.sequences import Recording, sequences_of
from policykd.exports.stepwise import run_stepwise, stepwise
from policykd.exports.targets.table import Options, target
from policykd.exports.vectors import LANES, STEPS, proof_of, read, tolerance_of_steps
from policykd.exports.verify import Check, Stage, play
from policykd.learn.setup.session import Work
from policykd.loss.distributions import Categorical
from policykd.rollout.envs import EnvSpec
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.spine.stop import NeverStop
from policykd.spine.tracker import NullTracker
from policykd.spine.types import Turn
from policykd.students.gru import GruStudent
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES
from tests.support.remembering import remembering
from tests.unit.learn.test_partial import PartialCartPole

SYNTHETIC = Wishes(vectors="synthetic", episodes=0)
ON = [*((family, to) for family in FAMILIES for to in ("onnx", "c")), ("multi", "torch")]


def exported(student: GruStudent, to: str, folder: Path, **changes: Any) -> Path:
    api.export(student, to, folder, how=replace(SYNTHETIC, **changes))
    return folder


@pytest.mark.parametrize(("family", "to"), ON)
def test_every_kind_of_student_passes(family: str, to: str, tmp_path: Path) -> None:
    student = replace(remembering(family), masked=family in ("multi", "bernoulli"))
    more = family != "gaussian"
    folder = exported(student, to, tmp_path / "out", stochastic=more, with_distribution=more)
    assert read_manifest(folder).document["size"]["params"] == student.footprint.params
    if family == "gaussian":
        found = api.verify(folder, episodes=0, trust=True)
        assert found["passed"] and found["vectors"]["count"] == LANES * STEPS
        assert read_manifest(folder).document["interface"]["state"] == {"size": 5}


@pytest.mark.parametrize("to", ["onnx", "c", "torch"])
def test_it_steps_as_the_student_does_and_forgets_whatever_was_there(to: str, tmp_path: Path) -> None:
    student = remembering("gaussian")
    folder = exported(student, to, tmp_path / "out", verify=False)
    runtime = target(to).load(folder, read_manifest(folder).interface, read_manifest(folder).facts)
    rng = np.random.default_rng(0)
    observation, state = rng.normal(1, 2, (4, 3)).astype("f4"), rng.normal(size=(4, 5)).astype("f4")
    start = np.array([False, True, True, False])
    dirty = np.where(start[:, None], np.float32(np.nan), state)
    expected, (after,) = student.predict(observation, (state[None],), start, deterministic=True)
    found = runtime(Feed((observation,), state=dirty, start=start))
    near = {"rtol": 0, "atol": 0} if to == "torch" else {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(found["action"], expected, **near)
    np.testing.assert_allclose(found["state_out"], after[0], **near)
    assert np.isnan(dirty[1]).all(), "what goes in is left as it is"
    other = runtime(Feed((observation,), state=state + 1, start=start))["state_out"]
    assert np.abs(other - found["state_out"]).max(1).astype(bool).tolist() == [True, False, False, True]
    np.testing.assert_array_equal(
        runtime(Feed((observation,)))["action"], runtime(Feed((observation,), state=0 * state))["action"]
    )


@pytest.mark.parametrize("opset", range(11, 22))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    graph = graph_of(remembering("squashed"), with_distribution=True)
    onnx = target("onnx")
    facts = onnx.write(graph, tmp_path, Options(opset=opset))
    feed = sequences_of(graph, None, None)
    found = stepwise(onnx.load(tmp_path, interface_of(graph), facts), feed, LANES, graph.state_size)
    exact = run_stepwise(graph, feed, LANES)
    np.testing.assert_allclose(found["mean"], exact.outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["state_out"], exact.state, rtol=1e-4, atol=1e-5)


def test_the_reference_is_the_student() -> None:
    student = remembering("gaussian", hidden=9, seed=3)
    graph = graph_of(student)
    feed = sequences_of(graph, None, None)
    exact, state, found = run_stepwise(graph, feed, LANES), None, []
    for at in range(0, LANES * STEPS, LANES):
        part = feed.rows(slice(at, at + LANES))
        action, state = student.predict(part.observations[0], state, part.start, deterministic=True)
        found.append(action)
    np.testing.assert_allclose(np.concatenate(found), exact.action, atol=1e-4)
    with np.errstate(invalid="ignore"):
        single = run(graph, feed)
    assert np.abs(single.action - exact.action).max() > 0.1, "and it remembers"


def _changed(name: str, harm: Callable[[Any], Any]) -> Callable[[Graph], Graph]:
    def change(graph: Graph) -> Graph:
        layers = [replace(x, **{name: harm(getattr(x, name))}) if isinstance(x, Gru) else x for x in graph.layers]
        return replace(graph, layers=tuple(layers))

    return change


def _flip(part: Any) -> Any:
    part = part.copy()
    part[np.unravel_index(np.abs(part).argmax(), part.shape)] *= -1
    return part


def _gates_swapped(graph: Graph) -> Graph:
    for name in ("inputs", "state", "bias"):
        graph = _changed(name, lambda part: part[np.r_[5:10, 0:5, 10:15]])(graph)
    return graph


SABOTAGE = {
    **{f"flip {name}": _changed(name, _flip) for name in ("inputs", "state", "bias", "new_bias")},
    "bias a little": _changed("bias", lambda part: part + np.float32(1e-4)),
    "gates": _gates_swapped,
}


def _rewritten(folder: Path, to: str, graph: Graph) -> None:
    """The artifact of another graph in the folder, its files hashed anew."""
    document = read_manifest(folder).document
    for file in document["facts"]["files"]:
        (folder / file).unlink()
    facts = target(to).write(graph, folder, Options())
    _hashed(folder, {**document, "facts": facts})


def _hashed(folder: Path, document: dict[str, Any]) -> None:
    write_manifest(folder, {key: value for key, value in document.items() if key not in ("files", "format")})


@pytest.mark.parametrize(("family", "to"), [("categorical", "onnx"), ("gaussian", "onnx"), ("gaussian", "c")])
@pytest.mark.parametrize("what", SABOTAGE)
def test_changed_weights_are_caught(what: str, family: str, to: str, tmp_path: Path) -> None:
    student = remembering(family)
    folder = exported(student, to, tmp_path / "out", verify=False)
    _rewritten(folder, to, SABOTAGE[what](graph_of(student)))
    with pytest.raises(InputError, match=f"the {to} artifact is not the student: .* of 512 test vectors differ"):
        api.verify(folder, episodes=0, trust=True)


def _without_reset(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if to == "onnx":
        import onnx

        model = onnx.load(folder / "policy.onnx")
        (node,) = (node for node in model.graph.node if node.op_type == "Where")
        zero = [tensor for tensor in model.graph.initializer if tensor.name == node.input[1]]
        node.input[1] = node.input[2]
        model.graph.initializer.remove(zero[0])
        onnx.save(model, folder / "policy.onnx")
        _hashed(folder, read_without_hashes(folder))
    elif to == "c":
        text = (folder / "policy.c").read_text()
        assert text.count("state[j] = 0.0f;") == 1
        (folder / "policy.c").write_text(text.replace("state[j] = 0.0f;", "(void)state;"))
        _hashed(folder, read_without_hashes(folder))
    else:
        monkeypatch.setattr(module, "begun", lambda state, start: state)
        _rewritten(folder, to, graph_of(remembering("gaussian")))


def read_without_hashes(folder: Path) -> dict[str, Any]:
    import json

    document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return document


@pytest.mark.parametrize("to", ["onnx", "c", "torch"])
def test_a_state_that_is_not_reset_is_caught(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported(remembering("gaussian"), to, tmp_path / "out", verify=False)
    _without_reset(folder, to, monkeypatch)
    with pytest.raises(InputError, match=f"the {to} artifact is not the student: .* of 512 test vectors differ"):
        api.verify(folder, episodes=0, trust=True)


def test_forgetting_too_often_and_too_seldom_is_caught(tmp_path: Path) -> None:
    from policykd.exports.verify import replay

    student = remembering("categorical")
    manifest = read_manifest(exported(student, "onnx", tmp_path / "out", verify=False))
    graph = graph_of(student)
    right = target("onnx").load(manifest.folder, manifest.interface, manifest.facts)
    assert replay(manifest, right, graph)["count"] == 512
    only_nan = lambda feed: np.isnan(feed.state).any(1)  # noqa: E731 - it forgets a NaN, and nothing else
    for start in (lambda feed: np.ones(len(feed), bool), only_nan):
        with pytest.raises(InputError, match="is not the student"):
            replay(manifest, lambda feed, start=start: right(replace(feed, start=start(feed))), graph)
    with pytest.raises(InputError, match="state_out has shape"):
        replay(manifest, lambda feed: {**right(feed), "state_out": right(feed)["state_out"][:, :-1]}, graph)


def test_the_state_is_proved_too(tmp_path: Path) -> None:
    """A choice may hide what is remembered wrongly."""
    from policykd.exports.verify import replay

    student = remembering("categorical", spread=0.1)
    manifest = read_manifest(exported(student, "onnx", tmp_path / "out", verify=False))
    graph = graph_of(student)

    def off(feed: Feed) -> dict[str, Any]:
        result = run(graph, feed)
        return {"action": result.action, "state_out": result.state + 1e-5}

    with pytest.raises(InputError, match="512 of 512 test vectors differ"):
        replay(manifest, off, graph)


def test_vectors_that_begin_nowhere_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = exported(remembering("gaussian"), "onnx", tmp_path / "out")
    file, document = folder / "vectors.safetensors", read_manifest(folder).document
    whole = load_file(file)
    assert whole["obs.obs"].shape == (STEPS, LANES, 3) and whole["episode_start"][0].all()
    assert whole["episode_start"][1:].any()
    changes: list[dict[str, Any]] = [
        {"episode_start": np.zeros((STEPS, LANES), bool)},
        {"state": whole["state"] + 1e-3},
        {name: part.reshape(-1, *part.shape[2:]) for name, part in whole.items()},
        {name: part[:2] for name, part in whole.items()},
    ]
    for change in changes:
        save_file({name: np.ascontiguousarray(part) for name, part in {**whole, **change}.items()}, file)
        _hashed(folder, document)
        with pytest.raises(InputError, match="not those of the student|expected"):
            api.verify(folder, episodes=0)


def test_what_no_target_or_name_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--to sb3: the student has a memory .* choose onnx, c or torch"):
        api.export(remembering("gaussian"), "sb3", tmp_path / "a", how=SYNTHETIC)
    space = spaces.Dict({"state_in": spaces.Box(-1, 1, (2,), np.float32), "x": spaces.Box(-1, 1, (1,), np.float32)})
    with pytest.raises(InputError, match="rename the keys"):
        api.export(remembering("gaussian", space=space), "onnx", tmp_path / "a", how=SYNTHETIC)
    broken = remembering("gaussian")
    broken.parts["gru.state"][0, 0] = float("nan")
    with pytest.raises(InputError, match=r"gru\.state holds a NaN"):
        api.export(broken, "onnx", tmp_path / "a", how=SYNTHETIC)
    assert not (tmp_path / "a").exists()


def cartpole(**changes: Any) -> GruStudent:
    """A random one for CartPole: its episodes are short, and no two of its actions are near each other."""
    env = gym.make("CartPole-v1")
    student = remembering("categorical", space=env.observation_space, **changes)
    parts = {**student.parts, "head.weight": student.parts["head.weight"][:, :2].contiguous() * 3,
             "head.bias": student.parts["head.bias"][:2].contiguous()}  # fmt: skip
    return replace(
        student, parts=parts, distribution=Categorical(2), action_space=env.action_space,
        action_map=action_map(env.action_space, unscale=False),
    )  # fmt: skip


def test_recorded_sequences_are_episodes_of_the_student(tmp_path: Path) -> None:
    how = Wishes(episodes=4, env="CartPole-v1")
    (found,) = api.export(cartpole(), "onnx", tmp_path / "out", how=how)
    assert found["verified"]["episodes"]["equal"] == 4
    manifest = read_manifest(tmp_path / "out")
    assert manifest.document["vectors"] == {
        "file": "vectors.safetensors", "count": 512, "source": "recorded", "sequences": LANES, "steps": STEPS,
    }  # fmt: skip
    stored = read(tmp_path / "out", manifest.interface)
    start = stored.feed.start.reshape(STEPS, LANES)
    assert start[0].all() and start.sum(0).min() >= 2
    assert np.abs(stored.feed.observations[0].reshape(STEPS, LANES, 4)[start][:2]).max() < 0.05, "as CartPole begins"


def test_recordings_keep_episodes_apart() -> None:
    kept = Recording(lambda observation: np.zeros(len(observation), np.int64), 2)
    for step in range(4):
        seen = np.array([[step], [10 + step]], np.float32)
        kept(seen, Turn(np.array([0, 1]), np.array([step == 0, step in (0, 2)])))
    assert [one.observation[:, 0].tolist() for one in kept.episodes()] == [[0, 1, 2, 3], [10, 11], [12, 13]]
    large = Recording(lambda observation: np.zeros(1, np.int64), 1)
    for step in range(9):
        large(np.zeros((1, 2**21), np.float64), Turn(np.array([0]), np.array([step == 0])))
    assert len(large.episodes()[0].observation) == 4, "64 MB"


def test_in_the_loop_every_environment_has_its_own_memory(tmp_path: Path) -> None:
    """Each environment's state goes into its own next step, and a new episode is told."""
    student = cartpole(seed=5)
    manifest = read_manifest(exported(student, "onnx", tmp_path / "out", verify=False))
    work = Work(NullTracker(), NeverStop())
    stage = Stage(EnvSpec("CartPole-v1"), student)
    right = target("onnx").load(manifest.folder, manifest.interface, manifest.facts)
    assert play(manifest, right, student, stage, Check(12), work)["equal"] == 12
    seen: list[Feed] = []

    def spied(feed: Feed) -> dict[str, Any]:
        seen.append(feed)
        return right(feed)

    play(manifest, spied, student, stage, Check(40), work)
    assert seen[0].start.all() and np.isnan(seen[0].state).all() and len(seen[0]) == 32
    np.testing.assert_array_equal(seen[1].state, right(seen[0])["state_out"])
    assert sum(int(one.start.sum()) for one in seen) == 40, "one start for each episode"


def _controller(seen: spaces.Dict) -> MlpStudent:
    """The linear controller of CartPole, of `place` and `speed`."""
    weight = torch.tensor([[1.0], [30.0], [5.0], [10.0]]) * torch.tensor([[-1.0, 1.0]])
    env = gym.make("CartPole-v1")
    plain = Normaliser(np.zeros(4, np.float32), np.ones(4, np.float32))
    return MlpStudent(
        plain, ((weight, torch.zeros(2)),), torch.zeros(0), "tanh", Categorical(2),
        action_map(env.action_space, unscale=False), seen, env.action_space,
    )  # fmt: skip


@pytest.mark.parametrize("to", ["onnx", "c"])
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_student_that_sees_some_entries_is_played_where_there_are_more(kind: str, to: str, tmp_path: Path) -> None:
    pair = spaces.Box(-100, 100, (2,), np.float32)
    seen = spaces.Dict({"place": pair, "speed": pair})
    student = _controller(seen) if kind == "mlp" else replace(cartpole(), observation_space=seen)
    stochastic = to == "c"
    how = Wishes(episodes=3, env=PartialCartPole, stochastic=stochastic)
    (found,) = api.export(student, to, tmp_path / "out", how=how)
    assert found["verified"]["episodes"]["count"] == 3
    if kind == "mlp" and not stochastic:
        assert found["verified"]["episodes"]["artifact"]["mean"] == 500.0
    manifest = read_manifest(tmp_path / "out")
    assert [port.name for port in manifest.interface.ports] == ["place", "speed"]
    again = api.verify(tmp_path / "out", episodes=3, trust=True, env=PartialCartPole)
    assert again["episodes"]["equal"] == 3 or stochastic
    recorded = read(tmp_path / "out", manifest.interface).feed.observations
    rows = np.arange(len(recorded[0])) % LANES < 6 if kind == "gru" else np.arange(256) < 192
    places = recorded[0][rows]
    assert len(np.unique(places[:, 0])) > 20, "places of real episodes, not the count that stands before them"
    assert np.abs(places[:, 1]).max() < 0.5, "angles"


def test_errors_that_a_student_amplifies_hide_nothing_and_refuse_nothing(tmp_path: Path) -> None:
    """With such weights a rounding error grows to a tenth within a sequence: judged from its start, a right export
    would be refused, or a wrong one pass."""
    student = remembering("squashed", hidden=48, seed=281877, space=spaces.Box(-5, 5, (12,), np.float32))
    folder = exported(student, "onnx", tmp_path / "out")
    graph = graph_of(student)
    _, whole = proof_of(graph, sequences_of(graph, None, None), LANES)
    steps = tolerance_of_steps(graph, read(folder, read_manifest(folder).interface))
    assert whole.action is not None and steps.action is not None
    assert whole.action.absolute.max() > 0.01 and steps.action.absolute.max() < 1e-4
    _rewritten(folder, "onnx", _changed("bias", lambda part: part + np.float32(1e-4))(graph))
    with pytest.raises(InputError, match="is not the student"):
        api.verify(folder, episodes=0)
