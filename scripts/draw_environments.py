"""Draws docs/pictures/ID.png for each environment of policykd_envs: `python scripts/draw_environments.py [FOLDER]`.

Run from a checkout that is installed (`pip install -e .`), with pygame (`pip install -e '.[video]'`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window is needed

import gymnasium
import numpy as np
from matplotlib.image import imsave

import policykd_envs  # noqa: F401 (registers them)


class Scene(NamedTuple):
    """Which moment is drawn: `steps` after the reset with `seed`, acting by what is seen."""

    id: str
    seed: int
    steps: int
    act: Callable[[Any], Any]


def to_goal(seen: dict[str, Any]) -> Any:
    """LidarNav: straight at the goal, obstacles or not."""
    _, ahead, aside = seen["goal"]
    return np.clip(np.array([ahead - 2 * aside, ahead + 2 * aside], np.float32), -1, 1)


def catch(seen: Any) -> int:
    """CartPole: pushes to the side to which the pole leans."""
    return int(seen[1] > 0)


def push(seen: Any) -> Any:
    """Pendulum: always to the left."""
    return np.array([2.0], np.float32)


SCENES = (
    Scene("LidarNav-v0", 2, 20, to_goal),
    Scene("CartPoleNoVel-v0", 3, 30, catch),
    Scene("PendulumNoVel-v0", 2, 12, push),
)


def draw(scene: Scene, folder: Path) -> Path:
    """Writes the scene's picture."""
    env = gymnasium.make(scene.id, render_mode="rgb_array")
    observation, _ = env.reset(seed=scene.seed)
    for _ in range(scene.steps):
        observation, _, terminated, truncated, _ = env.step(scene.act(observation))
        if terminated or truncated:
            break
    path = folder / f"{scene.id}.png"
    imsave(path, np.ascontiguousarray(env.render()))
    env.close()
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures")
    target.mkdir(parents=True, exist_ok=True)
    for one in SCENES:
        sys.stdout.write(f"{draw(one, target)}\n")
