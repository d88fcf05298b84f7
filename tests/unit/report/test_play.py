from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from policykd.api import play as api_play
from policykd.loss.distributions import Categorical
from policykd.report.play import play
from policykd.spine.artifact import save_artifact
from policykd.spine.config.schema import EnvConfig
from policykd.spine.errors import InputError
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from policykd.teachers.load import load_teacher

pytest.importorskip("PIL", reason="films need pillow: pip install policykd[video]")
pytest.importorskip("pygame", reason="CartPole is drawn with pygame: pip install policykd[video]")

TEACHER = "builtin:cartpole"
ANY = EnvConfig()
CARTPOLE = {"id": "CartPole-v1", "kwargs": {}, "wrappers": [{"TimeLimit": {"max_episode_steps": 20}}]}


def student() -> MlpStudent:
    """Linear: pushes to where the pole falls."""
    env = gym.make("CartPole-v1")
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.0], [-1.0, 1.0], [-1.0, 1.0]])
    return MlpStudent(
        normaliser=Normaliser(np.zeros(4, np.float32), np.ones(4, np.float32)),
        layers=((weight, torch.zeros(2)),),
        log_std=torch.zeros(0),
        activation="tanh",
        distribution=Categorical(2),
        action_map=action_map(env.action_space, unscale=False),
        observation_space=env.observation_space,
        action_space=env.action_space,
    )


def saved(folder: Path, provenance: Any) -> Path:
    """A run folder with a student of that origin."""
    save_artifact(folder / "student.safetensors", *replace(student(), provenance=provenance).to_artifact())
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return saved(folder, {"config": {"env": CARTPOLE}})


def expected(policy: Any, seed: int, limit: int) -> dict[str, Any]:
    env = gym.wrappers.TimeLimit(gym.make("CartPole-v1"), limit)
    observation, steps, over = env.reset(seed=seed)[0], 0, False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy.predict(observation, deterministic=True)[0])
        steps, over = steps + 1, terminated or truncated
    return {"return": float(steps), "steps": steps}


def test_side_by_side(run: Path, tmp_path: Path) -> None:
    video = tmp_path / "a.gif"
    result = play(str(run), TEACHER, ANY, video, 3)
    assert result == {
        "video": str(video),
        "seed": 3,
        "policies": [
            {"label": "teacher", **expected(load_teacher(TEACHER), 3, 20)},
            {"label": "student", **expected(student(), 3, 20)},
        ],
    }
    from PIL import Image

    with Image.open(video) as image:
        assert image.size[0] == 800  # two panels of 600 columns, shrunk
        assert getattr(image, "n_frames", 0) > 5


def test_the_student_alone_by_its_file(run: Path, tmp_path: Path) -> None:
    result = play(str(run / "student.safetensors"), None, ANY, tmp_path / "a.gif", 0)
    assert result["policies"] == [{"label": "student", **expected(student(), 0, 20)}]


def test_mp4(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason=".mp4 needs ffmpeg: pip install policykd[video]")
    api_play(str(run), teacher=TEACHER, video=tmp_path / "a.mp4", seed=1)
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_a_teacher_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policykd.report.video._NO_LIMIT_STEPS", 5)
    result = play(TEACHER, None, ANY, tmp_path / "a.gif", 0)
    assert result["policies"] == [{"label": "teacher", "return": 5.0, "steps": 5}]


