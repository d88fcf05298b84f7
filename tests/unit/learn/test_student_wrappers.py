"""Fails when a student with wrappers of its own sees what its teacher sees, cannot act alone, is judged on other
episodes than those of the run, or cannot be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from policykd import api
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.learn.setup.sources import fit_pair, policy_env, views_env
from policykd.rollout.envs import EnvSpec, make_env
from policykd.rollout.fit import fit_views
from policykd.rollout.kernels import kernel_of, params_of
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config, EnvConfig
from policykd.spine.errors import InputError, Interrupted
from policykd.spine.views import Views
from policykd.students.load import load_student
from policykd.students.view import Partial, View, seeing
from policykd.teachers.base import Teacher
from policykd.teachers.load import load_teacher
from policykd.teachers.normalize import Normalizer
from tests.support.runs import StopsBehind
from tests.unit.learn.test_distill import scripted, tiny

BUILTIN = "builtin:cartpole"
BLIND = "tests.support.viewed:Blind"
SHORT = {"TimeLimit": {"max_episode_steps": 100}}
DELAY = {"DelayObservation": {"delay": 1}}


def config(student: dict[str, Any], env: dict[str, Any] | None = None, **changes: Any) -> Config:
    student = {"width": 8, **({"depth": 1} if student.get("kind") != "gru" else {}), **student}
    env = {"wrappers": [SHORT], "allow_import": True, **(env or {})}
    changes = {"rollout": {"rounds": 3, "timesteps": 2400}, "update": {"n_updates": 200}, **changes}
    return tiny(1, student=student, env=env, teacher=BUILTIN, **changes)


def normalised() -> Teacher:
    """The controller behind statistics that change nothing but the scale of what its network takes."""
    plain = scripted()
    plain.network.layers[-1].weight.mul_(2.0)
    statistics = Normalizer(np.zeros(4), np.full(4, 4.0), epsilon=0.0, clip=1e6)
    return Teacher(plain.network, plain._interface, plain.info, statistics)


def test_a_feed_forward_student_sees_stacked_frames_alone(tmp_path: Path) -> None:
    own: list[Any] = [BLIND, {"StackFrames": {"n": 2}}]
    run = api.distill(config({"wrappers": own}), teacher=normalised(), out=tmp_path / "run")
    assert run.student.observation_space.shape == (8,) and run.student.footprint.constants == 16
    assert run.result["retention"]["value"] > 0.9 and run.result["backend"] == "sync"
    still = run.student.normaliser.mean.reshape(2, 4)[:, 1::2]
    assert not still.any(), "velocities, which it does not see"
    assert run.result["notes"][
        0
    ] == "student: sees the environment through Blind, its teacher through TimeLimit".replace(
        "Blind", f"{BLIND}, StackFrames"
    )
    recorded = load_config(str(run.folder / "config.yaml"), vouched=True)
    assert recorded.student.wrappers == own and recorded.env.wrappers == [SHORT]
    assert recorded.rollout.kernel == "numpy", "teacher and student each take their columns of a row"


def test_a_student_with_a_memory_is_judged_beside_its_teacher(tmp_path: Path) -> None:
    update = {"n_updates": 150, "batch_size": 256, "learning_rate": 0.02}
    student = {"kind": "gru", "wrappers": [DELAY]}
    run = api.distill(config(student, update=update), teacher=None, out=tmp_path / "run")
    assert run.result["retention"]["value"] > 0.7
    alone = api.evaluate(str(run.folder), how=Judging(episodes=10))
    assert alone["return"]["mean"] == run.result["student"]["return"]["mean"], "the same episodes as in the run"
    both = api.evaluate(str(run.folder), teacher=BUILTIN, how=Judging(episodes=10))
    assert both["return"] == alone["return"] and both["teacher"]["return"]["mean"] == 100
    assert both["agreement"] == run.result["agreement"]
    assert run.result["agreement"] < 1.0


def test_a_student_that_sees_too_little_fails_alone_as_in_the_run(tmp_path: Path) -> None:
    """Its returns differ from episode to episode, so that episodes of other seeds, or other views, would show."""
    one = config({"wrappers": [BLIND]}, rollout={"rounds": 2, "timesteps": 800}, update={"n_updates": 20})
    run = api.distill(one, out=tmp_path / "run")
    assert run.result["retention"]["value"] < 0.8
    own = EnvConfig(id="CartPole-v1", wrappers=[SHORT, BLIND], allow_import=True)
    judged = api.evaluate(str(run.folder), env=own, how=Judging(episodes=10))
    assert judged["return"] == run.result["student"]["return"]
    again = api.distill(load_config(str(run.folder / "config.yaml"), vouched=True), out=tmp_path / "again")
    files = [(each.folder / "student.safetensors").read_bytes() for each in (run, again)]
    assert files[0] == files[1]
    for env in (EnvConfig(), EnvConfig(id="CartPole-v1", allow_import=True)):
        with pytest.raises(InputError, match="what a file names is not imported"):
            policy_env(load_student(run.folder), "student", env)


def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    short: dict[str, Any] = {"rollout": {"rounds": 3, "timesteps": 900}, "update": {"n_updates": 20}}
    one = config({"wrappers": [DELAY]}, {"allow_import": False}, **short)
    whole = api.distill(one, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        api.distill(one, out=tmp_path / "run", stop=StopsBehind(tmp_path / "run" / "checkpoints" / "latest.json"))
    resumed = api.resume(tmp_path / "run")
    assert (whole.folder / "student.safetensors").read_bytes() == (resumed.folder / "student.safetensors").read_bytes()
    student, teacher = resumed.student, load_teacher(BUILTIN)
    spec = views_env(student, "student", EnvConfig())
    assert policy_env(student, "student", EnvConfig()).wrappers == (
        ("TimeLimit", {"max_episode_steps": 100}),
        ("DelayObservation", {"delay": 1}),
    )
    named = policy_env(student, "student", EnvConfig(wrappers=[SHORT, {"StackFrames": {"n": 2}}])).wrappers
    assert named[1:] == (("StackFrames", {"n": 2}),), "those that the caller names are the student's, and all"
    seen, master, both = fit_pair((student, "student"), (teacher, "teacher"), spec)
    env = make_env(both)
    first, second = env.reset(seed=5)[0], env.step(1)[0]
    env.close()
    assert np.array_equal(second["student"], first["teacher"]) and not np.array_equal(*second.values())
    for policy, bare, view in ((seen, student, "student"), (master, teacher, "teacher")):
        expected = bare.predict(second[view], deterministic=True)[0]
        assert policy.predict(second, deterministic=True)[0] == expected


@pytest.mark.parametrize("made", [scripted, normalised])
def test_rows_of_both_views_give_what_each_would_compute_alone(made: Any) -> None:
    teacher = made()
    spec = EnvSpec("CartPole-v1", student_wrappers=(("DtypeObservation", {"dtype": "float64"}),))
    master, both = fit_views(teacher, "teacher", spec)
    assert isinstance(master.observation_space, Views) and both.packing is not None
    rows = np.random.default_rng(0).normal(size=(6, 8)).astype(both.packing.dtype)
    theirs, own = rows[:, :4].astype(np.float32), rows[:, 4:]
    alone = teacher.distribution_params(torch.from_numpy(theirs))
    assert torch.equal(master.distribution_params(torch.from_numpy(rows)), alone)
    kernel, plain = kernel_of(master), kernel_of(teacher)
    assert kernel is not None and plain is not None
    assert np.array_equal(params_of(kernel, rows), params_of(plain, theirs))
    view = View.of(None, master.observation_space, both.packing)
    assert np.array_equal(view.features(rows), own.astype(np.float32)) and view.packed(rows).dtype == np.float64
    assert torch.equal(view.tensor_features(torch.from_numpy(rows)), torch.from_numpy(own))
    assert master.fingerprint == teacher.fingerprint and master.to("cpu").packing == master.packing


def test_keys_choose_from_what_the_wrappers_give(tmp_path: Path) -> None:
    wrappers = [{"TimeAwareObservation": {"flatten": False}}]
    one = config(
        {"wrappers": wrappers, "keys": ["obs"]}, rollout={"rounds": 1, "timesteps": 300}, update={"n_updates": 20}
    )
    run = api.distill(one, out=tmp_path / "run")
    assert list(run.student.observation_space) == ["obs"] and run.student.footprint.constants == 8
    judged = api.evaluate(str(run.folder), teacher=BUILTIN, how=Judging(episodes=10))
    assert judged["return"] == run.result["student"]["return"] and judged["retention"] is not None
    views = Views(gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (3,)))
    assert not isinstance(seeing(run.student, views), Partial), "these are not its own observations"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["student.wrappers=[LateObservation]"], "student.wrappers: LateObservation is not a wrapper"),
        (
            ["student.wrappers=[{TimeLimit: {max_episode_steps: 9}}]"],
            "student.wrappers: TimeLimit is no wrapper",
        ),
        (["student.wrappers=[DelayObservation]", "env.backend=native"], "env.backend native: has no single"),
        (["student.wrappers=[DelayObservation]"], "student.wrappers: DelayObservation cannot be applied"),
        ([f"student.wrappers=['{BLIND}']"], "add --allow-import"),
        (["student.wrappers=[{StackFrames: {n: 2}}]", "student.keys=[a]"], "expected a Dict: leave student.keys out"),
        (
            ["student.kind=cnn", "student.wrappers=[{ReshapeObservation: {shape: [2, 2]}}]"],
            "use student.kind=mlp, or keep the channel of grey pictures ({GrayscaleObservation: {keep_dim: true}})",
        ),
        (["student.wrappers=3"], "student.wrappers"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", *words, "--out", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and len(line.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_view_that_is_too_large_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = "student.wrappers=[AddRenderObservation, {ResizeObservation: {shape: [60, 50]}}]"
    few = ["rollout.rounds=1", "rollout.timesteps=64", "evaluate.episodes=2", "evaluate.select_episodes=2"]
    words = ["env.kwargs={render_mode: rgb_array}", "env.wrappers=[{TimeLimit: {max_episode_steps: 9}}]", large, *few]
    assert main(["distill", *words, "--out", str(tmp_path / "run")]) == 2
    assert "student.wrappers: the student observes 9000 numbers" in capsys.readouterr().err
