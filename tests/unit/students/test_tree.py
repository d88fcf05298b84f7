"""Fails when a tree's file is not the tree, when a hostile one is read, or when its rules say something else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.numpy import save

from policykd.spine.artifact import save_artifact
from policykd.spine.errors import InputError
from policykd.students.load import load_student
from policykd.students.nodes import Nodes, beneath
from policykd.students.rules import rules_of
from tests.support.core import FAMILIES
from tests.support.trees import random_nodes, tree

RNG = np.random.default_rng(0)


def _walked(nodes: Nodes, x: np.ndarray) -> np.ndarray:
    """What one row comes to, by recursion."""

    def go(code: int) -> np.ndarray:
        if code < 0:
            return nodes.value[-1 - code]
        return go(int(nodes.children[code][0 if x[nodes.feature[code]] <= nodes.threshold[code] else 1]))

    return go(0 if len(nodes) else -1)


@pytest.mark.parametrize("leaves", [1, 2, 40])
def test_all_rows_at_once_go_where_each_goes_alone(leaves: int) -> None:
    nodes = random_nodes(3, 2, leaves)
    nodes.check(3)
    x = RNG.normal(size=(200, 3)).astype("f4")
    x[:3] = np.inf, -np.inf, 0.0
    assert (nodes.outputs(x) == np.stack([_walked(nodes, row) for row in x])).all()
    x[5, 1] = np.nan
    assert np.isnan(nodes.outputs(x)[5]).all() and not np.isnan(nodes.outputs(x)[6]).any()


def test_a_threshold_in_float32_parts_float32_as_the_float64_did() -> None:
    a = RNG.normal(size=500).astype("f4")
    b = np.nextafter(a, np.float32(9))
    middle = (a.astype("f8") + b.astype("f8")) / 2
    found = beneath(middle)
    assert (a <= found).all() and (found < b).all()
    assert (b <= middle.astype("f4")).any(), "rounding to the nearest would not do"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_acts_as_the_student(family: str, tmp_path: Path) -> None:
    student = tree(family)
    save_artifact(tmp_path / "s.safetensors", *student.to_artifact())
    x = 2 * RNG.normal(size=(64, 3)).astype("f4")
    wanted = student.predict(x, deterministic=True)[0]
    assert len(np.unique(wanted.reshape(64, -1), axis=0)) > 1
    for backend in ("torch", "numpy"):
        found = load_student(tmp_path / "s.safetensors", backend=backend)
        assert np.allclose(found.predict(x, deterministic=True)[0], wanted, rtol=1e-5)  # tanh is not one function
    assert student.footprint.params == 2 * 11 + 12 * student.distribution.n_means


def test_what_the_mask_forbids_is_not_done() -> None:
    student = tree("categorical", masked=True)
    x = RNG.normal(size=(64, 3)).astype("f4")
    n = student.distribution.n_means
    best = student.predict(x, deterministic=True)[0] + 1  # they start at -1
    masks = np.ones((64, n), bool)
    masks[np.arange(64), best] = False
    other = student.predict(x, deterministic=True, action_masks=masks)[0]
    values = np.where(masks, student.nodes.outputs(x), -np.inf)
    assert (other + 1 == values.argmax(-1)).all() and (other + 1 != best).all()


def _tampered(name: str, value: np.ndarray, tmp_path: Path) -> Path:
    tensors, document = tree("categorical").to_artifact()
    text = json.dumps({"format": 1, **document})
    path = tmp_path / "bad.safetensors"
    path.write_bytes(save({**tensors, name: np.ascontiguousarray(value, np.float32)}, {"policykd": text}))
    return path


def _hostile() -> dict[str, tuple[str, np.ndarray]]:
    arrays = tree("categorical").to_artifact()[0]
    children, feature = arrays["tree.children"], arrays["tree.feature"]

    def put(values: np.ndarray, at: tuple[int, ...], value: float) -> np.ndarray:
        changed = values.copy()
        changed[at] = value
        return changed

    inner = np.argwhere(children > 1)[-1]
    at = (int(inner[0]), int(inner[1]))
    loop = children.copy()  # every node and leaf named once, and yet one is its own child, which nothing leads to
    above, below = next(
        ((i, j), (int(children[i, j]), k))
        for i, j in np.argwhere(children > 0).tolist()
        for k in (0, 1)
        if children[int(children[i, j]), k] > 0
    )
    loop[above], loop[below] = children[below], children[above]
    return {
        "apart": ("tree.children", loop),
        "cycle": ("tree.children", put(children, at, 0)),
        "own child": ("tree.children", put(children, at, at[0])),
        "two parents": ("tree.children", put(children, at, -1)),
        "no such node": ("tree.children", put(children, at, 99)),
        "no such leaf": ("tree.children", put(children, at, -99)),
        "half a node": ("tree.children", put(children, at, 1.5)),
        "huge": ("tree.children", put(children, at, 3e38)),
        "no such input": ("tree.feature", put(feature, (0,), 3)),
        "negative input": ("tree.feature", put(feature, (0,), -1)),
        "half an input": ("tree.feature", put(feature, (0,), 0.5)),
        "nan": ("tree.threshold", put(arrays["tree.threshold"], (0,), np.nan)),
        "inf": ("tree.value", put(arrays["tree.value"], (0, 0), np.inf)),
        "a normaliser": ("normaliser.mean", np.ones(3)),
        "one node less": ("tree.children", children[:-1]),
    }


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("damage", _hostile())
def test_a_hostile_tree_is_refused_in_one_line(damage: str, backend: str, tmp_path: Path) -> None:
    path = _tampered(*_hostile()[damage], tmp_path)
    with pytest.raises(InputError) as caught:
        load_student(path, backend=backend)  # type: ignore[call-overload]
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_same_tree_untouched_is_read(tmp_path: Path) -> None:
    arrays = tree("categorical").to_artifact()[0]
    load_student(_tampered("tree.value", arrays["tree.value"], tmp_path))


def _obeyed(text: str, x: np.ndarray) -> str:
    """The line of rules.txt that an observation comes to, read as a person would."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    at, depth = 0, 0
    while True:
        line = lines[at].removeprefix("|   " * depth)
        question = re.fullmatch(r"if obs\[(\d+)\] <= (\S+):", line)
        if question is None:
            return line
        depth += 1
        at += 1
        if not x[int(question[1])] <= np.float32(question[2]):
            at = lines.index("|   " * (depth - 1) + "else:", at) + 1


