"""A decision tree as C: a loop over constant arrays, every index checked, no recursion."""

from __future__ import annotations

import numpy as np

from policykd.exports.c.sums import Writer
from policykd.exports.graph import Tree


def write_tree(parts: Writer, index: str, layer: Tree) -> None:
    """At most as many steps as the tree is deep. A NaN, and a table that was damaged in memory, are reported."""
    nodes, x, y, width = layer.nodes, parts.now, parts.free, parts.width
    leaves, outputs = nodes.value.shape
    inner = len(nodes)
    parts.constant(f"policy_value_{index}", nodes.value)
    parts.need(y, outputs)
    parts.say(f"int32_t node = {0 if inner else -1}; /* 0 and above: a question; below: leaf -1 - node */")
    if inner:
        parts.constant(f"policy_feature_{index}", nodes.feature.astype(np.int32), "int32_t")
        parts.constant(f"policy_threshold_{index}", nodes.threshold)
        parts.constant(f"policy_children_{index}", nodes.children.astype(np.int32), "int32_t")
        parts.say(
            f"for (int step = 0; step < {nodes.depth} && node >= 0 && node < {inner}; ++step) {{",
            f"    const int32_t feature = policy_feature_{index}[node];",
            f"    if (feature < 0 || feature >= {width}) {{",
            "        break;",
            "    }",
            f"    node = policy_children_{index}[node][{x}[feature] <= policy_threshold_{index}[node] ? 0 : 1];",
            "}",
        )
    parts.say(
        f"if (node >= 0 || node < {-leaves}) {{",
        "    status |= POLICY_NOT_FINITE;",
        "    node = -1;",
        "}",
        f"for (int i = 0; i < {width}; ++i) {{",
        f"    if ({x}[i] != {x}[i]) {{",
        "        status |= POLICY_NOT_FINITE;",
        "    }",
        "}",
        f"for (int j = 0; j < {outputs}; ++j) {{",
        f"    {y}[j] = policy_value_{index}[-1 - node][j];",
        "}",
    )
    parts.now, parts.width = y, outputs
