"""Film policies side by side on the same seed, or watch them one after the other in a window."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from policykd.report.montage import Caption, Frame, as_frame, compose, shrunk
from policykd.spine.errors import InputError
from policykd.spine.files import make_folder

MakeEnv = Callable[[str], Any]  # render mode -> gymnasium.Env
Labelled = Sequence[tuple[str, "Player"]]

_NO_POLICY = "nothing to show: expected at least one policy"
_NO_LIMIT_STEPS = 10_000  # for environments that never end by themselves
_FPS = 30  # for environments that do not say
_HELD_SECONDS = 1.0  # the last picture stays, so that the final figures can be read
_GIF_WIDTH = 800
_GIF_FPS = 25  # a GIF counts in hundredths of a second, and viewers slow down below 2 of them


class Player(Protocol):
    """Anything that predicts as stable-baselines3 does: a teacher, a student, or an SB3 model."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The action for one observation, and the recurrent state."""
        ...


class _Play:
    """One policy in one episode."""

    def __init__(self, label: str, policy: Player, env: Any, seed: int) -> None:
        self.label, self.policy, self.env = label, policy, env
        self.steps, self.total, self.done = 0, 0.0, False
        self._state: Any = None
        self._masked = bool(getattr(policy, "masked", False))
        with _raising(env, seed):
            self._observation = env.reset(seed=seed)[0]
        self._seed = seed

    def step(self) -> None:
        """One step, by the mode of the policy's distribution."""
        start = np.array([self.steps == 0])
        masks = {}
        if self._masked:
            with _raising(self.env, self._seed):
                masks = {"action_masks": self.env.get_wrapper_attr("action_masks")()}
        action, self._state = self.policy.predict(self._observation, self._state, start, deterministic=True, **masks)
        chosen = action.item() if np.ndim(action) == 0 else action
        with _raising(self.env, self._seed):
            self._observation, reward, terminated, truncated, _ = self.env.step(chosen)
        self.steps, self.total = self.steps + 1, self.total + float(reward)
        self.done = bool(terminated or truncated)

    def caption(self, done: bool) -> Caption:
        return Caption(self.label, self.steps, self.total, done)

    def result(self) -> dict[str, Any]:
        return {"label": self.label, "return": self.total, "steps": self.steps, "finished": self.done}


def record(
    policies: Labelled,
    make_env: MakeEnv,
    path: Path,
    *,
    seed: int,
    max_steps: int | None = None,
    fps: int | None = None,
) -> dict[str, Any]:
    """Film one episode of each policy, from the same seed, deterministic, side by side into `path` (.mp4 or .gif).

    A policy that ends first holds its last picture, marked "done". `fps` is the environment's own where None.
    Returns {"path", "fps", "frames", "policies": [{"label", "return", "steps", "finished"}]}; `finished` is False
    where `max_steps` cut the episode.
    """
    path = Path(path)
    write = _writer(path)
    with _environments(policies, make_env, "rgb_array") as envs:
        rate = int(fps or envs[0].metadata.get("render_fps") or _FPS)
        plays = [_Play(label, policy, env, seed) for (label, policy), env in zip(policies, envs, strict=True)]
        counted = _Counted(_pictures(plays, max_steps or _NO_LIMIT_STEPS, round(rate * _HELD_SECONDS)))
        make_folder(path.parent)
        partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix.lower()}")
        try:
            write(counted, partial, rate)
            partial.replace(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({_one_line(error)}); choose another place") from error
        finally:
            partial.unlink(missing_ok=True)
    return {"path": str(path), "fps": rate, "frames": counted.number, "policies": [play.result() for play in plays]}


def show(policies: Labelled, make_env: MakeEnv, *, seed: int, max_steps: int | None = None) -> dict[str, Any]:
    """Play one episode of each policy in a window, one after the other; returns {"policies": [...]} as `record`."""
    headless = sys.platform.startswith("linux") and not any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    )
    if headless:
        raise InputError("no display to show a window on (DISPLAY is not set); write a file instead: --video FILE.mp4")
    if not policies:
        raise InputError(_NO_POLICY)
    results = []
    for label, policy in policies:
        with _environments([(label, policy)], make_env, "human") as envs:
            with _rendering(envs[0]):
                play = _Play(label, policy, envs[0], seed)
            while not play.done and play.steps < (max_steps or _NO_LIMIT_STEPS):
                play.step()
            results.append(play.result())
    return {"policies": results}


