"""LidarNav against positions worked out by hand, and against what its map promises."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from policykd_envs import lidar_world as world
from policykd_envs.lidar_nav import LidarNavEnv, Robot, beams, moved, observed, pushed_out
from policykd_envs.lidar_world import Layout, draw_layout

HIGHEST = world.FASTEST


def layout(goal=(3.0, 0.0), first=(2.0, 0.0), radius=0.5):
    """One obstacle where it is wanted, the others out of the way in a corner."""
    centres = np.full((world.OBSTACLES, 2), -3.5)
    centres[0] = first
    radii = np.full(world.OBSTACLES, 0.25)
    radii[0] = radius
    return Layout(np.zeros(2), 0.0, np.array(goal, float), centres, radii)


def at(x=0.0, y=0.0, heading=0.0, left=0.0, right=0.0):
    return Robot(x, y, heading, left, right)


def room(robot, chart):
    """From the robot's edge to the nearest wall or obstacle, in metres; negative where they overlap."""
    gaps = np.hypot(chart.centres[:, 0] - robot.x, chart.centres[:, 1] - robot.y) - chart.radii
    return min(gaps.min(), world.HALF - max(abs(robot.x), abs(robot.y))) - world.ROBOT


def env_at(robot, chart):
    env = LidarNavEnv()
    env.reset(seed=0)
    env.layout, env.robot = chart, robot
    return env


def test_beams_by_hand():
    reach = beams(at(), layout())
    assert reach[0] == pytest.approx(1.5)  # the circle ahead: centre at 2, radius 0.5
    assert reach[4] == reach[8] == reach[12] == pytest.approx(4.0)  # walls to the left, behind, to the right
    assert reach[2] == 4.0  # the corner is at 4 * sqrt(2), beyond the range
    assert beams(at(x=1.0), layout())[8] == 4.0  # 5 m behind
    turned = beams(at(heading=math.pi / 2), layout())
    assert turned[12] == pytest.approx(1.5)  # the circle lies to the right now
    near = beams(at(x=3.0, y=3.0), layout())
    assert near[0] == pytest.approx(1.0)
    assert near[2] == pytest.approx(math.sqrt(2))
    assert near[4] == pytest.approx(1.0)


def test_a_beam_that_passes_an_obstacle_misses_it():
    grazing = 2 * math.sin(2 * math.pi / 16)  # how far the second beam passes the centre
    assert beams(at(), layout(radius=grazing - 1e-6))[1] > 3.9
    expected = 2 * math.cos(2 * math.pi / 16)
    assert beams(at(), layout(radius=grazing + 1e-9))[1] == pytest.approx(expected, abs=1e-3)


