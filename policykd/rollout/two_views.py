"""One environment that is seen in two ways: the teacher's wrappers and the student's around the same episodes."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from policykd.rollout.wrappers import wrap
from policykd.spine.errors import InputError
from policykd.spine.views import STUDENT, TEACHER, Views
from policykd.spine.wrappers import Wrappers, renamed

if TYPE_CHECKING:
    AnyEnv = gym.Env[Any, Any]
    Answer = tuple[Any, Any, bool, bool, dict[str, Any]]

_KEYS = {TEACHER: "env.wrappers", STUDENT: "student.wrappers"}


class TwoViews(gym.Wrapper[Any, Any, Any, Any]):
    """`env` as teacher and student see it: an observation is {"teacher": ..., "student": ...}.

    Rewards, ends, `info`, masks and pictures are those of `env`, which is stepped once a step. InputError where a
    wrapper cannot be applied, or does more than observe.
    """

    def __init__(self, env: AnyEnv, teacher: Wrappers, student: Wrappers, allow_import: bool) -> None:
        super().__init__(env)
        self._views = {
            name: _View(env, _KEYS[name], wrappers, allow_import)
            for name, wrappers in ((TEACHER, teacher), (STUDENT, student))
        }
        self.observation_space = Views(**{name: view.observation_space for name, view in self._views.items()})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, for both."""
        first, info = self.env.reset(seed=seed, options=options)
        return {name: view.reset(first, info, seed) for name, view in self._views.items()}, info

    def step(self, action: Any) -> Answer:
        """Acts once, for both."""
        answer = self.env.step(action)
        return {name: view.step(action, answer) for name, view in self._views.items()}, *answer[1:]


class _View:
    """A chain of wrappers, with what they remember, around a `_Tap`. `key`: where the configuration names them."""

    def __init__(self, env: AnyEnv, key: str, wrappers: Wrappers, allow_import: bool) -> None:
        self._key, self._tap = key, _Tap(env)
        try:
            self._env = wrap(self._tap, wrappers, allow_import)
        except InputError as error:
            raise renamed(error, key) from None
        if self._env.action_space != env.action_space:
            raise self._refused(f"change the action space to {str(self._env.action_space)[:60]}")
        self._tap.ready = True
        self.observation_space = self._env.observation_space

    def reset(self, first: Any, info: dict[str, Any], seed: int | None) -> Any:
        """The first observation as it is seen here."""
        self._tap.answer = (deepcopy(first), 0.0, False, False, dict(info))  # a wrapper may write into its own
        seen = self._env.reset(seed=seed)[0]
        self._check_taken()
        return seen

    def step(self, action: Any, answer: Answer) -> Any:
        """The observation of an answer as it is seen here."""
        observation, *judged, info = answer
        self._tap.answer = (deepcopy(observation), *judged, dict(info))
        seen, *found, _ = self._env.step(action)
        self._check_taken()
        if found != judged:
            raise self._refused(f"turn reward and ends {tuple(judged)} into {tuple(found)}")
        if not np.array_equal(self._tap.action, action):
            raise self._refused("change the action")
        return seen

    def _check_taken(self) -> None:
        if self._tap.asked != 1:
            raise self._refused(f"ask for {self._tap.asked} answers of the environment in one step")
        self._tap.asked = 0

    def _refused(self, what: str) -> InputError:
        remedy = "put others into env.wrappers"
        if self._key != _KEYS[STUDENT]:
            remedy = "beside student.wrappers a wrapper that does more may not have a name that ends in Observation"
        return InputError(f"{self._key}: they {what}, expected wrappers that change observations alone: {remedy}")


class _Tap(gym.Wrapper[Any, Any, Any, Any]):
    """Stands for the environment inside a view: hands on its last answer, and never steps it. `asked`: how often since
    this was set to 0; `action`: the last that came through the wrappers."""

    def __init__(self, env: AnyEnv) -> None:
        super().__init__(env)
        self.answer: Answer | None = None
        self.action: Any = None
        self.asked, self.ready = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation; while the wrappers are made, by the environment's own reset: some look at it."""
        if not self.ready:
            return self.env.reset(seed=seed, options=options)
        assert self.answer is not None
        self.asked += 1
        return self.answer[0], self.answer[-1]

    def step(self, action: Any) -> Answer:
        """What the environment answered."""
        assert self.answer is not None
        self.asked, self.action = self.asked + 1, action
        return self.answer

    def close(self) -> None:
        """Nothing: the environment is closed once, by `TwoViews`."""
