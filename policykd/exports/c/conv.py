"""Images as C."""

from __future__ import annotations

import numpy as np

from policykd.exports.c.sums import Writer
from policykd.exports.graph import ChannelsFirst, Conv

_LONG = 256  # products in one sum; more are added tap by tap, which is more exact


def write_channels_first(parts: Writer, layer: ChannelsFirst) -> None:
    """Plane by plane."""
    x, y, pixels = parts.now, parts.free, layer.height * layer.width
    parts.need(y, parts.width)
    parts.say(
        f"for (int j = 0; j < {layer.channels}; ++j) {{",
        f"    for (int i = 0; i < {pixels}; ++i) {{",
        f"        {y}[j * {pixels} + i] = {x}[i * {layer.channels} + j];",
        "    }",
        "}",
    )
    parts.now = y


def write_conv(parts: Writer, index: str, layer: Conv) -> None:
    """Pixel by pixel: all outputs of one together, in `s`, so that the innermost loop runs over neighbouring weights.
    Of a kernel at the edge only the taps inside the image are visited. Long sums are made tap by tap, in `c`."""
    outputs, inputs, kh, kw = layer.weight.shape
    taps = np.ascontiguousarray(layer.weight.transpose(2, 3, 1, 0)).reshape(kh * kw, inputs, outputs)
    parts.constant(f"policy_weight_{index}", taps)
    parts.constant(f"policy_bias_{index}", layer.bias)
    x, y, (rows, columns) = parts.now, parts.free, layer.out
    parts.need(y, outputs * rows * columns)
    parts.need("s", outputs)
    parts.say(
        f"for (int p = 0; p < {rows}; ++p) {{",
        *_range("k", "top", layer, "p", (kh, layer.height)),
        f"    for (int q = 0; q < {columns}; ++q) {{",
        *(f"    {line}" for line in _range("m", "left", layer, "q", (kw, layer.width))),
        f"        for (int j = 0; j < {outputs}; ++j) {{",
        f"            s[j] = policy_bias_{index}[j];",
        "        }",
        f"        for (int k = {_begin('k', layer)}; k < {_end('k', layer, kh)}; ++k) {{",
        f"            for (int m = {_begin('m', layer)}; m < {_end('m', layer, kw)}; ++m) {{",
        *(f"                {line}" for line in _tap(parts, index, layer, x)),
        "            }",
        "        }",
        f"        for (int j = 0; j < {outputs}; ++j) {{",
        f"            {y}[(j * {rows} + p) * {columns} + q] = s[j];",
        "        }",
        "    }",
        "}",
    )
    parts.now, parts.width = y, outputs * rows * columns


def _range(tap: str, edge: str, layer: Conv, at: str, sizes: tuple[int, int]) -> list[str]:
    """Where the kernel begins in the image, and, with zeros around it, which of its taps lie inside."""
    kernel, size = sizes
    lines = [f"    const int {edge} = {at} * {layer.stride}{f' - {layer.padding}' if layer.padding else ''};"]
    if layer.padding:
        lines += [
            f"    const int {tap}0 = {edge} < 0 ? -{edge} : 0;",
            f"    const int {tap}1 = {edge} + {kernel} > {size} ? {size} - {edge} : {kernel};",
        ]
    return lines


def _begin(tap: str, layer: Conv) -> str:
    return f"{tap}0" if layer.padding else "0"


def _end(tap: str, layer: Conv, kernel: int) -> str:
    return f"{tap}1" if layer.padding else str(kernel)


def _tap(parts: Writer, index: str, layer: Conv, x: str) -> list[str]:
    """What one tap adds to all outputs of a pixel."""
    outputs, inputs, kh, kw = layer.weight.shape
    long = inputs * kh * kw > _LONG
    sums = "c" if long else "s"
    zero, add = list[str](), list[str]()
    if long:
        parts.need("c", outputs)
        zero = [f"for (int j = 0; j < {outputs}; ++j) {{", "    c[j] = 0.0f;", "}"]
        add = [f"for (int j = 0; j < {outputs}; ++j) {{", "    s[j] += c[j];", "}"]
    return [
        f"const float *x = {x} + (top + k) * {layer.width} + left + m;",
        *zero,
        f"for (int i = 0; i < {inputs}; ++i) {{",
        f"    for (int j = 0; j < {outputs}; ++j) {{",
        f"        {sums}[j] += x[i * {layer.height * layer.width}] * policy_weight_{index}[k * {kw} + m][i][j];",
        "    }",
        "}",
        *add,
    ]
