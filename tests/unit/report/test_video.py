from __future__ import annotations

import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from policykd.report.montage import Caption, as_frame, compose
from policykd.report.video import record, show
from policykd.spine.errors import InputError


class Constant:
    """A policy that always acts alike, and remembers what it was asked."""

    def __init__(self, action: Any) -> None:
        self.action, self.calls = action, []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.calls.append((np.array(observation), state, bool(episode_start[0]), deterministic))
        return np.asarray(self.action), (state or 0) + 1


class Colours(gym.Env):
    """Pictures of a chosen size; the action says after how many steps the episode ends. Odd sizes on purpose."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(100)

    def __init__(self, render_mode: str | None = None, size: tuple[int, int] = (211, 321), picture: Any = None) -> None:
        self.render_mode, self.size, self.picture, self.closed = render_mode, size, picture, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(1, np.float32), 1.5, self.count == int(action), False, {}

    def render(self):
        return np.full((*self.size, 3), 200, np.uint8) if self.picture is None else self.picture()

    def close(self):
        self.closed = True


def cartpole(mode: str) -> gym.Env:
    return gym.make("CartPole-v1", render_mode=mode)


def read_mp4(path) -> tuple[np.ndarray, dict[str, Any]]:
    import imageio.v3 as iio

    return iio.imread(path), iio.immeta(path)


def test_plays_the_same_seed_and_holds_who_ends_first(tmp_path):
    policies = [("teacher", Constant(6)), ("student", Constant(3))]
    result = record(policies, Colours, tmp_path / "x.mp4", seed=4)
    assert result["policies"] == [
        {"label": "teacher", "return": 9.0, "steps": 6, "finished": True},
        {"label": "student", "return": 4.5, "steps": 3, "finished": True},
    ]
    assert (result["fps"], result["frames"]) == (20, 1 + 6 + 20)
    frames, meta = read_mp4(tmp_path / "x.mp4")
    assert (meta["codec"], meta["pix_fmt"].split("(")[0], meta["fps"]) == ("h264", "yuv420p", 20.0)
    assert abs(len(frames) - result["frames"]) <= 1
    height, width = frames.shape[1:3]
    assert (height % 2, width % 2) == (0, 0)
    left, right = frames[5, height - 50, 100].mean(), frames[5, height - 50, width - 100].mean()
    assert left > 190
    assert right < 130  # the student is done and dimmed, the teacher goes on
    assert {path.name for path in tmp_path.iterdir()} == {"x.mp4"}


def test_calls_the_policy_as_sb3_does(tmp_path):
    policy = Constant(3)
    record([("a", policy)], Colours, tmp_path / "x.gif", seed=0)
    assert [call[1:] for call in policy.calls] == [(None, True, True), (1, False, True), (2, False, True)]


def test_both_see_the_same_start(tmp_path):
    policies = [("teacher", Constant(0)), ("student", Constant(1))]
    result = record(policies, cartpole, tmp_path / "x.gif", seed=4, max_steps=3)
    first = [policy.calls[0][0] for _, policy in policies]
    np.testing.assert_array_equal(*first)
    np.testing.assert_array_equal(first[0], gym.make("CartPole-v1").reset(seed=4)[0])
    assert [(entry["steps"], entry["finished"]) for entry in result["policies"]] == [(3, False), (3, False)]


def test_gif_is_thinned_and_keeps_its_speed(tmp_path):
    result = record([("a", Constant(0)), ("b", Constant(0))], cartpole, tmp_path / "x.GIF", seed=0, max_steps=5)
    with Image.open(tmp_path / "x.GIF") as image:
        assert image.format == "GIF"
        assert image.width <= 800
        seconds = 0.0
        for frame in range(image.n_frames):
            image.seek(frame)
            seconds += image.info["duration"] / 1000
    assert result["fps"] == 50
    assert seconds == pytest.approx(result["frames"] / 50, abs=0.05)


def test_fps_can_be_chosen(tmp_path):
    result = record([("a", Constant(2))], Colours, tmp_path / "x.mp4", seed=0, fps=7)
    assert result["fps"] == 7
    assert read_mp4(tmp_path / "x.mp4")[1]["fps"] == 7.0


@pytest.mark.parametrize("name", ["x.avi", "x"])
def test_other_files_are_refused_before_anything_is_played(tmp_path, name):
    policy = Constant(1)
    with pytest.raises(InputError, match=r"name it \.mp4 or \.gif"):
        record([("a", policy)], Colours, tmp_path / name, seed=0)
    assert policy.calls == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mode: Colours(None), "cannot render rgb_array"),
        (lambda mode: Colours(mode, picture=lambda: None), r"render\(\) gave nothing"),
        (lambda mode: Colours(mode, picture=lambda: np.zeros((4, 4))), r"render\(\) gave shape \(4, 4\)"),
        (lambda mode: Colours(mode, picture=lambda: 1 / 0), r"cannot render \(division by zero\)"),
    ],
)
def test_an_environment_without_pictures_is_wrong_input(tmp_path, make, message):
    with pytest.raises(InputError, match=message) as caught:
        record([("a", Constant(1))], make, tmp_path / "x.mp4", seed=0)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_no_policies_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="at least one policy"):
        record([], Colours, tmp_path / "x.mp4", seed=0)
    with pytest.raises(InputError, match="at least one policy"):
        show([], Colours, seed=0)


def test_without_ffmpeg_the_message_offers_a_gif(tmp_path, monkeypatch):
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    with pytest.raises(InputError, match=r"needs ffmpeg .*write a \.gif"):
        record([("a", Constant(1))], Colours, tmp_path / "x.mp4", seed=0)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"films need PIL.*pip install policykd\[video\]"):
        record([("a", Constant(1))], Colours, tmp_path / "x.gif", seed=0)


def test_a_place_that_cannot_be_written_is_wrong_input(tmp_path):
    (tmp_path / "x.gif").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        record([("a", Constant(1))], Colours, tmp_path / "x.gif", seed=0)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_failure_leaves_no_file_and_no_open_environment(tmp_path, suffix):
    class Failing(Constant):
        def predict(self, *args, **kwargs):
            if len(self.calls) == 2:
                raise RuntimeError("broken policy")
            return super().predict(*args, **kwargs)

    made: list[Colours] = []

    def make(mode: str) -> Colours:
        made.append(Colours(mode))
        return made[-1]

    with pytest.raises(RuntimeError, match="broken policy"):
        record([("a", Failing(9)), ("b", Constant(9))], make, tmp_path / f"x{suffix}", seed=0)
    assert list(tmp_path.iterdir()) == []
    assert [env.closed for env in made] == [True, True]


@pytest.mark.parametrize("method", ["reset", "step"])
def test_an_environment_that_raises_is_said_in_one_line(tmp_path, method):
    class Broken(Colours):
        pass

    def broken(self, *args, **kwargs):
        raise RuntimeError("boom\nand more")

    setattr(Broken, method, broken)
    with pytest.raises(InputError, match=r"seed 4: it raised RuntimeError: boom and more; mend the environment"):
        record([("a", Constant(1))], Broken, tmp_path / "x.gif", seed=4)
    assert list(tmp_path.iterdir()) == []


def test_window_plays_one_after_the_other():
    result = show([("a", Constant(0)), ("b", Constant(1))], cartpole, seed=0, max_steps=2)  # SDL's dummy driver
    assert [(entry["label"], entry["steps"]) for entry in result["policies"]] == [("a", 2), ("b", 2)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is always a display")
def test_no_display_is_wrong_input(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"no display.*--video"):
        show([("a", Constant(0))], cartpole, seed=0)


@pytest.mark.parametrize("size", [(84, 84), (210, 160), (480, 480), (401, 603)])
def test_pictures_have_even_sides_and_room_for_text(size):
    frame = np.full((*size, 3), 90, np.uint8)
    captions = [Caption("a name that is far too long for the strip above its picture " * 3, 12345, -1234.5, True)] * 2
    picture = compose([frame, frame], captions)
    assert picture.dtype == np.uint8
    assert (picture.shape[0] % 2, picture.shape[1] % 2) == (0, 0)
    assert picture.shape[1] >= 2 * 320
    assert picture[:20].max() > 200  # text


def test_captions_change_the_picture():
    frame = np.zeros((300, 400, 3), np.uint8)
    same = [compose([frame], [Caption("a", 1, 2.0, False)]) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    for other in (Caption("b", 1, 2.0, False), Caption("a", 2, 2.0, False), Caption("a", 1, 3.0, False)):
        assert (compose([frame], [other]) != same[0]).any()


def test_pictures_of_different_heights_are_padded():
    frames = [np.zeros((300, 400, 3), np.uint8), np.zeros((200, 400, 3), np.uint8)]
    assert compose(frames, [Caption("a", 0, 0.0, False)] * 2).shape[0] >= 300


def test_frames_may_have_other_integer_types():
    assert as_frame(np.zeros((4, 4, 3), np.int64), "x").dtype == np.uint8
