"""Students of pictures that others make: a MiniGrid room, an Atari game in Gymnasium's own wrappers. Fails when such an
environment cannot be made, distilled in, judged again by the student's file alone, or exported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from policykd import Config, api, make_custom_teacher
from policykd.exports.bundle import Wishes
from policykd.learn.judging.judge import Judging
from policykd.rollout.envs import EnvSpec, make_env, registered
from policykd.spine.errors import InputError
from policykd.spine.wrappers import GRIDS, judged_by, parsed, seen_by
from policykd.teachers.base import Teacher

GRID = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="minigrid is not installed: pip install 'policykd[minigrid]'"
)
ALE = pytest.mark.skipif(
    importlib.util.find_spec("ale_py") is None, reason="ale_py is not installed: pip install 'policykd[atari]'"
)
ROOM = {"id": "MiniGrid-Empty-Random-5x5-v0", "wrappers": ["ImgObsWrapper"]}
FREEWAY = {
    "id": "ALE/Freeway-v5",
    "kwargs": {"frameskip": 4, "repeat_action_probability": 0.0},
    "wrappers": [
        {"TimeLimit": {"max_episode_steps": 100}},
        {"ResizeObservation": {"shape": [36, 36]}},
        {"GrayscaleObservation": {"keep_dim": True}},
        {"StackFrames": {"n": 2}},
    ],
}


def to_the_goal(observation: Tensor) -> Tensor:
    """Logits of MiniGrid's actions (left, right, forward, ...) of one who stands at column 3 of the last row of the
    [7, 7, 3] that it sees, of which objects are the first numbers, and the goal an 8."""
    goal = observation[..., 0] == 8  # [B, column, row]
    columns = torch.arange(7.0)[None, :, None]
    column = (goal * columns).sum((1, 2))
    ahead, seen = goal[:, :, :6].any(-1).any(-1), goal.any(-1).any(-1)
    wanted = torch.where(ahead, 2, torch.where(seen & (column < 3), 0, 1))
    return 8.0 * torch.nn.functional.one_hot(wanted, 7).float()


def upwards(observation: Tensor) -> Tensor:
    """Logits of Freeway's actions (nothing, up, down)."""
    return torch.tensor([0.0, 5.0, -1.0]).expand(len(observation), 3).contiguous()


def taught(env: dict[str, Any], forward: Callable[[Tensor], Tensor]) -> Teacher:
    wrappers = tuple(map(parsed, env["wrappers"]))
    one = make_env(EnvSpec(env["id"], env.get("kwargs", {}), wrappers))
    one.close()
    return make_custom_teacher(forward, one.observation_space, one.action_space, name=forward.__name__)


def distilled(env: dict[str, Any], forward: Callable[[Tensor], Tensor], out: Path, **more: Any) -> api.Run:
    config = {
        "env": env,
        "student": {"kind": "cnn", "channels": 4, "width": 16, **more},
        "rollout": {"rounds": 3, "n_envs": 2, "n_steps": 200},
        "update": {"n_updates": 120, "batch_size": 64},
        "evaluate": {"episodes": 6, "select_episodes": 4},
        "device": "cpu",
    }
    return api.distill(Config.model_validate(config), teacher=taught(env, forward), out=out)


@pytest.mark.slow  # an environment of another package
@GRID
def test_a_student_finds_the_goal_of_a_room(tmp_path: Path) -> None:
    run = distilled(ROOM, to_the_goal, tmp_path / "run")
    assert run.student.observation_space.shape == (7, 7, 3)
    assert run.result["teacher"]["return"]["mean"] > 0.9 and run.result["retention"]["value"] > 0.9
    judged = api.evaluate(str(run.folder), how=Judging(episodes=6))
    assert judged["return"] == run.result["student"]["return"], "its file names environment and wrapper, and no import"
    made = api.export(str(run.folder), ["onnx", "c"], tmp_path / "exports", how=Wishes(episodes=4))
    assert [document["verified"]["episodes"]["equal"] for document in made] == [4, 4]
    two = distilled(ROOM, to_the_goal, tmp_path / "two", kind="multi", wrappers=[_FILTERED])
    assert list(two.student.observation_space) == ["direction", "image"] and two.result["retention"]["value"] > 0.9


_FILTERED = {"FilterObservation": {"filter_keys": ["direction", "image"]}}


@pytest.mark.slow  # an environment of another package
@ALE
def test_a_student_plays_a_game_in_the_usual_wrappers(tmp_path: Path) -> None:
    run = distilled(FREEWAY, upwards, tmp_path / "run")
    assert run.student.observation_space.shape == (36, 36, 2)
    assert run.result["teacher"]["return"]["mean"] > 0.5 and run.result["retention"]["value"] > 0.9
    assert api.evaluate(str(run.folder), how=Judging(episodes=6))["return"] == run.result["student"]["return"]
    (made,) = api.export(str(run.folder), ["onnx"], tmp_path / "onnx", how=Wishes(episodes=2))
    assert made["verified"]["episodes"]["equal"] == 2


def test_minigrid_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minigrid", "minigrid.wrappers"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in gym.registry if name.startswith("MiniGrid")]:
        monkeypatch.delitem(gym.registry, name)
    with pytest.raises(InputError, match=r"MiniGrid-Empty-5x5-v0: needs minigrid, .*policykd\[minigrid\]"):
        registered(EnvSpec("MiniGrid-Empty-5x5-v0"))
    with pytest.raises(InputError, match=r"^env.wrappers: ImgObsWrapper needs minigrid, .*policykd\[minigrid\]"):
        make_env(EnvSpec("CartPole-v1", wrappers=(("ImgObsWrapper", {}),)))
    with pytest.raises(InputError, match="not a registered environment"):
        registered(EnvSpec("Minigrid-Empty-5x5-v0"))


@GRID
def test_wrappers_of_minigrid_observe_alone() -> None:
    from minigrid import wrappers

    every = tuple((name, {}) for name in GRIDS)
    assert seen_by(every) == every and judged_by(every) == ()
    assert all(issubclass(getattr(wrappers, name), gym.ObservationWrapper) for name in GRIDS)
    with pytest.raises(InputError, match="ImgObsWrapper cannot be applied"):
        make_env(EnvSpec("CartPole-v1", wrappers=(("ImgObsWrapper", {}),)))
