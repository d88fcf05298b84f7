from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policykd.report import montage, video
from policykd.report.montage import Caption, as_frame, compose, shrunk
from policykd.report.video import record, show
from policykd.spine.errors import InputError

pytest.importorskip("PIL", reason="films need pillow: pip install policykd[video]")
needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason=".mp4 needs ffmpeg: pip install policykd[video]"
)


class Painted(gym.Env[Any, Any]):
    """Counts to `length`; its picture's brightness is its step, and its reward the action."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 20}
    observation_space = gym.spaces.Discrete(1000)
    action_space = gym.spaces.Discrete(10)

    def __init__(self, render_mode: str | None = None, length: int = 5, size: tuple[int, int] = (60, 333)) -> None:
        self.render_mode, self.length, self.size = render_mode, length, size
        self.t, self.closed = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.first = 0, seed
        return 0, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.t, float(action), self.t >= min(self.length, 2 + int(action)), False, {}

    def render(self) -> Any:
        return np.full((*self.size, 3), 10 * self.t, np.uint8)

    def close(self) -> None:
        self.closed = True


class Always:
    """Chooses one action and keeps what it was told."""

    def __init__(self, action: int) -> None:
        self.action, self.calls = action, list[tuple[Any, ...]]()

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        self.calls.append((observation, state, bool(episode_start[0]), deterministic))
        return np.array(self.action), len(self.calls)


class Envs:
    """Makes `Painted` environments and keeps them."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs, self.made = kwargs, list[Painted]()

    def __call__(self, render_mode: str) -> Painted:
        self.made.append(Painted(render_mode, **self.kwargs))
        return self.made[-1]


def test_gif_of_two_policies(tmp_path: Path) -> None:
    from PIL import Image

    envs, slow, fast = Envs(), Always(3), Always(0)
    result = record([("teacher", slow), ("student", fast)], envs, tmp_path / "new" / "a.gif", seed=4)
    assert result == {
        "path": str(tmp_path / "new" / "a.gif"),
        "fps": 20,
        "frames": 26,  # the start, 5 steps of the longer episode, one second held
        "policies": [
            {"label": "teacher", "return": 15.0, "steps": 5, "finished": True},
            {"label": "student", "return": 0.0, "steps": 2, "finished": True},
        ],
    }
    assert [env.first for env in envs.made] == [4, 4]
    assert all(env.closed for env in envs.made)
    assert slow.calls[:2] == [(0, None, True, True), (1, 1, False, True)]
    with Image.open(tmp_path / "new" / "a.gif") as image:
        assert image.size == (670, compose([np.zeros((60, 333, 3), np.uint8)], [Caption("", 0, 0, False)]).shape[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.gif"]


@needs_ffmpeg
def test_mp4_reads_back(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = tmp_path / "a.mp4"
    result = record([("a", Always(9))], Envs(), path, seed=0, fps=10)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert (frames, result["frames"], result["fps"]) == (16, 16, 10)
    assert seconds == pytest.approx(1.6, abs=0.11)


def test_an_episode_can_be_cut(tmp_path: Path) -> None:
    played = record([("a", Always(9))], Envs(length=100), tmp_path / "a.gif", seed=0, max_steps=3)["policies"]
    assert played == [{"label": "a", "return": 27.0, "steps": 3, "finished": False}]


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    class Broken(Always):
        def predict(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            raise InputError("no")

    envs = Envs()
    with pytest.raises(InputError, match="^no$"):
        record([("a", Broken(1))], envs, tmp_path / "a.gif", seed=0)
    assert list(tmp_path.iterdir()) == []
    assert envs.made[0].closed


class Blind(Painted):
    metadata = {"render_modes": []}


class Mute(Painted):
    def render(self) -> Any:
        return None


class Driverless(Painted):
    def render(self) -> Any:
        raise OSError("libGL.so.1: cannot open\nshared object file")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (Envs(), "a.avi", "name it .mp4 or .gif"),
        (Envs(), "a", "a file without extension"),
        (Blind, "a.gif", "it offers no render mode"),
        (lambda mode: Painted(None), "a.gif", "cannot render rgb_array"),
        (Mute, "a.gif", r"render\(\) gave nothing"),
        (Driverless, "a.gif", r"libGL.so.1: cannot open shared object file\); install policykd\[video\]"),
    ],
)
def test_what_cannot_be_filmed(make: Callable[[str], Any], name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        record([("a", Always(1))], make, tmp_path / name, seed=0)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"films need PIL, which is not installed: pip install policykd\[video\]"):
        record([("a", Always(1))], Envs(), tmp_path / "a.mp4", seed=0)


def test_nothing_to_show() -> None:
    with pytest.raises(InputError, match="at least one policy"):
        record([], Envs(), Path("a.gif"), seed=0)


def test_window_plays_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    envs = Envs()
    played = show([("a", Always(3)), ("b", Always(0))], envs, seed=1)["policies"]
    assert [(entry["label"], entry["steps"], entry["finished"]) for entry in played] == [("a", 5, True), ("b", 2, True)]
    assert [env.render_mode for env in envs.made] == ["human", "human"]
    assert all(env.closed for env in envs.made)


def test_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no display .* --video FILE.mp4"):
        show([("a", Always(3))], Envs(), seed=1)


def test_panels_stand_side_by_side() -> None:
    small, large = np.full((40, 160, 3), 200, np.uint8), np.full((101, 321, 3), 100, np.uint8)
    whole = compose([small, large], [Caption("a", 1, 0.0, True), Caption("b", 1, 0.0, False)])
    bar = montage._bar(320, Caption("a", 1, 0.0, True), (1, 2, 3)).shape[0]
    assert (whole.shape[0] % 2, whole.shape[1] % 2) == (0, 0)
    assert whole.shape[1] in range(320 + 4 + 321, 320 + 4 + 321 + 2)
    assert (whole[bar + 2, 5] == 110).all()  # an ended episode is dimmed; 160 columns were doubled
    assert (whole[bar + 2, 330] == 100).all()
    assert (whole[-2, 5] == montage._BACKGROUND).all()


def test_a_long_name_is_cut() -> None:
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("RGB", (100, 20)))
    assert montage._fitted(draw, "short", 100, 13) == "short"
    cut = montage._fitted(draw, "a very long name of a policy", 100, 13)
    assert cut.startswith("a very")
    assert cut.endswith("...")
    assert draw.textlength(cut, montage._font(13)) <= 100


def test_shrunk() -> None:
    frame = np.zeros((100, 1000, 3), np.uint8)
    assert shrunk(frame, 1000) is frame
    assert shrunk(frame, 500).shape == (50, 500, 3)


@pytest.mark.parametrize("rendered", [None, np.zeros((3, 3)), np.zeros((3, 3, 4)), np.zeros((0, 3, 3))])
def test_what_is_no_picture(rendered: Any) -> None:
    with pytest.raises(InputError, match="expected an image"):
        as_frame(rendered, "X-v0")
