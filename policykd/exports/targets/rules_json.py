"""Target `json`: `policy.json`, a decision tree as rules to be read by anything; docs/methods/trees.md describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.graph import Array, Feed, Graph, Head, Tree
from policykd.exports.interface import ACTION, Interface, Runtime
from policykd.exports.reference import action_of, features
from policykd.exports.targets.table import Options
from policykd.spine.errors import InputError, brief
from policykd.spine.features import features_of
from policykd.spine.files import write_atomic
from policykd.students.nodes import Nodes

RUNS_CODE = False
FILE = "policy.json"
EXAMPLE = """\
import json

tree = json.load(open("{name}.json"))
features = [0.0] * len(tree["features"])  # raw, in the order of tree["features"]; a choice is 1.0 or 0.0
node = tree["root"]
while node >= 0:
    rule = tree["nodes"][node]
    node = rule["yes"] if features[rule["feature"]] <= rule["threshold"] else rule["no"]
print(tree["leaves"][-1 - node]["action"])  # in the units of the environment
"""
_MOST_BYTES = 2**26


def check(graph: Graph, options: Options) -> None:
    """InputError for all but decision trees, and for options that rules do not have."""
    del options
    if len(graph.layers) != 1 or not isinstance(graph.layers[0], Tree):
        raise InputError(
            "--to json: only a decision tree can be written as rules (student.kind=tree); choose onnx, c or torch"
        )
    if graph.stochastic:
        raise InputError("--to json: rules draw nothing; leave --stochastic out, or choose c")


def write(graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
    """`policy.json`."""
    del options
    nodes = _nodes(graph)
    rules = zip(nodes.feature.tolist(), nodes.threshold.tolist(), nodes.children.tolist(), strict=True)
    actions = _actions(graph, nodes)
    document = {
        "format": 1,
        "features": [
            {"name": one.name, **({} if one.choice is None else {"choice": one.choice})}
            for one in features_of(graph.ports)
        ],
        "root": 0 if len(nodes) else -1,
        "nodes": [{"feature": f, "threshold": t, "yes": yes, "no": no} for f, t, (yes, no) in rules],
        "leaves": [
            {"action": action.tolist(), "outputs": value}
            for action, value in zip(actions, nodes.value.tolist(), strict=True)
        ],
        "outputs": {"choices": "log-probabilities", "bits": "logits", "numbers": "means"}[graph.head.kind],
        "head": {"squash": graph.head.squash, "log_std": graph.head.log_std.tolist()},
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    write_atomic(folder / FILE, text.encode())
    return {
        "files": [FILE],
        "inside": ["the action of each leaf"],
        "outside": ["one-hot choices"] * any(port.nvec for port in graph.ports) + ["action mask"] * graph.masked,
        "bytes": len(text.encode()),
    }


def load(folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
    """The rules, followed by a reader of their own; InputError for a file that holds no tree of this interface."""
    del facts
    path = folder / FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES} bytes")
        document = json.loads(path.read_text("utf-8"))
        return Rules(_graph(document, interface), document["leaves"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {brief(error)}"
        raise InputError(f"{path}: holds no rules of this policy ({reason}); export again") from None


class Rules:
    """The file as a `Runtime`: the action of the leaf as it stands there, or by its outputs where there are masks."""

    def __init__(self, graph: Graph, leaves: list[dict[str, Any]]) -> None:
        self._graph, self._nodes = graph, _nodes(graph)
        self._actions = np.asarray([leaf["action"] for leaf in leaves])

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """`action` [B, *action shape], and outputs of the distribution where they are asked for."""
        graph, parts = self._graph, feed.observations
        seen = np.concatenate([features(port, part) for port, part in zip(graph.ports, parts, strict=True)], -1)
        leaf = self._nodes.leaf_of(seen)
        outputs = self._nodes.value[leaf]
        named = {"log_std": np.tile(graph.head.log_std, (len(leaf), 1))} if graph.head.kind == "numbers" else {}
        if graph.masked:
            return {**named, graph.distribution_names[0]: outputs, ACTION: action_of(graph, outputs, feed)}
        action = self._actions[leaf].reshape(len(leaf), *graph.action.shape)
        return {**named, graph.distribution_names[0]: outputs, ACTION: action}


def _nodes(graph: Graph) -> Nodes:
    layer = graph.layers[0]
    assert isinstance(layer, Tree)
    return layer.nodes


def _actions(graph: Graph, nodes: Nodes) -> Array:
    """The environment's action of each leaf [L, *action shape], without mask."""
    plain = Graph(graph.ports, graph.layers, graph.head, graph.action)
    return action_of(plain, nodes.value, Feed((np.zeros((len(nodes.value), 0)),)))


def _graph(document: dict[str, Any], interface: Interface) -> Graph:
    rules, leaves = document["nodes"], document["leaves"]
    nodes = Nodes.from_arrays(
        {
            "tree.feature": np.asarray([rule["feature"] for rule in rules], np.float64),
            "tree.threshold": np.asarray([rule["threshold"] for rule in rules], np.float32),
            "tree.children": np.asarray([[rule["yes"], rule["no"]] for rule in rules], np.float64).reshape(-1, 2),
            "tree.value": np.asarray([leaf["outputs"] for leaf in leaves], np.float32),
        }
    )
    if nodes.value.shape[1:] != (interface.n_outputs,):
        raise ValueError(f"leaves of {nodes.value.shape[1:]} outputs")
    log_std = np.asarray(document["head"]["log_std"], np.float32)
    squash = document["head"]["squash"] is True
    head = Head(interface.kind, interface.n_outputs, interface.branches, squash, log_std)  # type: ignore[arg-type]
    masked, told = interface.mask_size > 0, bool(interface.distribution)
    return Graph(interface.ports, (Tree(nodes),), head, interface.action, masked=masked, with_distribution=told)