class _Counted:
    """Counts what passes through."""

    def __init__(self, pictures: Iterable[Frame]) -> None:
        self._pictures, self.number = pictures, 0

    def __iter__(self) -> Iterator[Frame]:
        for picture in self._pictures:
            self.number += 1
            yield picture


def _pictures(plays: Sequence[_Play], max_steps: int, held: int) -> Iterator[Frame]:
    """The pictures of all plays in lockstep, and the last one `held` times more."""
    step = 0
    frames = []
    for play in plays:
        with _rendering(play.env):
            frames.append(_rendered(play.env))
    picture = compose(frames, [play.caption(done=False) for play in plays])
    yield picture
    while step < max_steps and not all(play.done for play in plays):
        step += 1
        for i, play in enumerate(plays):
            if not play.done:
                play.step()
                frames[i] = _rendered(play.env)
        picture = compose(frames, [play.caption(done=play.done or step == max_steps) for play in plays])
        yield picture
    for _ in range(held):
        yield picture


def _rendered(env: Any) -> Frame:
    return as_frame(env.render(), _name(env))


def _name(env: Any) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__


@contextmanager
def _raising(env: Any, seed: int) -> Iterator[None]:
    """The environment's own mistake as one line; from Python, its traceback is the error's cause."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {_one_line(error)}"
        raise InputError(
            f"env {_name(env)}, the episode with seed {seed}: it raised {said}; mend the environment or its wrappers"
        ) from error


@contextmanager
def _environments(policies: Labelled, make_env: MakeEnv, render_mode: str) -> Iterator[list[Any]]:
    """One environment per policy, each checked to render in this mode, all closed in the end."""
    if not policies:
        raise InputError(_NO_POLICY)
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # pygame greets on stdout, where --json goes
    envs: list[Any] = []
    try:
        for _ in policies:
            envs.append(make_env(render_mode))
            _check_renders(envs[-1], render_mode)
        yield envs
    finally:
        for env in envs:
            env.close()


def _check_renders(env: Any, render_mode: str) -> None:
    modes = env.metadata.get("render_modes") or []
    if env.render_mode != render_mode or render_mode not in modes:
        found = ", ".join(map(str, modes)) or "no render mode"
        raise InputError(f"env {_name(env)}: cannot render {render_mode} (it offers {found}); it cannot be shown")


@contextmanager
def _rendering(env: Any) -> Iterator[None]:
    """The first picture is where drivers and drawing libraries turn out to be missing, each with its own exception."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        hint = "install policykd[video], which it draws with; MuJoCo without a screen needs MUJOCO_GL=egl or osmesa"
        raise InputError(f"env {_name(env)}: cannot render ({_one_line(error)}); {hint}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _writer(path: Path) -> Callable[[Iterable[Frame], Path, int], None]:
    """How files with this extension are written; checks what it needs before anything is played."""
    writers = {".mp4": ("imageio_ffmpeg", _write_mp4), ".gif": ("PIL", _write_gif)}
    if path.suffix.lower() not in writers:
        raise InputError(f"{path}: cannot write {path.suffix or 'a file without extension'}; name it .mp4 or .gif")
    for module in ("PIL", writers[path.suffix.lower()][0]):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{path}: films need {module}, which is not installed: pip install policykd[video]")
    return writers[path.suffix.lower()][1]


def _write_mp4(pictures: Iterable[Frame], path: Path, fps: int) -> None:
    """H.264 in yuv420p, which every player and browser shows."""
    import imageio_ffmpeg  # type: ignore[import-untyped]

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise InputError(f"{path.suffix} needs ffmpeg ({_one_line(error)}); write a .gif, or install ffmpeg") from error
    writer: Any = None
    try:
        for picture in pictures:
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = imageio_ffmpeg.write_frames(
                    str(path), size, fps=fps, codec="libx264", quality=7, macro_block_size=2, ffmpeg_log_level="error"
                )
                writer.send(None)
            writer.send(np.ascontiguousarray(picture))
    finally:
        if writer is not None:
            writer.close()


def _write_gif(pictures: Iterable[Frame], path: Path, fps: int) -> None:
    """At most 25 pictures a second and 800 columns: a GIF of every picture is ten times a film's size."""
    from PIL import Image

    every = -(-fps // _GIF_FPS)
    images = (Image.fromarray(shrunk(frame, _GIF_WIDTH)) for i, frame in enumerate(pictures) if i % every == 0)
    first = next(images)
    duration = round(1000 * every / fps)
    first.save(path, save_all=True, append_images=images, duration=duration, loop=0, optimize=False)
