"""env_wrapper and frame_stack of a zoo folder: what is read, what is refused, and that nothing is imported by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.env_util import make_vec_env

from policykd.rollout.envs import make_env, teacher_spec
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.teachers.load import load_teacher
from tests.support.teachers import refused, write_yaml

TIME = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"


def configured(zoo: Path, **values: Any) -> Path:
    write_yaml(zoo / "LunarLander-v2" / "config.yml", **values)
    return zoo


@pytest.mark.parametrize(
    ("value", "wrappers"),
    [
        (TIME, (("TimeFeatureWrapper", {}),)),
        ([TIME], (("TimeFeatureWrapper", {}),)),
        ([{TIME: {"test_mode": True}}], (("TimeFeatureWrapper", {"test_mode": True}),)),
        ({TIME: {"max_steps": 500}}, (("TimeFeatureWrapper", {"max_steps": 500}),)),
        ({TIME: None}, (("TimeFeatureWrapper", {}),)),
        ("sb3_contrib.common.wrappers.time_feature.TimeFeatureWrapper", (("TimeFeatureWrapper", {}),)),
        ("utils.wrappers.TimeFeatureWrapper", (("TimeFeatureWrapper", {}),)),
        ("rl_zoo3.wrappers.TimeFeatureWrapper", (("TimeFeatureWrapper", {}),)),
        ([{ATARI: {"terminal_on_life_loss": False}}], (("AtariWrapper", {"terminal_on_life_loss": False}),)),
        ("gym.wrappers.FlattenObservation", (("FlattenObservation", {}),)),
        (
            [
                {"gymnasium.wrappers.time_limit.TimeLimit": {"max_episode_steps": 100}},
                {"rl_zoo3.wrappers.YAMLCompatResizeObservation": {"shape": [64, 64]}},
                {"gymnasium.wrappers.transform_observation.GrayscaleObservation": {"keep_dim": True}},
                "gym.wrappers.gray_scale_observation.GrayScaleObservation",
            ],
            (
                ("TimeLimit", {"max_episode_steps": 100}),
                ("ResizeObservation", {"shape": [64, 64]}),
                ("GrayscaleObservation", {"keep_dim": True}),
                ("GrayscaleObservation", {}),
            ),
        ),
        ({"rl_zoo3.wrappers.HistoryWrapper": {"horizon": 2}}, (("rl_zoo3.wrappers:HistoryWrapper", {"horizon": 2}),)),
        ("os.system", (("os:system", {}),)),
        *((nothing, ()) for nothing in (None, [], "", {})),
    ],
)
def test_names_of_the_zoo(zoo: Path, value: Any, wrappers: Any) -> None:
    info = load_teacher(configured(zoo, env_wrapper=value), vec_normalize=None).info
    assert info.wrappers == wrappers
    assert [note for note in info.notes if "behind the wrappers" in note] == (
        [note for note in info.notes if all(name in note for name, _ in wrappers)] if wrappers else []
    )


@pytest.mark.parametrize(("value", "n"), [(4, 4), ("4", 4), (64, 64), (1, 1), ("1", 1), (None, 1), ("", 1)])
def test_frames_come_outside_of_the_wrappers(zoo: Path, value: Any, n: int) -> None:
    stack = (("StackFrames", {"n": n}),) if n > 1 else ()
    assert load_teacher(configured(zoo, env_wrapper=TIME, frame_stack=value)).info.wrappers == (
        ("TimeFeatureWrapper", {}),
        *stack,
    )


@pytest.mark.parametrize(
    "value", ["../evil", "/etc/passwd", "os", "a b.C", "a.b.C()", "a..B", ".a.B", "a.B\n", "x.Y" * 100, "é.B", "a:B"]
)
def test_what_is_no_name_of_a_class(zoo: Path, value: str) -> None:
    refused(configured(zoo, env_wrapper=value), "config.yml", "env_wrapper", "no name of a class")
    refused(configured(zoo, env_wrapper=[{value: {"a": 1}}]), "config.yml", "env_wrapper", "no name of a class")


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (3, "a int"),
        ([[TIME]], "a list"),
        ([{}], "0 entries"),
        ({TIME: {}, ATARI: {}}, "2 entries"),
        ({TIME: 3}, "plain values"),
        ({TIME: {"max_steps": {"a": {"a": {"a": {}}}}}}, "plain values"),
        ({TIME: {"other": {"a": 10**6}}}, "out of bounds"),
        ({"a.B": {"x": [[[[1]]]]}}, "plain values"),
        ({TIME: {"skip": 10**12}}, "out of bounds"),
        ({ATARI: {"screen_size": 10**6}}, "out of bounds"),
        ({"gymnasium.wrappers.FrameStackObservation": {"stack_size": 65}}, "out of bounds"),
        ({"gymnasium.wrappers.ResizeObservation": {"shape": [9_000, 9_000]}}, "out of bounds"),
        ({"gymnasium.wrappers.AddRenderObservation": {"render_key": "x" * 300}}, "out of bounds"),
        ({"gymnasium.wrappers.RecordVideo": {"video_folder": "x"}}, "writes files"),
        ([TIME] * 33, "33 wrappers"),
    ],
)
def test_wrappers_that_are_refused(zoo: Path, value: Any, part: str) -> None:
    refused(configured(zoo, env_wrapper=value), "config.yml", "env_wrapper", part)


@pytest.mark.parametrize("value", [0, -1, 65, 10**9, True, 2.5, "x", "9" * 50, [4], {"n": 4}])
def test_a_number_of_frames_out_of_bounds(zoo: Path, value: Any) -> None:
    refused(configured(zoo, frame_stack=value), "config.yml", "frame_stack", "1 to 64")


def test_frames_of_normalised_observations(zoo: Path) -> None:
    refused(
        configured(zoo, frame_stack=4, normalize=True), "config.yml", "frame_stack 4", "normalised", "one of the two"
    )
    reward = configured(zoo, frame_stack=4, normalize="dict(norm_obs=False, norm_reward=True)")
    assert load_teacher(reward).info.wrappers == (("StackFrames", {"n": 4}),)


def test_hyperparameters_of_the_command_line_where_there_is_no_config(zoo: Path) -> None:
    (zoo / "LunarLander-v2" / "config.yml").unlink()
    write_yaml(zoo / "LunarLander-v2" / "args.yml", env="LunarLander-v2", hyperparams={"env_wrapper": [TIME]})
    assert load_teacher(zoo).info.wrappers == (("TimeFeatureWrapper", {}),)


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "subprocess.Popen", "antigravity.fly", "zoo_evil.Evil"])
def test_nothing_is_imported_and_the_line_says_what_to_do(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "zoo_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nEvil = print\n")
    monkeypatch.syspath_prepend(tmp_path)
    info = load_teacher(configured(zoo, env_wrapper=[TIME, {name: {"args": "ls"}}]), env_id="CartPole-v1").info
    with pytest.raises(InputError) as error:
        teacher_spec(EnvConfig(), info)
    for part in (str(zoo), name.replace(".", ":"), "--allow-import", "env.wrappers"):
        assert part in str(error.value)
    assert not (tmp_path / "ran").exists() and not {"zoo_evil", "antigravity"} & set(sys.modules)
    named = EnvConfig(wrappers=["TimeAwareObservation"])  # the user's own words win
    assert teacher_spec(named, info).wrappers == (("TimeAwareObservation", {}),)
    if name not in ("zoo_evil.Evil", "antigravity.fly"):
        with pytest.raises(InputError, match="not a subclass"):
            make_env(teacher_spec(EnvConfig(allow_import=True), info))


def test_a_class_that_is_installed_and_allowed(zoo: Path) -> None:
    from stable_baselines3.common.monitor import Monitor

    name = "stable_baselines3.common.monitor.Monitor"
    teacher = load_teacher(
        configured(zoo, env_wrapper=[TIME, {name: {"allow_early_resets": True}}]), env_id="CartPole-v1"
    )
    env = make_env(teacher_spec(EnvConfig(allow_import=True), teacher.info))
    assert isinstance(env, Monitor) and type(env.env).__name__ == "TimeFeatureWrapper"
    info = load_teacher(configured(zoo, env_wrapper="no_such_package.A"), env_id="CartPole-v1").info
    with pytest.raises(InputError, match="no_such_package"):
        make_env(teacher_spec(EnvConfig(allow_import=True), info))


def test_the_environment_is_the_zoo_s(zoo: Path) -> None:
    """The same observations as from what the zoo makes of the same names: the first listed is the innermost."""
    from gymnasium.wrappers import TimeLimit
    from sb3_contrib.common.wrappers import TimeFeatureWrapper

    def wrapped(env: Any) -> Any:
        return TimeFeatureWrapper(TimeLimit(env, 30), test_mode=False)

    value = [{"gym.wrappers.TimeLimit": {"max_episode_steps": 30}}, {TIME: {"test_mode": False}}]
    info = load_teacher(configured(zoo, env_wrapper=value), env_id="MountainCar-v0").info
    ours, theirs = make_env(teacher_spec(EnvConfig(), info)), make_vec_env("MountainCar-v0", wrapper_class=wrapped)
    theirs.seed(4)
    assert ours.reset(seed=4)[0].tobytes() == theirs.reset()[0].tobytes()
    for _ in range(29):
        assert ours.step(1)[0].tobytes() == theirs.step([1])[0][0].tobytes()
    assert ours.step(1)[3]


def test_wrappers_of_every_environment_that_the_teacher_gets(zoo: Path) -> None:
    info = load_teacher(configured(zoo, env_wrapper=TIME)).info
    for config in (EnvConfig(), EnvConfig(id="CartPole-v1"), EnvConfig(id="CartPole-v1", kwargs={"render_mode": None})):
        assert teacher_spec(config, info).wrappers == (("TimeFeatureWrapper", {}),)
    assert teacher_spec(EnvConfig(), load_teacher("builtin:cartpole").info).backend == "native"


def test_what_inspect_says(zoo: Path) -> None:
    from policykd import api

    found = api.inspect(configured(zoo, env_wrapper=[{TIME: {"test_mode": True}}], frame_stack=2))
    assert found["wrappers"] == [{"TimeFeatureWrapper": {"test_mode": True}}, {"StackFrames": {"n": 2}}]
    assert json.loads(json.dumps(found["wrappers"])) == found["wrappers"]
    assert gym.spec("LunarLander-v3").id == found["env"]
