"""N games of GridRaid in arrays, turn by turn the same as N times `game.Game`.

Boards lie one after the other in flat arrays [N * 144]: `base` is where each begins. What happens seldom (something is
picked up, a door, a stone) is done for the games where it happens only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.levels import Bools, Cells, Levels

_TILES = np.arange(rules.N_TILES)
_PASSABLE = np.isin(_TILES, list(rules.PASSABLE))
_STEPS = np.array(rules.STEPS)
_AHEAD = np.array([0, *rules.STEPS * 3])  # the cell that an action is about
_WALKS = np.array([0, *rules.STEPS, *[0] * 8])  # how far an action moves the raider
_EVERY_ACTION = np.arange(rules.N_ACTIONS)[:, None]
_LEGAL = np.zeros((2, rules.N_ACTIONS, rules.N_TILES), np.bool_)  # keys, action, what is ahead; throws come extra
_LEGAL[:, rules.WAIT] = True
_LEGAL[:, 1:5] = np.isin(_TILES, list(rules.WALKABLE))
_LEGAL[1, 5:9, rules.DOOR] = True
_PICKED = np.zeros(rules.N_TILES, np.int64)
_PICKED[[rules.GEM, rules.KEY, rules.EXIT_OPEN]] = rules.GEM_REWARD, rules.KEY_REWARD, rules.EXIT_REWARD


_HELD_CELLS = np.array([rules.HELD_GEM_CELL, rules.HELD_KEY_CELL, rules.HELD_STONE_CELL])
_HELD_TILES = np.array([rules.HELD_GEM, rules.HELD_KEY, rules.HELD_STONE], np.uint8)


def _rays() -> Cells:
    """The cells [144, 4, 12] that lie ahead, nearest first; then cell 0, which is a wall."""
    rays = np.zeros((rules.CELLS, 4, rules.SIZE), np.intp)
    for cell in range(rules.CELLS):
        row, column = divmod(cell, rules.SIZE)
        lengths = (row, rules.SIZE - 1 - column, rules.SIZE - 1 - row, column)
        for direction, length in enumerate(lengths):
            rays[cell, direction, :length] = cell + rules.STEPS[direction] * np.arange(1, length + 1)
    return rays


def _directions() -> Cells:
    """The direction [144, 144] from one cell to another in its row or column, else -1."""
    directions = np.full((rules.CELLS, rules.CELLS), -1, np.intp)
    for cell in range(rules.CELLS):
        for direction in range(4):
            directions[cell, _RAYS[cell, direction][_RAYS[cell, direction] > 0]] = direction
    directions[:, 0] = -1
    return directions


_RAYS = _rays()
_DIRECTIONS = _directions()


Sights = tuple[Cells, Cells, Cells]
_NOBODY: Sights = (np.zeros(0, np.intp),) * 3


@dataclass
class Turns:
    """What a turn brought each game, and which cells of the flat boards it changed beside those of the figures."""

    reward: NDArray[np.int64]  # [N], in units of rules.UNIT
    caught: Bools  # [N]
    left: Bools  # [N]
    changed: list[Cells]


class Boards:
    """The state of N games."""

    def __init__(self, count: int) -> None:
        self.levels = Levels.empty(count)
        self.base = np.arange(count) * rules.CELLS
        self.tiles = self.levels.tiles.reshape(-1)
        self.passable = np.zeros(count * rules.CELLS, np.bool_)
        self._counters = np.zeros((4, count), np.int64)
        self.gems, self.keys, self.stones, self.turn = self._counters  # the first three as GEM, KEY and STONE
        self._seen = _NOBODY  # guards in sight of who may throw, as the masks of this turn have it
        self.standing = np.ones((rules.GUARDS, count), np.bool_)

    def begin(self, slots: Cells) -> None:
        """Start these games, whose levels are new."""
        self._seen = _NOBODY
        self._counters[:, slots] = 0
        self.standing[:, slots] = True
        self.passable.reshape(-1, rules.CELLS)[slots] = _PASSABLE[self.levels.tiles[slots]]

    def legal(self) -> Bools:
        """Which of the actions [13, N] are allowed now."""
        legal = self._legal_ahead(_EVERY_ACTION)
        self._seen = games, _, towards = self._sights(np.flatnonzero(self.stones))
        legal[9 + towards, games] = True
        return legal

    def allowed(self, choices: Cells) -> Bools:
        """Whether these actions [N], one for each game, are allowed now."""
        allowed = self._legal_ahead(choices)
        throws = np.flatnonzero(self.stones * (choices > 8))
        if throws.size:
            self._seen = games, _, towards = self._sights(throws)
            allowed[games[choices[games] == 9 + towards]] = True
        return allowed

    def _legal_ahead(self, choices: Cells) -> Bools:
        """Whether actions, [N] or [K, 1], are allowed by what is on the next cell; no throw is."""
        ahead = self.tiles[self.base + self.levels.raider + _AHEAD[choices]]
        legal: Bools = _LEGAL.take((self.keys * rules.N_ACTIONS + choices) * rules.N_TILES + ahead)
        return legal

    def play(self, choice: Cells, acts: Bools, allowed: Bools, live: Bools) -> Turns:
        """One turn of the `live` games: choices [N] are done where `acts`, and cost extra where not `allowed`."""
        changed: list[Cells] = []
        reward = np.where(allowed, rules.TURN_REWARD, rules.TURN_REWARD + rules.FORBIDDEN_REWARD)
        choice = choice * acts
        tools = np.flatnonzero(choice > 4)
        if tools.size:
            self._use_tools(tools, choice[tools], reward, changed)
        raider = self.levels.raider
        raider += _WALKS[choice]
        found = self.tiles[self.base + raider]
        reward += _PICKED[found]
        items = np.flatnonzero(found > rules.EXIT_OPEN)
        if items.size:
            self._pick_up(items, found[items], changed)
        self.turn += live
        left = found == rules.EXIT_OPEN
        caught = self._touched()
        self._patrol(live & ~(left | caught))
        caught = self._touched()
        self._seen = _NOBODY
        reward += rules.CAUGHT_REWARD * caught
        return Turns(reward, caught, left, changed)

    def _sights(self, holders: Cells) -> Sights:
        """Guards in sight of some games' raiders: games, guards and directions, [K] each."""
        directions = _DIRECTIONS[self.levels.raider[holders], self.levels.guards[:, holders]]
        guards, places = np.nonzero((directions >= 0) & self.standing[:, holders])
        slots, towards = holders[places], directions[guards, places]
        rays = _RAYS[self.levels.raider[slots], towards]
        far = np.argmax(rays == self.levels.guards[guards, slots][:, None], axis=1)
        free = self.passable[self.base[slots][:, None] + rays]
        seen = (free | (np.arange(rules.SIZE) >= far[:, None])).all(axis=1)
        return slots[seen], guards[seen], towards[seen]

    def _use_tools(self, slots: Cells, choice: Cells, reward: NDArray[np.int64], changed: list[Cells]) -> None:
        """Open doors, throw stones."""
        opens = choice < 9
        doors, throws = slots[opens], slots[~opens]
        if doors.size:
            cells = self.base[doors] + self.levels.raider[doors] + _STEPS[choice[opens] - 5]
            held = self.base[doors] + rules.HELD_KEY_CELL
            self.tiles[cells], self.tiles[held] = rules.DOORWAY, rules.WALL
            self.keys[doors] -= 1
            reward[doors] += rules.DOOR_REWARD
            changed += [cells, held]
        if throws.size:
            thrown = np.full(len(self.base), -1)
            thrown[throws] = choice[~opens] - 9
            games, guards, towards = self._seen
            hit = thrown[games] == towards  # one guard at most: each stays in its room, and no stone passes a doorway
            self.standing[guards[hit], games[hit]] = False
            held = self.base[throws] + rules.HELD_STONE_CELL
            self.tiles[held] = rules.WALL
            self.stones[throws] -= 1
            changed.append(held)

    def _pick_up(self, slots: Cells, found: NDArray[np.uint8], changed: list[Cells]) -> None:
        """Take what lies where the raider stands."""
        base, kinds = self.base[slots], found - rules.GEM
        shown = base + _HELD_CELLS[kinds] + self.gems[slots] * (kinds == 0)
        self.tiles[base + self.levels.raider[slots]] = rules.FLOOR
        self.tiles[shown] = _HELD_TILES[kinds]
        changed.append(shown)
        self._counters[kinds, slots] += 1
        complete = slots[(kinds == 0) & (self.gems[slots] == rules.GEMS)]
        if complete.size:
            exits = self.base[complete] + np.argmax(self.levels.tiles[complete] == rules.EXIT_CLOSED, axis=1)
            self.tiles[exits] = rules.EXIT_OPEN
            changed.append(exits)

    def _touched(self) -> Bools:
        touched: Bools = ((self.levels.guards == self.levels.raider) & self.standing).any(axis=0)
        return touched

    def _patrol(self, games: Bools) -> None:
        """Each guard walks ahead; where it cannot, it turns round and walks the other way, if it can."""
        walks = self.standing & games
        guards, facing = self.levels.guards, self.levels.facing
        cells = guards + self.base
        facing ^= 2 * (walks & ~self.passable[cells + _STEPS[facing]])
        steps = _STEPS[facing]
        guards += steps * (walks & self.passable[cells + steps])
