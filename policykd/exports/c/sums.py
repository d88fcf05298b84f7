"""C loops that add up products of a matrix, a wide one in blocks."""

from __future__ import annotations

from typing import Protocol

from policykd.exports.graph import Array

BLOCK = 64
"""Inputs of a wide layer are summed in blocks of so many: one sum of 8,192 float32 numbers is 10 times less exact."""
WIDE = 256


class Writer(Protocol):
    """What is gathered while the graph is walked: constants, lines of policy_act, sizes of its buffers. `now`, `free`:
    the buffer that holds the numbers, `width` of them, and the other."""

    now: str
    width: int

    @property
    def free(self) -> str: ...
    def constant(self, name: str, array: Array, kind: str = "float") -> None:
        """An array of that name."""
        ...

    def say(self, *lines: str) -> None:
        """Lines of policy_act."""
        ...

    def need(self, buffer: str, size: int) -> None:
        """The buffer holds at least so many numbers."""
        ...


def add_products(parts: Writer, x: str, weight: str, shape: tuple[int, int], sums: str) -> None:
    """`sums` (in j, over the columns of a constant `weight` of that shape) += those of x[i] * weight[i][j]."""
    rows, columns = shape
    if rows <= WIDE:
        parts.say(
            f"for (int i = 0; i < {rows}; ++i) {{",
            f"    const float x = {x}[i];",
            f"    for (int j = 0; j < {columns}; ++j) {{",
            f"        {sums} += x * {weight}[i][j];",
            "    }",
            "}",
        )
        return
    parts.need("c", columns)
    parts.say(
        f"for (int k = 0; k < {rows}; k += {BLOCK}) {{ /* block by block: the sums of many numbers stay exact */",
        f"    const int end = k + {BLOCK} < {rows} ? k + {BLOCK} : {rows};",
        f"    for (int j = 0; j < {columns}; ++j) {{",
        "        c[j] = 0.0f;",
        "    }",
        "    for (int i = k; i < end; ++i) {",
        f"        const float x = {x}[i];",
        f"        for (int j = 0; j < {columns}; ++j) {{",
        f"            c[j] += x * {weight}[i][j];",
        "        }",
        "    }",
        f"    for (int j = 0; j < {columns}; ++j) {{",
        f"        {sums} += c[j];",
        "    }",
        "}",
    )
