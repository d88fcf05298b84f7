"""policy_selftest.c: test vectors as constants, so that a device can compare itself with the student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policykd.exports.c.layout import Layout
from policykd.exports.c.text import LARGEST, YOURS, constant, values
from policykd.exports.graph import Array, Feed, Graph
from policykd.exports.interface import interface_of
from policykd.spine.files import write_atomic

FILE = "policy_selftest.c"


@dataclass(frozen=True, eq=False)
class SelfTest:
    """What goes in and what is to come out. `action` [B, *action shape].

    Numbers: |found - action| <= atol + rtol * |action|; both broadcast to [A]. Choices and bits: equal, except where
    `margin` [B, K] is below `min_margin` ([K] or one number): there float32 need not tell the best two apart.
    Of a policy with a memory the rows are whole sequences, one behind the other; `feed.start`: where episodes begin.
    """

    feed: Feed
    action: Array
    atol: Array | float = 0.0
    rtol: Array | float = 0.0
    margin: Array | None = None
    min_margin: Array | float = 0.0


def write_selftest(graph: Graph, test: SelfTest, folder: Path) -> Path:
    """Writes the file into `folder`, beside policy.c; returns its path."""
    layout = Layout(interface_of(graph))
    path = folder / FILE
    write_atomic(path, _text(graph, layout, test).encode("ascii"))
    return path


def _text(graph: Graph, layout: Layout, test: SelfTest) -> str:
    n, size, ctype = len(test.feed), layout.outputs[0].size, layout.outputs[0].ctype
    inputs = _inputs(layout, test.feed)
    if graph.head.kind == "numbers":
        expected = np.clip(np.asarray(test.action, np.float32).reshape(n, size), -LARGEST, LARGEST)
        extra = constant("policy_atol", np.broadcast_to(np.asarray(test.atol, np.float32), (size,)))
        extra += constant("policy_rtol", np.broadcast_to(np.asarray(test.rtol, np.float32), (size,)))
        wrong = (
            "const float y = policy_expected[i][j], d = output.action[j] - y;\n"
            "            const float most = policy_atol[j] + policy_rtol[j] * (y < 0.0f ? -y : y);\n"
            "            if (!((d < 0.0f ? -d : d) <= most)) {"
        )
    else:
        expected = np.asarray(test.action).reshape(n, size)
        clear = np.ones((n, size), np.uint8)
        if test.margin is not None:
            clear = np.asarray(np.asarray(test.margin).reshape(n, size) >= test.min_margin).astype(np.uint8)
        extra = "/* 0 where the best two choices are too close for float32 */\n"
        extra += constant("policy_clear", clear, "uint8_t")
        wrong = "if (policy_clear[i][j] && output.action[j] != policy_expected[i][j]) {"
    state, reset, given = "", "", ""
    if graph.state_size:
        assert test.feed.start is not None
        begins = constant("policy_begins", test.feed.start.astype(np.uint8), "uint8_t")
        extra += f"/* 1 where an episode begins */\n{begins}"
        state, given = "    float state[POLICY_STATE_SIZE];\n", "state, "
        reset = "        if (i == 0 || policy_begins[i]) {\n            policy_reset(state);\n        }\n"
    return (
        f"/* Test vectors for policy.c, for the device: policy_selftest() returns 0 where all {n} agree.\n *\n"
        f" * {YOURS}\n */\n\n"
        '#include "policy.h"\n\n'
        f"static const policy_input policy_inputs[{n}] = {inputs};\n\n"
        f"{constant('policy_expected', expected, ctype)}\n{extra}\n"
        "int policy_selftest(void)\n{\n"
        "    policy_output output;\n"
        f"{state}"
        f"    for (int i = 0; i < {n}; ++i) {{\n"
        f"{reset}"
        f"        if (policy_act(policy_inputs + i, {given}&output) != POLICY_OK) {{\n"
        "            return i + 1;\n        }\n"
        "        for (int j = 0; j < POLICY_ACTION_SIZE; ++j) {\n"
        f"            {wrong}\n"
        "                return i + 1;\n            }\n        }\n    }\n    return 0;\n}\n"
    )


def _inputs(layout: Layout, feed: Feed) -> str:
    records = layout.records(feed.observations, feed.mask, feed.noise)
    rows = []
    for record in records:
        parts = []
        for member in layout.inputs:
            numbers = record[member.name]
            if member.ctype == "float":  # infinities have no literal, and the clip makes the largest ones of them too
                numbers = np.clip(numbers, -LARGEST, LARGEST)
            parts.append(values(numbers, member.ctype))
        rows.append("    {" + ", ".join(parts) + "}")
    return "{\n" + ",\n".join(rows) + "\n}"
