"""What a card says of actions that do not begin at 0, and how long a refusal may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from gymnasium import spaces
from onnx import helper

from policykd import ConfigError, InputError, evaluate, load_config, load_teacher
from policykd.cli.main import main
from policykd.learn.judging.judge import Judging
from policykd.spine.config.messages import MAX_PROBLEMS
from policykd.spine.errors import MAX_LINE
from tests.security.onnx_inputs import CARD, onnx_inputs
from tests.support.onnx_files import model_of, weight, write
from tests.support.teachers import box

GOOD = next(onnx_inputs())[1]
FIRST_TWO = model_of(
    [helper.make_node("MatMul", ["obs", "w"], ["logits"])], [weight("w", np.eye(4)[:, :2])], ["n", 4], ["logits"]
)


class FromOne(gym.Env[Any, Any]):
    """Takes the actions 1 and 2 alone."""

    observation_space, action_space = box(4), spaces.Discrete(2, start=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = 5
        return self.np_random.normal(size=4).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(np.int64(action)), action
        self.left -= 1
        return self.np_random.normal(size=4).astype(np.float32), float(action), False, self.left == 0, {}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"type": "Discrete", "n": 2, "start": 1}, spaces.Discrete(2, start=1)),
        ({"type": "Discrete", "n": 2, "start": -3}, spaces.Discrete(2, start=-3)),
        ({"type": "MultiDiscrete", "nvec": [1, 1], "start": [4, -1]}, spaces.MultiDiscrete([1, 1], start=[4, -1])),
    ],
)
def test_actions_begin_at_the_stated_start(tmp_path: Path, space: Any, expected: Any) -> None:
    teacher = load_teacher(write(tmp_path / "a.onnx", FIRST_TWO, CARD | {"action_space": space}))
    assert teacher.action_space == expected
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    actions = teacher.predict(rows.numpy(), deterministic=True)[0]
    if space["type"] == "Discrete":
        places = teacher.distribution_params(rows).argmax(1).numpy()
        assert len(set(places)) == 2
        np.testing.assert_array_equal(actions, places + space["start"])
    else:
        np.testing.assert_array_equal(actions, np.tile(space["start"], (200, 1)))


def test_an_environment_from_one_is_given_what_it_takes(tmp_path: Path) -> None:
    gym.register("FromOne-v0", entry_point=FromOne)
    card = CARD | {"env": "FromOne-v0", "action_space": {"type": "Discrete", "n": 2, "start": 1}}
    path = write(tmp_path / "a.onnx", FIRST_TWO, card)
    judged = evaluate(str(path), how=Judging(episodes=4))
    assert 5 < judged["return"]["mean"] < 10, judged


def _long() -> dict[str, str]:
    many = "".join(f"{'k' * 40}{i}: 1\n" for i in range(4000))
    return {
        "many keys": many,
        "a long key": f"{'k' * 100_000}: 1\n",
        "a long key inside": f"env: {{{'k' * 100_000}: 1}}\noutputs: {{{'k' * 100_000}: 1}}\n",
        "a long text": yaml.safe_dump({"seed": "x" * 100_000, "input": ["x" * 100_000]}),
        "a long tag": f"a: !{'t' * 100_000} 1\n",
        "a long anchor": f"a: *{'t' * 100_000}\n",
        "a key that is no text": f"{'1' * 250}: 1\n",
        "a long key twice": f"{'k' * 900}: 1\n{'k' * 900}: 1\n",
    }


@pytest.mark.parametrize("name", _long())
def test_a_refusal_is_short(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.onnx", GOOD, None)
    (tmp_path / "a.yaml").write_text(_long()[name])
    for attempt in (lambda: load_teacher(path), lambda: load_config(str(tmp_path / "a.yaml"))):
        with pytest.raises(InputError) as refusal:
            attempt()
        lines = refusal.value.problems if isinstance(refusal.value, ConfigError) else [str(refusal.value)]
        assert len(lines) <= MAX_PROBLEMS + 1
        assert all("\n" not in line and len(line) < 1000 and "a.yaml" in line for line in lines)
    assert main(["distill", "--config", str(tmp_path / "a.yaml")]) == 2
    assert max(map(len, capsys.readouterr().err.splitlines())) < 1000


def test_a_long_space_is_named_in_short(tmp_path: Path) -> None:
    many = {"type": "MultiDiscrete", "nvec": [3] * 900}
    for change in ({"action_space": many}, {"action_space": many, "distribution": "gaussian"}):
        with pytest.raises(InputError) as refusal:
            load_teacher(write(tmp_path / "a.onnx", GOOD, CARD | change))
        assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value)


def test_a_long_override_is_refused_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    long = "k" * 5000
    for text in (f"{long}=1", f"seed.{long}=1", f"seed={long}", f"env.{long}=1", long, f"seed=[{long}", "=" + long):
        with pytest.raises(InputError) as refusal:
            load_config(None, [text])
        assert max(map(len, str(refusal.value).splitlines())) < MAX_LINE + 1
