"""Fails when an exported tree takes another leaf than the student, or a damaged table leads C out of its arrays."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from policykd.exports.interface import interface_of
from policykd.exports.module import GraphModule, inputs_of
from policykd.exports.of_student import graph_of
from policykd.exports.reference import run
from policykd.exports.targets.table import Options, target
from policykd.exports.vectors import feed_of
from policykd.spine.errors import InputError
from policykd.students.tree import TreeStudent
from tests.support.export_cases import NESTED, read_back
from tests.support.trees import random_nodes, tree

STUDENTS: dict[str, TreeStudent] = {
    "categorical": tree("categorical"),
    "masked": tree("categorical", 20, masked=True),
    "multi": tree("multi"),
    "bernoulli-masked": tree("bernoulli", masked=True),
    "gaussian": tree("gaussian", 30),
    "squashed": tree("squashed"),
    "nested": tree("categorical", 30, NESTED),
}
TARGETS = ["c", "json", *(["onnx"] if find_spec("onnxruntime") and find_spec("onnx") else [])]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_the_leaf_that_the_student_takes(name: str, tmp_path: Path) -> None:
    for case, student in STUDENTS.items():
        graph = graph_of(student, with_distribution=True)
        if name == "c" and case not in ("masked", "squashed"):
            continue  # compilers take a second each
        feed = feed_of(graph, None, None)
        folder = tmp_path / case
        folder.mkdir()
        target(name).check(graph, Options())
        facts = target(name).write(graph, folder, Options())
        found = target(name).load(folder, read_back(graph), facts)(feed)
        wanted = run(graph, feed, np.float32)
        assert (found[graph.distribution_names[0]] == wanted.outputs).all(), case
        assert len(np.unique(wanted.outputs, axis=0)) > len(student.nodes.value) // 4, "as many as a random tree has"
        if graph.head.kind == "numbers":
            assert np.allclose(found["action"], wanted.action, atol=1e-6), case
        else:
            assert (found["action"].reshape(wanted.action.shape) == wanted.action).all(), case


@pytest.mark.parametrize("case", STUDENTS)
def test_the_torch_module_takes_it_too(case: str) -> None:
    graph = graph_of(STUDENTS[case], with_distribution=True)
    feed = feed_of(graph, None, None)
    outputs = GraphModule(graph)(*inputs_of(interface_of(graph), feed))
    assert (outputs[1].numpy() == run(graph, feed, np.float32).outputs).all()


def test_a_single_leaf_is_exported_too(tmp_path: Path) -> None:
    graph = graph_of(replace(tree("categorical"), nodes=random_nodes(3, 3, 1)))
    for name in ("c", "json"):
        (tmp_path / name).mkdir()
        facts = target(name).write(graph, tmp_path / name, Options())
        feed = feed_of(graph, None, None)
        action = target(name).load(tmp_path / name, read_back(graph), facts)(feed)["action"]
        assert (action.reshape(-1) == run(graph, feed).action).all()
    with pytest.raises(InputError, match="expected 2 to 1024"):
        target("onnx").check(graph, Options())


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("before", "after"), [("policy_children_0", "100000"), ("policy_feature_0", "77")])
def test_a_damaged_table_is_reported_and_not_followed(before: str, after: str, tmp_path: Path) -> None:
    graph = graph_of(tree("categorical"))
    target("c").write(graph, tmp_path, Options())
    source = tmp_path / "policy.c"
    text = source.read_text()
    begin = text.index("{", text.index(f"static const int32_t {before}"))
    end = text.index("};", begin)
    count = text[begin:end].count(",") + 1
    rows = ["{" + f"{after}, {after}" + "}"] * (count // 2) if "children" in before else [after] * count
    source.write_text(text[:begin] + "{" + ", ".join(rows) + text[end:])
    library = tmp_path / "policy.so"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    sane = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["cc", *flags, *sane, "-o", library, source, "-lm"], check=True)
    act = ctypes.CDLL(str(library)).policy_act
    given, result = (ctypes.c_float * 3)(0.1, 0.2, 0.3), (ctypes.c_int32 * 8)()
    assert act(given, result) == 2, "POLICY_NOT_FINITE: do not use the action"


def test_json_is_what_the_documentation_says_and_is_read_with_care(tmp_path: Path) -> None:
    student = tree("categorical", 9, spaces.Box(-3, 3, (2, 2), np.float32))
    graph = graph_of(student)
    facts = target("json").write(graph, tmp_path, Options())
    file = tmp_path / "policy.json"
    document = json.loads(file.read_text())
    assert [one["name"] for one in document["features"]] == ["obs[0,0]", "obs[0,1]", "obs[1,0]", "obs[1,1]"]
    for x in np.random.default_rng(0).normal(size=(50, 2, 2)).astype("f4"):
        node = document["root"]
        while node >= 0:  # the example of the export's card
            rule = document["nodes"][node]
            node = rule["yes"] if x.reshape(-1)[rule["feature"]] <= rule["threshold"] else rule["no"]
        assert document["leaves"][-1 - node]["action"] == student.predict(x, deterministic=True)[0]
    for odd in (
        {"nodes": "x"},
        {"leaves": []},
        {"nodes": [{**rule, "yes": 0} for rule in document["nodes"]]},
        {"nodes": [{**rule, "feature": 1e9} for rule in document["nodes"]]},
        {"leaves": [{**leaf, "outputs": [float("nan")]} for leaf in document["leaves"]]},
    ):
        file.write_text(json.dumps({**document, **odd}))
        with pytest.raises(InputError, match="holds no rules of this policy"):
            target("json").load(tmp_path, read_back(graph), facts)


def test_what_is_no_tree_is_no_json() -> None:
    from tests.support.core import student

    with pytest.raises(InputError, match="only a decision tree can be written as rules"):
        target("json").check(graph_of(student("categorical")), Options())
