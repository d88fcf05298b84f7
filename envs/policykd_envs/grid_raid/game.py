"""One game of GridRaid in plain Python: the reference for every other version of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.level import Level


@dataclass
class Turn:
    """What a turn brought."""

    reward: int  # in units of rules.UNIT
    caught: bool
    left: bool  # through the exit, with every gem
    timeout: bool


@dataclass
class Game:
    """The state of a game; all of it can be seen in its picture."""

    level: Level
    keys: int = 0
    stones: int = 0
    gems: int = 0
    turn: int = 0
    standing: list[bool] = field(default_factory=lambda: [True] * rules.GUARDS)

    def legal(self, action: int) -> bool:
        """Whether one of the 13 actions is allowed now."""
        if action == rules.WAIT:
            return True
        tool, direction = divmod(action - 1, 4)
        tile = self.level.tiles[self.level.raider + rules.STEPS[direction]]
        if tool == rules.WALK:
            return tile in rules.WALKABLE
        if tool == rules.USE_KEY:
            return self.keys > 0 and tile == rules.DOOR
        return self.stones > 0 and bool(self._hit(direction))

    def legal_pair(self, direction: int, tool: int) -> bool:
        """Whether the masks of GridRaidMulti allow a pair: a direction (0 stays) is allowed with some tool, a tool in
        some direction; staying and walking always. Pairs that are allowed and cannot be done only take the turn."""
        return (direction == 0 or any(self.legal(direction + 4 * other) for other in range(3))) and (
            tool == rules.WALK or any(self.legal(1 + 4 * tool + way) for way in range(4))
        )

    def play(self, action: int, allowed: bool) -> Turn:
        """One turn: the raider acts, then the guards walk. What is not `allowed` costs extra and does nothing; what is
        allowed and cannot be done (pairs of GridRaidMulti) only takes the turn."""
        reward = rules.TURN_REWARD + (0 if allowed else rules.FORBIDDEN_REWARD)
        if allowed and action != rules.WAIT and self.legal(action):
            reward += self._act(*divmod(action - 1, 4))
        self.turn += 1
        left = self.level.tiles[self.level.raider] == rules.EXIT_OPEN
        caught = self._touched()
        if not (left or caught):
            self._patrol()
            caught = self._touched()
        reward += rules.EXIT_REWARD * left + rules.CAUGHT_REWARD * caught
        return Turn(reward, caught, left, self.turn >= rules.TURNS)

    def _act(self, tool: int, direction: int) -> int:
        """Do what is legal; the reward for it."""
        tiles, ahead = self.level.tiles, self.level.raider + rules.STEPS[direction]
        if tool == rules.USE_KEY:
            tiles[ahead] = rules.DOORWAY
            self.keys -= 1
            tiles[rules.HELD_KEY_CELL] = rules.WALL
            return rules.DOOR_REWARD
        if tool == rules.THROW:
            for guard in self._hit(direction):
                self.standing[guard] = False
            self.stones -= 1
            tiles[rules.HELD_STONE_CELL] = rules.WALL
            return 0
        self.level.raider = ahead
        return self._pick_up(ahead)

    def _pick_up(self, cell: int) -> int:
        tiles = self.level.tiles
        tile = tiles[cell]
        if tile in (rules.FLOOR, rules.DOORWAY, rules.EXIT_OPEN):
            return 0
        tiles[cell] = rules.FLOOR
        if tile == rules.KEY:
            self.keys += 1
            tiles[rules.HELD_KEY_CELL] = rules.HELD_KEY
            return rules.KEY_REWARD
        if tile == rules.STONE:
            self.stones += 1
            tiles[rules.HELD_STONE_CELL] = rules.HELD_STONE
            return 0
        tiles[rules.HELD_GEM_CELL + self.gems] = rules.HELD_GEM
        self.gems += 1
        if self.gems == rules.GEMS:
            tiles[tiles.index(rules.EXIT_CLOSED)] = rules.EXIT_OPEN
        return rules.GEM_REWARD

    def _hit(self, direction: int) -> list[int]:
        """The guards that a stone thrown this way fells: all on the first cell with a guard, if the way is free."""
        cell = self.level.raider + rules.STEPS[direction]
        while self.level.tiles[cell] in rules.PASSABLE:
            found = [
                guard for guard in range(rules.GUARDS) if self.standing[guard] and self.level.guards[guard] == cell
            ]
            if found:
                return found
            cell += rules.STEPS[direction]
        return []

    def _touched(self) -> bool:
        return any(
            stands and cell == self.level.raider for stands, cell in zip(self.standing, self.level.guards, strict=True)
        )

    def _patrol(self) -> None:
        """Each guard walks ahead; where it cannot, it turns round and walks the other way, if it can."""
        tiles, guards, facing = self.level.tiles, self.level.guards, self.level.facing
        for guard in range(rules.GUARDS):
            if not self.standing[guard]:
                continue
            if tiles[guards[guard] + rules.STEPS[facing[guard]]] not in rules.PASSABLE:
                facing[guard] = (facing[guard] + 2) % 4
            ahead = guards[guard] + rules.STEPS[facing[guard]]
            if tiles[ahead] in rules.PASSABLE:
                guards[guard] = ahead
