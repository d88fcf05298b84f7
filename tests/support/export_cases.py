"""Graphs to export, whatever the target: every distribution, nested and one-hot observations, masks, noise; and what to
feed them with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from policykd.exports.graph import Feed, Graph
from policykd.exports.interface import Interface, interface_from_json, interface_of, random_noise
from policykd.exports.of_student import graph_of, split
from policykd.exports.reference import margins, run
from policykd.loss.distributions import MultiCategorical
from policykd.spine.packing import packing_of
from policykd.spine.spaces import action_map
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser
from tests.support.core import FAMILIES, student
from tests.support.masked import random_masks

NESTED = spaces.Dict(
    {
        "position": spaces.Box(-5, 5, (2,), np.float64),
        "goal": spaces.Discrete(3, start=-1),
        "class": spaces.Box(0, 255, (2, 2), np.uint8),
        "Class": spaces.MultiDiscrete([[2, 3], [4, 2]]),
        "NAN": spaces.MultiBinary(3),
        "in. */ the\\": spaces.Tuple((spaces.Box(-1, 1, (), np.float32), spaces.Discrete(2))),
    }
)


@dataclass(frozen=True)
class Case:
    """A student and how its graph is made."""

    name: str
    student: MlpStudent
    stochastic: bool = False
    with_distribution: bool = False

    @property
    def graph(self) -> Graph:
        return graph_of(self.student, stochastic=self.stochastic, with_distribution=self.with_distribution)


def on_space(space: spaces.Space[Any], family: str, hidden: tuple[int, ...] = (7,), seed: int = 0) -> MlpStudent:
    """A random student of the family on any observation space."""
    packing = packing_of(space)
    rng = np.random.default_rng(seed)
    space.seed(seed)
    seen = packing.features(np.stack([packing.pack(space.sample()) for _ in range(64)]))
    distribution = FAMILIES[family][0]
    layers = tuple(
        (torch.from_numpy(rng.normal(size=(i, o)).astype("f4")), torch.from_numpy(rng.normal(size=o).astype("f4")))
        for i, o in itertools.pairwise([packing.n_features, *hidden, distribution.n_means])
    )
    return replace(
        student(family, seed=seed), normaliser=Normaliser.measured(seen), layers=layers, observation_space=space
    )


def unbounded(family: str = "gaussian") -> MlpStudent:
    """A Gaussian one whose first action has no bounds, and whose second has one."""
    space = spaces.Box(np.array([-np.inf, -np.inf], np.float32), np.array([np.inf, 0.25], np.float32))
    return replace(student(family), action_space=space, action_map=action_map(space, unscale=False))


def on_even_choices() -> MlpStudent:
    """One that makes 400 choices of two each, masked, from other numbers than 0 on."""
    n = 400
    space = spaces.MultiDiscrete(np.full((20, 20), 2), start=np.arange(n).reshape(20, 20) - 7)
    base = student("multi", seed=7)
    rng = np.random.default_rng(7)
    last = tuple(torch.from_numpy(rng.normal(size=size).astype("f4")) for size in ((5, 2 * n), 2 * n))
    return replace(
        base,
        layers=(*base.layers[:-1], (last[0], last[1])),
        distribution=MultiCategorical((2,) * n),
        action_space=space,
        action_map=action_map(space, unscale=False),
        masked=True,
    )


def cases() -> list[Case]:
    """Each family as it is, as relu, sampling, masked; depths 0 to 3; nested and one-hot observations."""
    found = []
    for family in FAMILIES:
        found += [
            Case(family, student(family)),
            Case(f"{family}-relu", student(family, "relu", hidden=(9,), seed=1), with_distribution=True),
            Case(f"{family}-noise", student(family, seed=2), stochastic=True, with_distribution=True),
            Case(f"{family}-depth0", student(family, hidden=(), seed=3)),
            Case(f"{family}-nested", on_space(NESTED, family, seed=4), with_distribution=True),
        ]
        if family in ("categorical", "multi", "bernoulli"):
            masked = replace(student(family, seed=5), masked=True)
            found += [Case(f"{family}-masked", masked), Case(f"{family}-masked-noise", masked, True, True)]
    found += [
        Case("onehot", on_space(spaces.Discrete(7, start=2), "categorical")),
        Case("board", on_space(spaces.MultiDiscrete(np.full((19, 19), 3)), "categorical", seed=6)),
        Case("even", on_even_choices(), stochastic=True, with_distribution=True),
        Case("image", on_space(spaces.Box(0, 255, (12, 9, 3), np.uint8), "gaussian")),
        Case("unbounded", unbounded(), stochastic=True),
        Case("deep", student("squashed", hidden=(16, 300, 8))),
    ]
    return found


CASES = {case.name: case for case in cases()}


def read_back(graph: Graph) -> Interface:
    """The interface as it comes out of a manifest."""
    return interface_from_json(interface_of(graph).to_json())


def feed_of(case: Case, n: int = 256, *, seed: int = 0) -> Feed:
    """Observations of the space, scaled up in part, the last ones far outside of it; masks; noise."""
    rng = np.random.default_rng(seed)
    space, packing, graph = case.student.observation_space, case.student.packing, case.graph
    space.seed(seed)
    packed = np.stack([packing.pack(space.sample()) for _ in range(n)])
    parts = [np.array(part) for part in split(packing, packed)]
    for port, part in zip(graph.ports, parts, strict=True):
        if port.nvec:
            part[-1], part[-2] = np.iinfo(part.dtype).max, np.iinfo(part.dtype).min
        elif part.dtype.kind == "f":
            part[: n // 2] *= rng.uniform(0, 4, part[: n // 2].shape).astype(part.dtype)
            part[-1], part[-2], part[-3], part[-4] = 1e30, -1e30, np.inf, 1e-42
    mask = random_masks(case.student.action_space, n) if graph.masked else None
    noise = random_noise(graph.head.law, (n, graph.head.size), rng).astype(np.float32) if graph.stochastic else None
    return Feed(tuple(parts), mask, noise)


def tolerance(graph: Graph, feed: Feed, name: str = "action") -> Any:
    """Four times the error of float32 itself, and four units in the last place."""
    exact, single = run(graph, feed), run(graph, feed, np.float32)
    before = 4 * np.abs(single.outputs - exact.outputs).max(0)
    if name == "outputs":
        return before + 2.0**-21 * np.abs(exact.outputs)
    after = 4 * np.abs(single.action - exact.action).max(0)  # 0 where nearly everything is clipped
    return np.maximum(after, before.reshape(after.shape)) + 2.0**-21 * np.abs(exact.action)


def assert_equal(graph: Graph, feed: Feed, found: dict[str, Any]) -> None:
    """What a runtime gave is what the reference gives."""
    exact = run(graph, feed)
    action = found["action"]
    assert action.shape == exact.action.shape
    if graph.head.kind == "numbers":
        assert (np.abs(action - exact.action) <= tolerance(graph, feed)).all()
    else:
        assert action.dtype == exact.action.dtype
        logits = exact.outputs + (feed.noise if graph.stochastic else 0)
        clear = (margins(graph, logits) > 1e-4).reshape(action.shape)
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(action[clear], exact.action[clear])
    assert set(found) == {"action", *(graph.distribution_names if graph.with_distribution else ())}
    for name in set(found) - {"action"}:
        assert found[name].dtype == np.float32
        expected = np.broadcast_to(graph.head.log_std, exact.outputs.shape) if name == "log_std" else exact.outputs
        assert (np.abs(found[name] - expected) <= tolerance(graph, feed, "outputs")).all()