@given(
    x=st.floats(-3.7, 3.7), y=st.floats(-3.7, 3.7), heading=st.floats(-10, 10), beam=st.integers(0, world.RAYS - 1),
    seed=st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_beams_end_where_the_free_space_ends(x, y, heading, beam, seed):
    chart = draw_layout(np.random.default_rng(seed))
    if room(at(x, y), chart) < 0:
        return
    reach = beams(at(x, y, heading), chart)[beam]
    angle = heading + world.BEAMS[beam]

    def depth(distance):
        """How far a point of the beam lies within a wall or an obstacle; negative in the free space."""
        px, py = x + distance * math.cos(angle), y + distance * math.sin(angle)
        circles = chart.radii - np.hypot(chart.centres[:, 0] - px, chart.centres[:, 1] - py)
        return max(max(abs(px), abs(py)) - world.HALF, circles.max())

    assert all(depth(share * reach) <= 1e-7 for share in np.linspace(0, 1, 200))
    if reach < world.RANGE:
        assert abs(depth(reach)) < 1e-7


def test_a_straight_step_by_hand():
    moving = moved(at(), HIGHEST, HIGHEST)
    speed = HIGHEST * (1 - math.exp(-0.1 / 0.2))
    assert moving == pytest.approx((0.1 * speed, 0, 0, speed, speed))
    assert moved(at(left=0.6, right=0.6), 0.6, 0.6).x == pytest.approx(0.06)


def test_turning_by_hand():
    spun = moved(at(left=-0.6, right=0.6), -0.6, 0.6)
    assert spun[:3] == pytest.approx((0, 0, 0.3))  # 2 * 0.6 / 0.4 = 3 rad/s to the left
    bent = moved(at(left=0.4, right=0.6), 0.4, 0.6)
    assert bent[:3] == pytest.approx((0.05 * math.cos(0.025), 0.05 * math.sin(0.025), 0.05))
    circle = at(left=0.4, right=0.6)  # a circle of radius 1 m, in 2 pi / 0.05 steps
    for _ in range(63):
        circle = moved(circle, 0.4, 0.6)
        assert math.hypot(circle.x, circle.y - 1) == pytest.approx(1, abs=2e-3)


def test_wheels_follow_their_commands():
    robot = at()
    for _ in range(2):  # 0.2 s is one time constant
        robot = moved(robot, HIGHEST, 0.0)
    assert robot.left == pytest.approx(HIGHEST * (1 - math.exp(-1)))
    assert robot.right == 0


def test_what_is_seen_by_hand():
    seen = observed(at(heading=math.pi / 2, left=0.3, right=0.6), layout())
    np.testing.assert_allclose(seen["goal"], [3 / (8 * math.sqrt(2)), 0, -1], atol=1e-7)
    np.testing.assert_allclose(seen["velocity"], [0.75, 0.25], atol=1e-7)
    np.testing.assert_allclose(seen["privileged"][:6], [0, 0, 0, 1, 0, -0.75], atol=1e-7)
    np.testing.assert_allclose(seen["privileged"][6:9], [0, -1, 0.2 / 1.5], atol=1e-7)  # the nearest comes first
    far = 0.2 / (3.5 * math.sqrt(2) - 0.25)
    np.testing.assert_allclose(seen["privileged"][9:12], [-math.sqrt(0.5), math.sqrt(0.5), far], atol=1e-7)
    np.testing.assert_allclose(seen["lidar"][12], 1.5 / 4, atol=1e-7)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_obstacles_are_known_from_the_nearest_on(seed):
    chart = draw_layout(np.random.default_rng(seed))
    ahead, aside, near = observed(at(*chart.start, chart.heading), chart)["privileged"][6:].reshape(-1, 3).T
    assert (np.diff(near) <= 0).all()
    assert near.min() > 0 and near.max() < 1
    dx, dy = (chart.centres - chart.start).T
    edges = np.hypot(dx, dy) - chart.radii
    order = np.argsort(edges)
    np.testing.assert_allclose(world.ROBOT / near, edges[order], rtol=1e-5)
    turned = np.arctan2(aside, ahead) + chart.heading - np.arctan2(dy, dx)[order]
    np.testing.assert_allclose(np.cos(turned), 1, atol=1e-6)


def test_the_goal_by_hand():
    env = env_at(at(x=-0.35, left=0.6, right=0.6), layout(goal=(0.0, 0.0)))
    _, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    assert (terminated, truncated, info) == (True, False, {"is_success": True, "touched": False})
    assert reward == pytest.approx(0.06 - 0.01 + 5)  # 0.35 m before, 0.29 m after


def test_a_step_on_the_way_by_hand():
    env = env_at(at(left=0.6, right=0.6), layout(goal=(-3.0, 0.0), first=(3.0, 3.0)))
    _, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    assert (terminated, truncated, info) == (False, False, {"is_success": False, "touched": False})
    assert reward == pytest.approx(-0.06 - 0.01)
    assert env.step(np.array([9.0, 9.0]))[1] == pytest.approx(-0.06 - 0.01)  # clipped


@pytest.mark.parametrize(
    ("robot", "touches", "stands"),
    [
        (
            at(x=1.25, left=0.6, right=0.6),
            True,
            (1.3, 0),
        ),  # the obstacle begins at 1.5, the robot's edge would be at 1.51
        (at(x=1.23, left=0.6, right=0.6), False, (1.29, 0)),
        (at(x=3.75, y=2.0, left=0.6, right=0.6), True, (3.8, 2)),  # its edge would be beyond 4 m
        (at(x=3.73, y=2.0, left=0.6, right=0.6), False, (3.79, 2)),
        (at(x=2.0, y=-3.75, heading=-math.pi / 2, left=0.6, right=0.6), True, (2, -3.8)),
        (at(x=1.94, y=0.69, left=0.6, right=0.6), True, (2, 0.7)),  # along the obstacle's side it slides on
    ],
)
def test_the_bumper_by_hand(robot, touches, stands):
    env = env_at(robot, layout(goal=(-3.0, 0.0)))
    before = math.hypot(robot.x + 3, robot.y)
    _, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    assert (terminated, truncated, info) == (False, False, {"is_success": False, "touched": touches})
    assert env.robot[:2] == pytest.approx(stands, abs=1e-5)
    assert env.robot[3:] == (0.6, 0.6)
    assert reward == pytest.approx(
        before - math.hypot(stands[0] + 3, stands[1]) - 0.01 - world.PENALTY * touches, abs=1e-5
    )
    many = gymnasium.make_vec("LidarNav-v0", num_envs=1).unwrapped
    many.reset(seed=0)
    many.robots[:, 0], many.goals[:, 0] = robot, env.layout.goal
    many.centres[:, :, 0], many.radii[:, 0] = env.layout.centres.T, env.layout.radii
    _, rewards, ended, _, infos = many.step(np.ones((1, 2), np.float32))
    assert (rewards[0], ended[0], infos["touched"][0]) == (pytest.approx(reward, abs=1e-12), False, touches)
    assert many.robots[:, 0] == pytest.approx(tuple(env.robot), abs=1e-12)


@given(
    seed=st.integers(0, 10**6), which=st.integers(0, world.OBSTACLES), angle=st.floats(-4, 4), depth=st.floats(0, 0.06)
)
@settings(max_examples=200, deadline=None)
def test_nothing_overlaps_behind_the_bumper(seed, which, angle, depth):
    """From anywhere a step's way within an obstacle, or within a wall where `which` is none of them."""
    chart = draw_layout(np.random.default_rng(seed))
    if which == world.OBSTACLES:
        robot = at(3.8 * math.sin(angle), world.HALF - world.ROBOT + depth)
    else:
        far = chart.radii[which] + world.ROBOT - depth
        robot = at(chart.centres[which, 0] + far * math.cos(angle), chart.centres[which, 1] + far * math.sin(angle))
    inside = room(robot, chart)
    pushed, touched = pushed_out(robot, chart)
    assert room(pushed, chart) >= -1e-12
    if abs(inside) > 1e-9:
        assert touched == (inside < 0)
    assert not pushed_out(pushed, chart)[1] or room(pushed, chart) < 1e-9  # that it stands there is no new touch
    assert touched or pushed == robot


def test_a_robot_that_pushes_on_comes_round_an_obstacle():
    """Straight at a goal behind an obstacle: a touch costs, and ends nothing."""
    env = env_at(at(y=0.05), layout(goal=(3.5, 0.0)))
    seen, steps, touches, total, terminated = observed(env.robot, env.layout), 0, 0, 0.0, False
    while not terminated and steps < world.MAX_STEPS:
        _, ahead, aside = seen["goal"]
        seen, reward, terminated, _, info = env.step(np.array([ahead - 2 * aside, ahead + 2 * aside], np.float32))
        steps, touches, total = steps + 1, touches + info["touched"], total + reward
    assert terminated and info["is_success"] and touches > 10
    way = math.hypot(3.5, 0.05) - math.hypot(3.5 - env.robot.x, env.robot.y)
    assert total == pytest.approx(way + 5 - 0.01 * steps - world.PENALTY * touches)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_goal_can_always_be_reached(seed):
    chart = draw_layout(np.random.default_rng(seed))
    grid = np.linspace(-world.HALF, world.HALF, 161)  # 5 cm
    x, y = np.meshgrid(grid, grid, indexing="ij")
    limit = world.HALF - world.ROBOT
    free = (abs(x) < limit) & (abs(y) < limit)
    for centre, radius in zip(chart.centres, chart.radii, strict=True):
        free &= np.hypot(x - centre[0], y - centre[1]) > radius + world.ROBOT
    regions, _ = ndimage.label(free)
    start, goal = (regions[tuple(abs(grid - v).argmin() for v in place)] for place in (chart.start, chart.goal))
    assert start == goal != 0


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_start_and_goal_have_room(seed):
    chart = draw_layout(np.random.default_rng(seed))
    for place in (chart.start, chart.goal):
        assert np.abs(place).max() <= world.HALF - world.ROBOT - world.GOAL
        gaps = np.hypot(*(chart.centres - place).T) - chart.radii
        assert gaps.min() > world.ROBOT + world.GOAL
    assert np.hypot(*(chart.start - chart.goal)) > 2 * world.GOAL
    gaps = np.hypot(*(chart.centres[:, None] - chart.centres).transpose(2, 0, 1)) - chart.radii - chart.radii[:, None]
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= 2 * world.MARGIN - 1e-12 > 2 * world.ROBOT


def test_maps_and_places_differ():
    starts = np.array([draw_layout(np.random.default_rng(seed)).start for seed in range(200)])
    assert starts.min() < -3 and starts.max() > 3 and len(np.unique(starts[:, 0])) == 200


def test_the_vector_version_knows_success():
    env = gymnasium.make_vec("LidarNav-v0", num_envs=3)
    env.reset(seed=0)
    for slot in range(3):  # the middle one stands before its goal
        env.unwrapped.robots[:, slot] = (0.0, 0.0, 0.0, 0.6, 0.6)
        env.unwrapped.centres[:, :, slot] = 3.5
        env.unwrapped.goals[:, slot] = (0.35 if slot == 1 else -3.0, 0.0)
    env.unwrapped.centres[:, 0, 1], env.unwrapped.radii[0, 1] = (0.55, 0.0), 0.25  # another step would touch it
    _, reward, terminated, truncated, info = env.step(np.ones((3, 2), np.float32))
    np.testing.assert_allclose(reward, [-0.07, 5.05, -0.07])
    assert terminated.tolist() == info["is_success"].tolist() == [False, True, False]
    assert not truncated.any()
    _, reward, terminated, _, info = env.step(np.ones((3, 2), np.float32))
    assert reward[1] == 0 and not terminated.any() and not info["is_success"].any() and not info["touched"].any()


def test_robots_that_drive_straight_at_their_goal_end_alike():
    """Random wheels seldom get anywhere: these reach goals, and push along obstacles."""
    ours, theirs = (
        gymnasium.make_vec("LidarNav-v0", num_envs=24, vectorization_mode=mode)
        for mode in ("vector_entry_point", "sync")
    )
    seen = ours.reset(seed=100)[0]
    theirs.reset(seed=100)
    noise = np.random.default_rng(0)
    reached = touched = 0
    for _ in range(400):
        _, ahead, aside = seen["goal"].T
        actions = np.stack([ahead - 2 * aside, ahead + 2 * aside], axis=1) + noise.normal(0, 0.1, (24, 2))
        mine, reference = ours.step(actions.astype(np.float32)), theirs.step(actions.astype(np.float32))
        for key, value in mine[0].items():
            np.testing.assert_allclose(value, reference[0][key], rtol=0, atol=1e-9)
        for one, other in zip(mine[1:4], reference[1:4], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
        for key in ("is_success", "touched"):
            np.testing.assert_array_equal(mine[4][key], reference[4][key])
        seen = mine[0]
        assert ours.observation_space.contains(seen)
        reached, touched = reached + mine[4]["is_success"].sum(), touched + mine[4]["touched"].sum()
    assert reached > 30
    assert touched > 200


def test_without_a_reset_or_a_render_mode():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        LidarNavEnv().step(np.zeros(2, np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        LidarNavEnv(render_mode="rgb_array").render()
    with pytest.warns(UserWarning, match="render_mode"):
        assert LidarNavEnv().render() is None


def test_pictures_without_pygame_say_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    env = LidarNavEnv(render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.DependencyNotInstalled, match=r"policykd\[video\]"):
        env.render()
