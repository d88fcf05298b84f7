"""A reward for the way as well, to train teachers of GridRaid by: dense where the game's own is not."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
from numpy.typing import NDArray

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.game import Game
from policykd_envs.grid_raid.single import Action, GridRaidEnv

_FAR = rules.CELLS


class ShapedGridRaidEnv(gymnasium.Wrapper[NDArray[Any], Action, NDArray[Any], Action]):
    """GridRaid, and `NEARER` for every step of the way to the nearest thing that is worth going to: a gem, the key, the
    door with a key, the open exit; as much less for a step away from it.

    While nothing is picked up or opened the sum telescopes, so that going to and fro earns nothing (potential-based
    shaping, Ng, Harada and Russell 1999, undiscounted, and with a new potential for each set of things). Guards are
    not looked at. Returns are others than GridRaid's: judge policies on `GridRaid-v0` itself.
    """

    NEARER = 2 * rules.UNIT

    def __init__(self, render_mode: str | None = None, multi: bool = False, levels: int | None = None) -> None:
        super().__init__(GridRaidEnv(render_mode, multi, levels))
        self._tiles: list[int] = []
        self._distance: list[int] = []

    def reset(self, **kwargs: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """As GridRaid's."""
        answer = self.env.reset(**kwargs)
        self._measure(self._game())
        return answer

    def step(self, action: Action) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """As GridRaid's, with the other reward."""
        before = self._distance[self._game().level.raider]
        observation, reward, terminated, truncated, info = self.env.step(action)
        game = self._game()
        if game.level.tiles != self._tiles:
            self._measure(game)
            return observation, float(reward), terminated, truncated, info
        nearer = before - self._distance[game.level.raider]
        return observation, float(reward) + self.NEARER * nearer, terminated, truncated, info

    def _game(self) -> Game:
        game: Game = self.env.unwrapped._game  # type: ignore[attr-defined]
        return game

    def _measure(self, game: Game) -> None:
        """Steps from every cell to the nearest thing worth going to, by breadth-first search from all of them."""
        tiles = game.level.tiles
        wanted = {rules.GEM, rules.KEY, rules.EXIT_OPEN} | ({rules.DOOR} if game.keys else set())
        self._tiles = list(tiles)
        self._distance = [_FAR] * rules.CELLS
        queue = deque(cell for cell in range(rules.CELLS) if tiles[cell] in wanted)
        for cell in queue:
            self._distance[cell] = 0
        while queue:
            cell = queue.popleft()
            for step in rules.STEPS:
                beside = cell + step
                if 0 <= beside < rules.CELLS and tiles[beside] in rules.WALKABLE and self._distance[beside] == _FAR:
                    self._distance[beside] = self._distance[cell] + 1
                    queue.append(beside)
