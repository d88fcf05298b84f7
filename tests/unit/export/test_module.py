"""The graph as a torch module: torch's own float32, which the other targets are compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policykd.exports.graph import Feed
from policykd.exports.interface import interface_of, random_noise
from policykd.exports.module import GraphModule, inputs_of, named
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from tests.support.core import FAMILIES, student
from tests.support.exported import ELSEWHERE, OBSERVATIONS, batch_of, feed_of, mask_of, student_on

SPACES = OBSERVATIONS | ELSEWHERE


def _act(graph, feed):
    contract = interface_of(graph)
    return named(contract, GraphModule(graph)(*inputs_of(contract, feed)))


@pytest.mark.parametrize("hidden", [(), (7,), (6, 5)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("family", FAMILIES)
def test_acts_as_the_student_bit_for_bit(family, activation, hidden):
    policy = student(family, activation, hidden=hidden)
    batch = batch_of(policy.observation_space)
    action = _act(graph_of(policy), feed_of(policy, batch))["action"]
    expected, _ = policy.predict(batch, deterministic=True)
    assert action.dtype == expected.dtype
    assert np.array_equal(action, expected)


@pytest.mark.parametrize("space", SPACES)
def test_takes_every_observation(space):
    policy = student_on(SPACES[space])
    batch = batch_of(SPACES[space])
    action = _act(graph_of(policy), feed_of(policy, batch))["action"]
    assert np.array_equal(action, policy.predict(batch, deterministic=True)[0])
    assert len(np.unique(action[:, 0])) > 3  # the observations count


def test_a_gaussian_in_unit_actions_is_stretched():
    policy = student_on(OBSERVATIONS["box"], unscale=True)
    batch = batch_of(OBSERVATIONS["box"])
    action = _act(graph_of(policy), feed_of(policy, batch))["action"]
    assert np.array_equal(action, policy.predict(batch, deterministic=True)[0])
    assert action.max() > 2


@pytest.mark.parametrize("family", ["categorical", "multi", "bernoulli"])
def test_a_mask_forbids_as_in_the_student(family):
    policy = student_on(OBSERVATIONS["box"], family, masked=True)
    graph, batch = graph_of(policy), batch_of(OBSERVATIONS["box"])
    sizes = graph.head.branches or (2,) * graph.head.size
    mask = mask_of(graph.head.mask_size, sizes)
    action = _act(graph, feed_of(policy, batch, mask))["action"]
    assert np.array_equal(action, policy.predict(batch, deterministic=True, action_masks=mask)[0])
    free = _act(graph, feed_of(policy, batch))["action"]
    assert np.array_equal(free, policy.predict(batch, deterministic=True)[0])
    assert not np.array_equal(free, action)


@pytest.mark.parametrize(
    ("family", "masked"), [*((family, False) for family in FAMILIES), ("categorical", True), ("bernoulli", True)]
)
def test_noise_and_distribution_are_those_of_the_reference(family, masked):
    policy = student_on(OBSERVATIONS["all by key"], family, masked=masked)
    graph = graph_of(policy, stochastic=True, with_distribution=True)
    noise = random_noise(graph.head.law, (256, graph.head.size), np.random.default_rng(1))
    mask = mask_of(graph.head.mask_size, graph.head.branches or (2,) * graph.head.size) if masked else None
    feed = feed_of(policy, batch_of(OBSERVATIONS["all by key"]), mask, noise)
    found, expected = _act(graph, feed), run(graph, feed)
    assert list(found) == ["action", *graph.distribution_names]
    first, *rest = graph.distribution_names
    np.testing.assert_allclose(found["action"], expected.action, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[first], expected.outputs, rtol=1e-5, atol=1e-5)
    if rest:
        assert np.array_equal(found["log_std"], np.tile(graph.head.log_std, (256, 1)))
    assert not np.array_equal(found["action"], _act(graph, Feed(feed.observations, mask))["action"])


@pytest.mark.parametrize("family", FAMILIES)
def test_double_is_the_reference_in_float64(family):
    policy = student(family)
    graph, feed = graph_of(policy), feed_of(policy, batch_of(policy.observation_space))
    module = GraphModule(graph).double()
    outputs = module.outputs(*inputs_of(interface_of(graph), feed))
    assert outputs.dtype == torch.float64
    np.testing.assert_allclose(outputs.numpy(), run(graph, feed).outputs, rtol=1e-12, atol=1e-12)
