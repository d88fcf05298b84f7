"""A player of GridRaid that looks ahead: it knows where the guards will be, and goes for what is nearest, unless that
turns out to be a trap."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from policykd_envs.grid_raid import rules
from policykd_envs.grid_raid.game import Game


def solve(game: Game, tries: list[int] | None = None) -> list[int] | None:
    """The actions with which the raider leaves with every gem; None where none were found in 500 tries."""
    tries = [0] if tries is None else tries
    for leg in _legs(game):
        tries[0] += 1
        if tries[0] > 500:
            return None
        after = copy.deepcopy(game)
        for action in leg:
            assert after.legal(action)
            turn = after.play(action, True)
            if turn.left:
                return leg
        if turn.caught or turn.timeout:
            continue
        rest = solve(after, tries)
        if rest is not None:
            return leg + rest
    return None


def _legs(game: Game) -> Iterator[list[int]]:
    """Ways past the guards to something that is wanted, the shortest first: breadth first over turns and cells."""
    tiles, ghosts = game.level.tiles, copy.deepcopy(game)
    paths: dict[int, list[int]] = {game.level.raider: []}
    for _ in range(rules.TURNS - game.turn):
        before = _guarded(ghosts)
        ghosts._patrol()
        after = _guarded(ghosts)
        reached: dict[int, list[int]] = {}
        for cell, path in paths.items():
            for action, step in enumerate((0, *rules.STEPS)):
                ahead = cell + step
                if tiles[ahead] == rules.DOOR and game.keys and cell not in after:
                    yield [*path, action + 4]
                if tiles[ahead] not in rules.WALKABLE or ahead in before | after:
                    continue
                if tiles[ahead] in (rules.KEY, rules.GEM, rules.EXIT_OPEN):
                    yield [*path, action]
                else:
                    reached.setdefault(ahead, [*path, action])
        paths = reached


def _guarded(game: Game) -> set[int]:
    return {cell for cell, stands in zip(game.level.guards, game.standing, strict=True) if stands}
