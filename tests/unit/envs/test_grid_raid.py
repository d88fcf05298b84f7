"""GridRaid one game at a time: its generator, levels, rules, masks and pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

import policykd_envs
from policykd_envs import register_envs
from policykd_envs.grid_raid import patterns, rules
from policykd_envs.grid_raid.game import Game
from policykd_envs.grid_raid.generator import Generator, advance, below, draw, expand, mix
from policykd_envs.grid_raid.level import DRAWS, Level, make_level
from policykd_envs.grid_raid.single import GridRaidEnv
from tests.support.grid_raid import solve

IDS = ("GridRaid-v0", "GridRaidMulti-v0")
GOLDEN = Path(__file__).parents[2] / "fixtures" / "grid_raid" / "golden.json"
assert policykd_envs


def fnv(image):
    """FNV-1a, 32 bits."""
    value = 2166136261
    for byte in image.tobytes():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def board(*rows: str) -> Game:
    """A game from a drawing: @ raider, ^>v< guards, k key, s stone, g gem, D door, x exit; walls around it."""
    tiles, guards, facing, raider = [rules.WALL] * rules.CELLS, [], [], 0
    kinds = {".": rules.FLOOR, "#": rules.WALL, "D": rules.DOOR, "_": rules.DOORWAY, "x": rules.EXIT_CLOSED}
    kinds |= {"X": rules.EXIT_OPEN, "g": rules.GEM, "k": rules.KEY, "s": rules.STONE}
    for row, text in enumerate(rows, 1):
        for column, sign in enumerate(text, 1):
            cell = rules.SIZE * row + column
            tiles[cell] = kinds.get(sign, rules.FLOOR)
            if sign == "@":
                raider = cell
            elif sign in "^>v<":
                guards.append(cell)
                facing.append("^>v<".index(sign))
    game = Game(Level(tiles, raider, guards + [0] * (2 - len(guards)), facing + [0] * (2 - len(facing))))
    game.standing = [index < len(guards) for index in range(2)]
    return game


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_accepts_it(name):
    env = gymnasium.make(name, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.reset(seed=0)
    assert env.render().shape == (480, 480, 3)
    assert env.spec.max_episode_steps == rules.TURNS


def test_registering_twice_changes_nothing():
    before = gymnasium.spec("GridRaid-v0")
    register_envs()
    assert gymnasium.spec("GridRaid-v0") is before


def test_the_generator_gives_the_numbers_of_the_documentation():
    assert [mix(value) for value in (0, 1, 0xFFFFFFFF)] == [0, 0x86D2FA73, 0x99B5E683]
    assert [expand(seed) for seed in (0, 1, 2**32, 2**64)] == [0x109B4737, 0x39B0854C, 0xAA1EBDEF, 0x109B4737]
    generator = Generator(1)
    assert [generator.next() for _ in range(4)] == [0x7E188E35, 0xDC9FEB5A, 0xE7A54A04, 0xBCBA054B]
    generator = Generator(1)
    assert [generator.below(10) for _ in range(12)] == [4, 8, 9, 7, 0, 9, 3, 7, 5, 6, 0, 2]


@pytest.mark.parametrize(
    ("seed", "first", "second"),
    [(0, 0x144998E9, 0x84475D15), (1, 0xB915FA6D, 0xBA95B447), (2**40 + 5, 0x49FC6E05, 0xF51CA945)],
)
def test_levels_look_as_documented(seed, first, second):
    env = GridRaidEnv()
    assert [fnv(env.reset(seed=seed)[0]), fnv(env.reset()[0])] == [first, second]


def test_arrays_of_generators_draw_the_same_numbers():
    generators = [Generator(seed) for seed in range(50)]
    states = np.array([generator.state for generator in generators], np.uint32)
    numbers = draw(states, 30)
    small = below(numbers, 7)
    for row, generator in enumerate(generators):
        twin = Generator(row)
        assert [generator.next() for _ in range(30)] == numbers[row].tolist()
        assert [twin.below(7) for _ in range(30)] == small[row].tolist()
    assert advance(states, np.full(50, 30)).tolist() == [generator.state for generator in generators]


def test_numbers_below_n_are_even():
    generator = Generator(0)
    counts = np.bincount([generator.below(10) for _ in range(20000)], minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 250


def test_a_level_takes_a_fixed_number_of_draws():
    for seed in range(50):
        generator, twin = Generator(seed), Generator(seed)
        make_level(generator)
        for _ in range(DRAWS):
            twin.next()
        assert generator.state == twin.state


def test_every_level_can_be_solved():
    lengths = []
    for seed in range(400):
        path = solve(Game(make_level(Generator(seed))))
        assert path is not None, seed
        lengths.append(len(path))
    assert max(lengths) < rules.TURNS - 10
    assert len({tuple(make_level(Generator(seed)).tiles) for seed in range(100)}) == 100


def test_levels_hold_what_they_promise():
    for seed in range(300):
        level = make_level(Generator(seed))
        counts = np.bincount(level.tiles, minlength=rules.N_TILES)
        assert counts[[rules.GEM, rules.KEY, rules.STONE, rules.DOOR, rules.EXIT_CLOSED]].tolist() == [3, 1, 1, 1, 1]
        game = Game(level)
        seen = [set(), set()]
        for _ in range(40):
            for guard, cell in enumerate(level.guards):
                seen[guard].add(cell)
                assert level.tiles[cell] in rules.PASSABLE
            game._patrol()
        assert min(map(len, seen)) >= 4


def test_only_the_episodes_seed_decides_and_later_ones_go_on():
    one, other = GridRaidEnv(), GridRaidEnv()
    first = [one.reset(seed=5)[0], one.reset()[0], one.reset()[0]]
    other.reset(seed=9)
    again = [other.reset(seed=5)[0], other.reset()[0], other.reset()[0]]
    np.testing.assert_array_equal(first, again)
    assert len({image.tobytes() for image in first}) == 3


def test_walls_doors_and_the_shut_exit_are_forbidden():
    game = board("#D#", "x@#", "#g#")
    assert [action for action in range(13) if game.legal(action)] == [0, 3]
    game.keys = 1
    assert [action for action in range(13) if game.legal(action)] == [0, 3, 5]
    turn = game.play(2, game.legal(2))
    assert turn.reward == rules.TURN_REWARD + rules.FORBIDDEN_REWARD


def test_a_raid():
    game = board("@kDg.x", "gg####")
    rewards = [game.play(action, game.legal(action)).reward for action in (3, 2, 1, 6)]
    assert rewards == [63, 63, 31, 31]
    assert game.level.tiles[15] == rules.DOORWAY
    assert not game.legal(6)
    assert [game.play(2, True).reward for _ in range(2)] == [-1, 63]
    assert game.level.tiles[18] == rules.EXIT_OPEN
    turns = [game.play(2, True) for _ in range(2)]
    assert [turn.left for turn in turns] == [False, True]
    assert turns[1].reward == 127
    assert game.level.tiles[:8] == [1, 1, 1, 1, *[rules.HELD_GEM] * 3, 1]


def test_a_stone_fells_the_first_guard_in_line():
    game = board("@s.v.v", ".#####")
    assert not game.legal(10)
    game.play(2, True)
    assert [action for action in range(9, 13) if game.legal(action)] == [10]
    assert game.play(10, True).reward == rules.TURN_REWARD
    assert game.standing == [False, True]
    assert not game.legal(10)
    game.stones = 1
    assert game.legal(10)
    game.level.tiles[16] = rules.DOORWAY
    assert not game.legal(10)


@pytest.mark.parametrize(
    ("row", "action", "caught"),
    [
        ("@.<", 0, False),
        ("@<", 0, True),
        ("@<", 2, True),
        ("@>.", 2, True),
        ("@.>", 2, True),
        ("@.>.", 2, False),
        ("@.<", 2, True),
    ],
)
def test_who_meets_a_guard_is_caught(row, action, caught):
    turn = board(row).play(action, True)
    assert turn.caught is caught
    assert turn.reward == rules.TURN_REWARD + rules.CAUGHT_REWARD * caught


def test_guards_turn_round_at_walls_and_doorways():
    game = board(".>._@")
    places = []
    for _ in range(5):
        game.play(0, True)
        places.append(game.level.guards[0] - rules.SIZE)
    assert places == [3, 2, 1, 2, 3]


def test_episodes_end_after_96_turns_and_then_need_a_reset():
    env = GridRaidEnv()
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=43)
    env._game.standing = [False, False]
    for turn in range(1, rules.TURNS + 1):
        _, reward, terminated, truncated, info = env.step(0)
        assert (reward, terminated, truncated, info) == (-1 / 64, False, turn == rules.TURNS, {"is_success": False})
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize("wrong", [13, -1, 1.0, None])
def test_what_is_no_action_is_refused(wrong):
    env = GridRaidEnv()
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(wrong)


def test_branches_are_masked_on_their_own_and_their_pairs_are_harmless():
    env = GridRaidEnv(multi=True)
    rng = np.random.default_rng(1)
    harmless = 0
    env.reset(seed=0)
    for _ in range(1500):
        masks, game = env.action_masks(), env._game
        directions = [d == 0 or any(game.legal(4 * tool + d) for tool in range(3)) for d in range(5)]
        tools = [tool == 0 or any(game.legal(4 * tool + d) for d in range(1, 5)) for tool in range(3)]
        assert masks.tolist() == directions + tools
        pair = np.array([rng.choice(np.flatnonzero(masks[:5])), rng.choice(np.flatnonzero(masks[5:]))])
        idle = not game.legal(rules.pair_action(*pair.tolist()))
        before = game.level.raider
        _, reward, terminated, truncated, _ = env.step(pair)
        if idle:
            harmless += 1
            assert game.level.raider == before
            assert reward in (-1 / 64, -65 / 64)
        if terminated or truncated:
            env.reset()
    assert harmless > 5


def test_most_actions_are_forbidden_in_most_states():
    env = GridRaidEnv()
    rng = np.random.default_rng(2)
    env.reset(seed=0)
    shares = []
    for _ in range(1000):
        masks = env.action_masks()
        shares.append(masks.mean())
        _, _, terminated, truncated, _ = env.step(rng.choice(np.flatnonzero(masks)))
        if terminated or truncated:
            env.reset()
    assert np.mean(shares) < 0.4


def test_the_picture_shows_everything():
    """Two states of a running game with the same picture are the same state."""
    assert len({pattern.tobytes() for pattern in _running_patterns()}) == len(_running_patterns())
    assert len({bar.tobytes() for bar in patterns.BARS}) == rules.TURNS + 1


def _running_patterns():
    """Every look of a cell during an episode: guards on what they pass, the raider alone."""
    codes = list(range(rules.N_TILES))
    codes += [tile + rules.N_TILES * facing for tile in rules.PASSABLE for facing in range(1, 16)]
    codes += [tile + rules.N_TILES * patterns.RAIDER_BIT for tile in (rules.FLOOR, rules.DOORWAY, rules.EXIT_OPEN)]
    return [patterns.PATTERNS[code] for code in codes]


@pytest.mark.parametrize("episode", json.loads(GOLDEN.read_text("utf-8")), ids=lambda episode: episode["id"])
def test_golden_episode(episode):
    env = gymnasium.make(episode["id"])
    image, _ = env.reset(seed=episode["seed"])
    assert fnv(image) == episode["first"]
    for action, reward, seen, masks in zip(
        episode["actions"], episode["rewards"], episode["observations"], episode["masks"], strict=True
    ):
        allowed = env.unwrapped.action_masks()
        assert sum(int(bit) << place for place, bit in enumerate(allowed)) == masks
        image, got, terminated, truncated, info = env.step(np.array(action) if env.unwrapped.multi else action)
        assert (got * 64, fnv(image)) == (reward, seen)
    assert [terminated, truncated, info["is_success"]] == episode["end"]


def test_a_window_shows_the_game(monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = GridRaidEnv(render_mode="human")
    env.reset(seed=0)
    env.step(0)
    shown = env._window._surface.copy()
    assert shown.get_size() == (480, 480)
    assert shown.get_at((5, 5))[:3] != (0, 0, 0)
    env.close()
    assert env._window is None
    with pytest.raises(ValueError, match="render_mode is 'svg'"):
        GridRaidEnv(render_mode="svg")


def test_pygame_is_not_imported_without_a_window():
    code = (
        "import gymnasium, policykd_envs, sys; e = gymnasium.make('GridRaid-v0', render_mode='rgb_array');"
        "e.reset(); e.render(); print('pygame' in sys.modules, 'policykd' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
