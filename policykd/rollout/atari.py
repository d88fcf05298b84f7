"""Atari games: ale_py where an id needs it, and stable-baselines3's AtariWrapper with whole games.

ale_py and cv2 are installed with `policykd[atari]`.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym

from policykd.rollout.stacking import RESTARTED
from policykd.spine.errors import InputError

_ID = re.compile(r"ALE/[\w-]+|[A-Za-z0-9]+(?:NoFrameskip|Deterministic)-v[04]", re.ASCII)
_EXTRA = "which is not installed: pip install 'policykd[atari]'"


def register_games(env_id: str) -> bool:
    """Registers the games of ale_py if the id looks like one of them; False if it does not. InputError without it."""
    if _ID.fullmatch(env_id) is None:
        return False
    try:
        import ale_py
    except ImportError:
        raise InputError(f"env {env_id}: an Atari game needs ale_py, {_EXTRA}") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it would greet for each environment
    if env_id not in gym.registry:
        gym.register_envs(ale_py)
    return True


def atari(env: gym.Env[Any, Any], **kwargs: Any) -> gym.Env[Any, Any]:
    """The game as AtariWrapper shows it: grey, scaled, frames skipped; see `WholeGames` for rewards and episodes."""
    from stable_baselines3.common.atari_wrappers import AtariWrapper

    try:
        import cv2  # noqa: F401 (stable-baselines3 asks for it at the first frame only)
    except ImportError:
        raise InputError(f"env.wrappers: AtariWrapper needs cv2 (OpenCV), {_EXTRA}") from None
    score = _Score(env)
    return WholeGames(AtariWrapper(score, **kwargs), score)


class _Score(gym.Wrapper[Any, Any, Any, Any]):
    """What the game itself says: points since they were last taken, and whether it is over."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.points, self.over, self.truncated = 0.0, False, False

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.points += float(reward)
        self.over, self.truncated = self.over or terminated or truncated, bool(truncated)
        return observation, reward, terminated, truncated, info

    def take(self) -> float:
        """The points since the last call."""
        points, self.points = self.points, 0.0
        return points


class WholeGames(gym.Wrapper[Any, Any, Any, Any]):
    """Around AtariWrapper: an episode is a whole game with its own points, as stable-baselines3's Monitor counts it.

    AtariWrapper ends an episode with each life and goes on at the next `reset`, whatever the seed, and clips rewards:
    made for training. Here the same steps follow (the no-op, the press of FIRE), within one episode, and every `reset`
    is a new game, which its seed determines.
    """

    def __init__(self, env: gym.Env[Any, Any], score: _Score) -> None:
        super().__init__(env)
        self._score = score

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new game."""
        layer: Any = self.env
        while isinstance(layer, gym.Wrapper):
            if hasattr(layer, "was_real_done"):  # EpisodicLifeEnv resets the game only then
                layer.was_real_done = True
            layer = layer.env
        self._score.points = 0.0
        observation, info = self.env.reset(seed=seed, options=options)
        self._score.over = False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Acts; after a lost life the game goes on."""
        observation, _, terminated, truncated, info = self.env.step(action)
        if (terminated or truncated) and not self._score.over:
            observation, _ = self.env.reset()
            info = {**info, RESTARTED: True}
        over, cut = self._score.over, self._score.truncated
        return observation, self._score.take(), over and not cut, over and cut, info
