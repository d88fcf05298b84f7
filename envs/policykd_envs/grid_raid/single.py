"""GridRaid as a gymnasium.Env."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space, spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from policykd_envs.grid_raid import patterns, rules
from policykd_envs.grid_raid.game import Game
from policykd_envs.grid_raid.generator import Generator
from policykd_envs.grid_raid.level import make_level
from policykd_envs.grid_raid.picture import Window, draw

Action = Any  # an integer, or two of them for GridRaidMulti
FPS = 6
MOST_LEVELS = 65_536  # that a number of 16 bits can choose among


class GridRaidEnv(gymnasium.Env[NDArray[np.uint8], Action]):
    """A raider collects three gems, opens a door, dodges two guards and leaves by the exit (docs/gridraid.md).

    Observations are pictures, uint8 [36, 36, 3]. Actions are one of 13, or with `multi` a pair [5, 3] of direction and
    tool. `action_masks()` says which are allowed; another one wastes the turn and costs. With `levels` there are only
    so many levels (as in Procgen, Cobbe et al. 2020), which a teacher learns in a fraction of the time.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": FPS}  # noqa: RUF012  # gymnasium declares it so

    def __init__(self, render_mode: str | None = None, multi: bool = False, levels: int | None = None) -> None:
        check_render_mode(render_mode, self.metadata["render_modes"])
        check_levels(levels)
        self.render_mode = render_mode
        self.multi, self.levels = multi, levels
        self.observation_space = observation_space()
        self.action_space = action_space(multi)
        self._generator: Generator | None = None
        self._game: Game | None = None
        self._over = True
        self._window: Window | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """A new level: the first one of `seed`, or the next one of this environment's own generator."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._generator = Generator(seed)
        elif self._generator is None:
            self._generator = Generator(int(self.np_random.integers(2**32)))
        chosen = self._generator if self.levels is None else Generator(self._generator.below(self.levels))
        self._game = Game(make_level(chosen))
        self._over = False
        self._show()
        return self._observation(self._game), {"is_success": False}

    def step(self, action: Action) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """One turn. InvalidAction for what is no action of this environment, ResetNeeded after the end."""
        if self._game is None or self._over:
            raise ResetNeeded("GridRaid: step() without a running episode: call reset() first")
        choice, allowed = self._read(self._game, action)
        turn = self._game.play(choice, allowed)
        terminated = turn.left or turn.caught
        self._over = terminated or turn.timeout
        self._show()
        info = {"is_success": turn.left}
        return self._observation(self._game), turn.reward * rules.UNIT, terminated, turn.timeout, info

    def action_masks(self) -> NDArray[np.bool_]:
        """What is allowed now, as sb3-contrib asks for it: [13], or [5 + 3] where each branch counts on its own."""
        if self._game is None:
            raise ResetNeeded("GridRaid: action_masks() without an episode: call reset() first")
        game, (directions, tools) = self._game, rules.BRANCHES
        if not self.multi:
            return np.array([game.legal(action) for action in range(rules.N_ACTIONS)])
        return np.array(
            [game.legal_pair(direction, rules.WALK) for direction in range(directions)]
            + [game.legal_pair(0, tool) for tool in range(tools)]
        )

    def render(self) -> NDArray[np.uint8] | None:
        """A picture [480, 480, 3] of the board where render_mode is rgb_array; a window shows each turn by itself."""
        if self._game is None:
            raise ResetNeeded("GridRaid: render() without an episode: call reset() first")
        return draw(_codes(self._game), self._game.turn) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _show(self) -> None:
        if self.render_mode == "human" and self._game is not None:
            self._window = self._window or Window("GridRaid", FPS)
            self._window.show(draw(_codes(self._game), self._game.turn))

    def _read(self, game: Game, action: Action) -> tuple[int, bool]:
        """The action as one of 13, and whether the masks allow it."""
        if not self.action_space.contains(action):
            raise InvalidAction(f"GridRaid: {action!r} is no action of {self.action_space}; take one that it contains")
        if not self.multi:
            return int(action), game.legal(int(action))
        direction, tool = int(action[0]), int(action[1])
        return rules.pair_action(direction, tool), game.legal_pair(direction, tool)

    @staticmethod
    def _observation(game: Game) -> NDArray[np.uint8]:
        return patterns.paint(_codes(game), game.turn)


def observation_space() -> Space[NDArray[np.uint8]]:
    """Pictures of 36 x 36 pixels."""
    space: Space[Any] = spaces.Box(0, 255, (patterns.PIXELS, patterns.PIXELS, 3), np.uint8)
    return space


def action_space(multi: bool) -> Space[Any]:
    """13 actions, or a direction and a tool."""
    return spaces.MultiDiscrete(list(rules.BRANCHES)) if multi else spaces.Discrete(rules.N_ACTIONS)


def check_render_mode(render_mode: str | None, known: list[str]) -> None:
    """ValueError where the mode is not one of those."""
    if render_mode is not None and render_mode not in known:
        raise ValueError(f"GridRaid: render_mode is {render_mode!r}, expected one of {', '.join(known)}, or None")


def check_levels(levels: int | None) -> None:
    """ValueError where it is no number of levels."""
    if levels is not None and (type(levels) is not int or levels not in range(1, MOST_LEVELS + 1)):
        raise ValueError(f"GridRaid: levels is {levels!r}, expected 1 to {MOST_LEVELS}, or None for all")


def _codes(game: Game) -> list[int]:
    """What stands on each cell [144], as `patterns` counts it."""
    codes = list(game.level.tiles)
    overlays: dict[int, int] = {game.level.raider: patterns.RAIDER_BIT}
    for stands, cell, facing in zip(game.standing, game.level.guards, game.level.facing, strict=True):
        if stands:
            overlays[cell] = overlays.get(cell, 0) | 1 << facing
    for cell, overlay in overlays.items():
        codes[cell] += rules.N_TILES * overlay
    return codes