def test_window(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    result = play(str(run), None, ANY, None, 2)
    assert result == {"video": None, "seed": 2, "policies": [{"label": "student", **expected(student(), 2, 20)}]}


def test_no_display(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policykd.report.video.sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display"):
        play(str(run), None, ANY, None, 2)


def test_a_film_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    video = tmp_path / "a.gif"
    video.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        play(str(run), None, ANY, video, 0)
    assert video.read_bytes() == b"mine"


def test_the_named_environment_is_taken(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"env Acrobot-v1: its observation space is Box\(6,\).*the student was made for"
    ):
        play(str(run), None, EnvConfig(id="Acrobot-v1"), tmp_path / "a.gif", 0)
    with pytest.raises(InputError, match=r"env Acrobot-v1: .*the teacher was made for"):
        play(TEACHER, None, EnvConfig(id="Acrobot-v1"), tmp_path / "a.gif", 0)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"id": None}, "names no environment: say which one with --env ID"),
        ({"id": "antigravity:Thing-v0"}, "uses 'antigravity:Thing-v0'"),
        ({"id": "Thing-v0"}, "not a registered environment"),
        ({"id": 3}, "its environment cannot be read"),
        ({"id": "CartPole-v1", "wrappers": ["antigravity:Wrapper"]}, "uses 'antigravity:Wrapper'"),
        ({"id": "CartPole-v1", "wrappers": [{"RecordVideo": {"video_folder": "x"}}]}, "uses 'RecordVideo'"),
        ({"id": "CartPole-v1", "wrappers": [{"FrameStackObservation": {"stack_size": 10**9}}]}, "out of bounds"),
        ({"id": "CartPole-v1", "wrappers": ["TimeFeatureWrapper", {"StackFrames": {"n": 65}}]}, "out of bounds"),
        ({"id": "CartPole-v1", "wrappers": ["../TimeFeatureWrapper"]}, "no name of a wrapper"),
        ({"id": "CartPole-v1", "kwargs": {"a": [{"env_id": "antigravity:X-v0"}]}}, "uses 'antigravity:X-v0'"),
        ({"id": "CartPole-v1", "wrappers": 3}, "its environment cannot be read"),
        ({"id": "CartPole-v1", "wrappers": ["JaxToNumpy"]}, "needs a package"),
        ({"id": "Hopper-v5", "kwargs": {"xml_file": "passwd"}}, "'xml_file' is 'passwd', which could name a file"),
        ({"id": "CartPole-v1", "kwargs": {"a": [{"b": "/etc/passwd"}]}}, "could name a file"),
        ({"id": "C" * 200_000}, r"env C+\.\.\.: an id of 200000 characters"),
    ],
)
def test_nothing_that_a_file_names_is_imported(env: dict[str, Any], message: str, run: Path, tmp_path: Path) -> None:
    import sys

    saved(run, {"config": {"env": env}})
    with pytest.raises(InputError, match=message) as caught:
        play(str(run), None, EnvConfig(allow_import="antigravity" in message), tmp_path / "a.gif", 0)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "antigravity" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_naming_the_id_does_not_trust_the_files_wrappers(run: Path, tmp_path: Path) -> None:
    import sys

    saved(run, {"config": {"env": {"id": "gymnasium:CartPole-v1", "wrappers": ["antigravity:Wrapper"]}}})
    with pytest.raises(InputError, match="uses 'antigravity:Wrapper'"):
        play(str(run), None, EnvConfig(id="gymnasium:CartPole-v1", allow_import=True), tmp_path / "a.gif", 0)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("provenance", [{}, {"config": []}, {"config": {"env": []}}])
def test_a_student_without_a_record(
    provenance: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policykd.report.video._NO_LIMIT_STEPS", 25)
    saved(run, provenance)
    with pytest.raises(InputError, match="names no environment"):
        play(str(run), None, ANY, tmp_path / "a.gif", 0)
    result = play(str(run), None, EnvConfig(id="CartPole-v1"), tmp_path / "a.gif", 0)
    assert result["policies"][0]["steps"] == 25


def test_a_film_of_a_run_fetches_and_trusts_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a run folder names a teacher is not the user's word."""
    asked: list[Any] = []
    monkeypatch.setattr("policykd.report.play.load_teacher", lambda *a, **k: asked.append((a, k)))
    (run / "config.yaml").write_text("teacher: hf:evil/repo@0123\n")
    saved(run, {"config": {"env": CARTPOLE}, "teacher": {"sha256": "0"}})
    played = play(str(run), None, ANY, tmp_path / "a.gif", 0, trust=True)
    assert [each["label"] for each in played["policies"]] == ["student"] and asked == []
    monkeypatch.undo()
    (run / "config.yaml").write_text(f"teacher: {TEACHER}\n")
    for odd in (None, [1], "x"):
        saved(run, {"config": {"env": CARTPOLE}, "teacher": odd})
        assert len(play(str(run), None, ANY, tmp_path / f"{odd}.gif", 0)["policies"]) == 1


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seed(seed: int, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--seed"):
        play(str(run), None, ANY, tmp_path / "a.gif", seed)
