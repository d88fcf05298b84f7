"""CartPole and Pendulum without velocities are Gymnasium's own, less what is hidden."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from policykd_envs.no_velocity_vector import cartpole_moved, pendulum_cost, pendulum_moved


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [("CartPoleNoVel-v0", "CartPole-v1", [0, 2]), ("PendulumNoVel-v0", "Pendulum-v1", [0, 1])],
)
def test_it_is_gymnasiums_without_the_velocities(ours, theirs, shown):
    assert gymnasium.spec(ours).max_episode_steps == gymnasium.spec(theirs).max_episode_steps
    one, other = gymnasium.make(ours), gymnasium.make(theirs)
    assert one.action_space == other.action_space
    np.testing.assert_array_equal(one.observation_space.low, other.observation_space.low[shown])
    np.testing.assert_array_equal(one.observation_space.high, other.observation_space.high[shown])
    one.action_space.seed(0)
    for seed in range(4):
        np.testing.assert_array_equal(one.reset(seed=seed)[0], other.reset(seed=seed)[0][shown])
        done = False
        while not done:
            action = one.action_space.sample()
            mine, reference = one.step(action), other.step(action)
            np.testing.assert_array_equal(mine[0], reference[0][shown])
            assert mine[1:] == reference[1:]
            done = mine[2] or mine[3]


def test_a_pushed_cart_by_hand():
    # upright and at rest: temp = 10 / 1.1, angle's acceleration -temp / (0.5 (4/3 - 0.1 / 1.1))
    angle = -(10 / 1.1) / (0.5 * (4 / 3 - 0.1 / 1.1))
    cart = 10 / 1.1 - 0.05 * angle / 1.1
    moved = cartpole_moved(np.zeros((4, 2)), np.array([True, False]))
    np.testing.assert_allclose(moved[:, 0], [0, 0.02 * cart, 0, 0.02 * angle], atol=1e-15)
    np.testing.assert_array_equal(moved[:, 1], -moved[:, 0])


def test_a_pendulum_by_hand():
    state = np.array([[np.pi / 2, 3 * np.pi / 2], [0.0, 8.0]])  # at the side; at the other, as fast as it may be
    torque = np.array([2.0, 0.0])
    np.testing.assert_allclose(pendulum_cost(state, torque), [np.pi**2 / 4 + 0.004, np.pi**2 / 4 + 6.4])
    speed = (15 + 6) * 0.05
    np.testing.assert_allclose(
        pendulum_moved(state, torque), [[np.pi / 2 + speed * 0.05, 3 * np.pi / 2 + 7.25 * 0.05], [speed, 7.25]]
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("CartPoleNoVel-v0", {"low": 0.01, "high": 0.02}), ("PendulumNoVel-v0", {"x_init": 0.1, "y_init": 0.2})],
)
def test_options_are_those_of_gymnasium(name, options):
    single, vector = gymnasium.make(name), gymnasium.make_vec(name, num_envs=2)
    first = vector.reset(seed=3, options=options)[0]
    np.testing.assert_array_equal(first[1], single.reset(seed=4, options=options)[0])
    plain = vector.reset(seed=3)[0]
    assert (first != plain).any()


def test_actions_that_are_none_are_refused():
    env = gymnasium.make_vec("CartPoleNoVel-v0", num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 2 integers"):
        env.step(np.array([0, 2]))
