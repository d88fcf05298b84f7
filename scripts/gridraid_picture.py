"""The picture of docs/gridraid.md: the game as people see it, and as a policy does."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

import policykd_envs

OUT = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "gridraid.png"
SEED, ACTIONS = 22, (3, 3, 2, 4, 3)


def main() -> None:
    """Play a few turns and save the board twice, side by side."""
    assert policykd_envs.__doc__  # importing it registers the environment
    env = gymnasium.make("GridRaid-v0", render_mode="rgb_array")
    env.reset(seed=SEED)
    for action in ACTIONS:
        observation = env.step(action)[0]
    pretty = np.asarray(env.render())
    pixels = np.pad(observation.repeat(13, axis=0).repeat(13, axis=1), ((6, 6), (6, 6), (0, 0)), mode="edge")
    both = np.concatenate((pretty, np.full((480, 16, 3), 255, np.uint8), pixels), axis=1)
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(both).quantize(96).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
