"""docs/gridraid.md says enough: a C program written from it alone plays the same games, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from policykd_envs.grid_raid.single import GridRaidEnv
from tests.support.grid_raid import solve

SOURCE = Path(__file__).parents[2] / "fixtures" / "grid_raid" / "gridraid.c"
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    out = tmp_path_factory.mktemp("c") / "gridraid"
    subprocess.run(["cc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-o", out, SOURCE], check=True)
    return out


def _hash(image):
    value = 2166136261
    for byte in image.tobytes():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return str(value)


def _next(env, rng, plan):
    """An action: from the plan of one who looks ahead, allowed, or any."""
    masks, way = env.action_masks(), rng.random()
    if plan:
        action = plan.pop(0)
        return (
            [0, 0] if env.multi and not action else [1 + (action - 1) % 4, (action - 1) // 4] if env.multi else action
        )
    if way < 0.2:
        masks[:] = True
    if env.multi:
        return [int(rng.choice(np.flatnonzero(part))) for part in (masks[:5], masks[5:])]
    return int(rng.choice(np.flatnonzero(masks)))


@pytest.mark.parametrize(("multi", "seed"), [(False, 0), (False, 2**33 + 77), (True, 1), (True, 2**63)])
def test_the_same_games(program, multi, seed):
    env, rng = GridRaidEnv(multi=multi), np.random.default_rng(seed)
    expected, actions, successes = [_hash(env.reset(seed=seed)[0])], [], 0
    plan = solve(env._game)
    for _ in range(500):
        masks = sum(int(bit) << place for place, bit in enumerate(env.action_masks()))
        action = _next(env, rng, plan)
        actions.append(action)
        image, reward, terminated, truncated, info = env.step(np.array(action) if multi else action)
        expected.append(f"{masks} {int(reward * 64)} {_hash(image)} {terminated:d} {truncated:d}")
        successes += info["is_success"]
        if terminated or truncated:
            expected.append(_hash(env.reset()[0]))
            plan = solve(env._game) if rng.random() < 0.3 else []
    assert successes > 0
    words = [int(multi), seed & 0xFFFFFFFF, seed >> 32, *np.ravel(actions).tolist()]
    done = subprocess.run([program], input=" ".join(map(str, words)), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == expected