@pytest.mark.parametrize("family", ["categorical", "multi", "gaussian"])
def test_the_rules_say_what_the_tree_does(family: str) -> None:
    student = tree(family)
    text = rules_of(student)
    for x in RNG.normal(size=(50, 3)).astype("f4"):
        action = np.asarray(student.predict(x, deterministic=True)[0])
        line = _obeyed(text, x)
        found = [float(number) for number in re.findall(r"-?\d[\d.e-]*", line.split("(")[0])]
        assert np.allclose(found, action.reshape(-1), rtol=1e-3, atol=1e-4), line


def test_choices_are_asked_for_by_name_and_a_deep_tree_has_rules() -> None:
    assert re.search(r"if obs is not [234]:", rules_of(tree("categorical", 5, spaces.Discrete(3, start=2))))
    n = 3000
    children = np.stack([np.arange(1, n + 1), -1 - np.arange(n)], 1)
    children[-1, 0] = -1 - n
    deep = Nodes(np.zeros(n, int), np.arange(n, 0, -1).astype("f4"), children, np.zeros((n + 1, 3), "f4"))
    deep.check(3)
    from dataclasses import replace

    assert rules_of(replace(tree("categorical"), nodes=deep)).count("   action ") == n + 1
    assert torch.isfinite(replace(tree("categorical"), nodes=deep).distribution_params(torch.zeros(2, 3))).all()
