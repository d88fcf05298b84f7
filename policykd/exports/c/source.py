"""policy.c: the constants of a graph, and `policy_act`, which computes it in float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from policykd.exports.c.arithmetic import functions, needed_by_noise, noise
from policykd.exports.c.conv import write_channels_first, write_conv
from policykd.exports.c.gru import RESET, SIGMOID, gru
from policykd.exports.c.layout import Layout
from policykd.exports.c.nested import write_parallel, write_residual
from policykd.exports.c.sums import add_products
from policykd.exports.c.text import LARGEST, YOURS, constant, literal
from policykd.exports.c.tree import write_tree
from policykd.exports.graph import (
    Activate,
    Array,
    ChannelsFirst,
    Conv,
    Dense,
    Graph,
    Layer,
    Normalise,
    Parallel,
    Residual,
    Tree,
)
from policykd.exports.gru import Gru
from policykd.exports.interface import interface_of
from policykd.exports.layers import walk

_CLIP = """\
static float policy_clip(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

"""


@dataclass(frozen=True)
class Source:
    """policy.c, and what it costs. `flash`: bytes of constants. `stack`, `static`: bytes of arrays in `policy_act`, of
    which one is 0: they lie on the stack, but those of images."""

    text: str
    flash: int
    stack: int
    static: int = 0


@dataclass
class _Parts:
    """What is gathered while the graph is walked. `now`, `free`: the buffer that holds the numbers, and the other of
    the pair in use. `width`: how many numbers it holds. `borrowed`: how many buffers beside the first pair are used."""

    graph: Graph
    layout: Layout
    constants: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    flash: int = 0
    sizes: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1, "c": 0})
    now: str = "a"
    width: int = 0
    pair: tuple[str, str] = ("a", "b")
    borrowed: int = 0

    @property
    def free(self) -> str:
        return self.pair[1] if self.now == self.pair[0] else self.pair[0]

    @property
    def static(self) -> bool:
        """Whether the buffers are static: those of images are too large for the stack of a small device."""
        return any(isinstance(layer, Conv) for _, layer in walk(self.graph.layers))

    def constant(self, name: str, array: Array, kind: str = "float") -> None:
        self.constants.append(constant(name, array, kind))
        self.flash += array.size * (1 if kind == "int8_t" else 4)

    def say(self, *lines: str) -> None:
        self.body += [f"    {line}" if line else "" for line in lines]

    def need(self, buffer: str, size: int) -> None:
        self.sizes[buffer] = max(self.sizes.get(buffer, 0), size)


def source_of(graph: Graph) -> Source:
    """The file for a graph whose numbers are finite."""
    parts = _Parts(graph, Layout(interface_of(graph)))
    _features(parts)
    _layers(parts, graph.layers)
    _distribution(parts)
    {"numbers": _numbers, "choices": _choices, "bits": _bits}[graph.head.kind](parts)
    scratch = 4 * sum(parts.sizes.values())
    return Source(_text(parts), parts.flash, *((0, scratch) if parts.static else (scratch, 0)))


def _layers(parts: _Parts, layers: tuple[Layer, ...], name: str = "") -> None:
    """One after the other; `name` is what their positions begin with."""
    for position, layer in enumerate(layers):
        index = f"{name}{position}"
        if isinstance(layer, Normalise):
            _normalise(parts, index, layer)
        elif isinstance(layer, Dense):
            _dense(parts, index, layer)
        elif isinstance(layer, Gru):
            gru(parts, index, layer)
        elif isinstance(layer, Activate):
            _activate(parts, layer)
        elif isinstance(layer, ChannelsFirst):
            write_channels_first(parts, layer)
        elif isinstance(layer, Conv):
            write_conv(parts, index, layer)
        elif isinstance(layer, Residual):
            write_residual(parts, index, layer, partial(_layers, parts))
        elif isinstance(layer, Parallel):
            write_parallel(parts, index, layer, partial(_layers, parts))
        elif isinstance(layer, Tree):
            write_tree(parts, index, layer)


def _features(parts: _Parts) -> None:
    """Numbers as they are, choices one-hot, side by side in `a`."""
    members = {member.origin: member for member in parts.layout.inputs}
    for index, port in enumerate(parts.graph.ports):
        if not port.size:
            continue
        at, member = parts.width, members[port.name]
        if port.nvec:
            parts.constant(f"policy_choices_{index}", np.asarray(port.nvec), "int32_t")
            parts.constant(f"policy_first_{index}", np.asarray(port.start), "int32_t")
            parts.say(
                f"for (int i = 0, f = {at}; i < {port.size}; ++i) {{",
                f"    for (int32_t j = 0; j < policy_choices_{index}[i]; ++j, ++f) {{",
                f"        a[f] = input->{member.name}[i] == policy_first_{index}[i] + j ? 1.0f : 0.0f;",
                "    }",
                "}",
            )
        else:
            target = f"a[{at} + i]" if at else "a[i]"
            parts.say(f"for (int i = 0; i < {port.size}; ++i) {{", f"    {target} = input->{member.name}[i];", "}")
        parts.width += port.n_features
    parts.need("a", parts.width)


def _normalise(parts: _Parts, index: str, layer: Normalise) -> None:
    parts.constant(f"policy_mean_{index}", layer.mean)
    parts.constant(f"policy_scale_{index}", layer.scale)
    entry = "i" if layer.repeat == 1 else f"i * {layer.repeat} + j"
    x = f"({parts.now}[{entry}] - policy_mean_{index}[i]) * policy_scale_{index}[i]"
    if layer.limit < LARGEST:
        x = f"policy_clip({x}, {literal(-layer.limit)}, {literal(layer.limit)})"
    step = [f"    {parts.now}[{entry}] = {x};"]
    if layer.repeat > 1:
        step = [f"    for (int j = 0; j < {layer.repeat}; ++j) {{", f"    {step[0]}", "    }"]
    parts.say(f"for (int i = 0; i < {layer.mean.size}; ++i) {{", *step, "}")


def _dense(parts: _Parts, index: str, layer: Dense) -> None:
    rows, columns = layer.weight.shape
    x, y = parts.now, parts.free
    parts.need(y, columns)
    parts.constant(f"policy_bias_{index}", layer.bias)
    if layer.scale is None:
        parts.constant(f"policy_weight_{index}", layer.weight)
        parts.say(f"for (int j = 0; j < {columns}; ++j) {{", f"    {y}[j] = policy_bias_{index}[j];", "}")
        add_products(parts, x, f"policy_weight_{index}", (rows, columns), f"{y}[j]")
    else:
        parts.constant(f"policy_weight_{index}", layer.whole, "int8_t")
        parts.constant(f"policy_step_{index}", layer.scale)
        parts.say(f"for (int j = 0; j < {columns}; ++j) {{", f"    {y}[j] = 0.0f;", "}")
        add_products(parts, x, f"(float)policy_weight_{index}", (rows, columns), f"{y}[j]")
        scaled = f"{y}[j] = {y}[j] * policy_step_{index}[j] + policy_bias_{index}[j];"
        parts.say(f"for (int j = 0; j < {columns}; ++j) {{", f"    {scaled}", "}")
    parts.now, parts.width = y, columns


def _activate(parts: _Parts, layer: Activate) -> None:
    x = f"{parts.now}[i]"
    call = f"policy_tanh({x})" if layer.kind == "tanh" else f"{x} < 0.0f ? 0.0f : {x}"
    parts.say(f"for (int i = 0; i < {parts.width}; ++i) {{", f"    {x} = {call};", "}")


def _distribution(parts: _Parts) -> None:
    """Whether the outputs are finite, and copies of them."""
    parts.say(
        f"for (int j = 0; j < {parts.width}; ++j) {{",
        f"    if (!({parts.now}[j] - {parts.now}[j] == 0.0f)) {{",
        "        status |= POLICY_NOT_FINITE;",
        "    }",
        "}",
    )
    for name in parts.layout.interface.distribution:
        origin = parts.now
        if name == "log_std":
            origin = "policy_log_std"
            parts.constant(origin, parts.graph.head.log_std)
        parts.say(f"for (int j = 0; j < {parts.width}; ++j) {{", f"    output->{name}[j] = {origin}[j];", "}")


def _numbers(parts: _Parts) -> None:
    head, action = parts.graph.head, parts.graph.action
    low, high = (np.clip(np.asarray(bound, np.float32), -LARGEST, LARGEST) for bound in (action.low, action.high))
    parts.say(f"for (int j = 0; j < {parts.width}; ++j) {{", f"    float x = {parts.now}[j];")
    if parts.graph.stochastic:
        parts.constant("policy_std", np.exp(head.log_std.astype(np.float64)).astype(np.float32))
        parts.say("    x += policy_std[j] * input->noise[j];")
    if head.squash:
        parts.say("    x = policy_tanh(x);")
    if action.kind == "unscale":
        parts.constant("policy_low", low)
        parts.constant("policy_span", high - low)
        unit = "policy_clip(x, -1.0f, 1.0f)"
        parts.say(f"    x = policy_low[j] + 0.5f * ({unit} + 1.0f) * policy_span[j];")
    elif np.isfinite([*action.low, *action.high]).any():
        parts.constant("policy_low", low)
        parts.constant("policy_high", high)
        parts.say("    x = policy_clip(x, policy_low[j], policy_high[j]);")
    parts.say("    output->action[j] = x;", "}")


def _choices(parts: _Parts) -> None:
    branches = parts.graph.head.branches
    start = parts.graph.action.start or (0,) * len(branches)
    parts.constant("policy_branch", np.asarray(branches), "int32_t")
    parts.constant("policy_start", np.asarray(start), "int32_t")
    allowed = "input->action_masks[at + j] && ({})" if parts.graph.masked else "{}"
    better = f"best < 0 || {parts.now}[at + j] > {parts.now}[at + best]"
    _add_noise(parts)
    parts.say(
        f"for (int i = 0, at = 0; i < {len(branches)}; at += policy_branch[i], ++i) {{",
        "    int32_t best = -1;",
        "    for (int32_t j = 0; j < policy_branch[i]; ++j) {",
        f"        if ({allowed.format(better)}) {{",
        "            best = j;",
        "        }",
        "    }",
    )
    if parts.graph.masked:
        parts.say("    if (best < 0) {", "        best = 0;", "        status |= POLICY_NOTHING_ALLOWED;", "    }")
    parts.say("    output->action[i] = policy_start[i] + best;", "}")


def _bits(parts: _Parts) -> None:
    _add_noise(parts)
    kind = parts.layout.outputs[0].ctype
    x = f"{parts.now}[j] > 0.0f"
    parts.say(f"for (int j = 0; j < {parts.width}; ++j) {{")
    if parts.graph.masked:
        parts.say(
            "    const int off = input->action_masks[2 * j] != 0, on = input->action_masks[2 * j + 1] != 0;",
            "    if (!off && !on) {",
            "        status |= POLICY_NOTHING_ALLOWED;",
            "    }",
        )
        x = f"on && (!off || {x})"
    parts.say(f"    output->action[j] = ({kind})({x});", "}")


def _add_noise(parts: _Parts) -> None:
    if parts.graph.stochastic:
        x = f"    {parts.now}[j] += input->noise[j];"
        parts.say(f"for (int j = 0; j < {parts.width}; ++j) {{", x, "}")


def _text(parts: _Parts) -> str:
    body = "\n".join(parts.body)
    law = parts.graph.head.law if parts.graph.stochastic else None
    names = [name for name in ("tanh",) if f"policy_{name}(" in body] + (needed_by_noise(law) if law else [])
    size = parts.graph.state_size
    state = "float *state, " if size else ""
    buffers = ", ".join(f"{name}[{size}]" for name, size in parts.sizes.items() if size)
    kind = "static float" if parts.static else "float"
    return (
        f"/* What this is and how to call it stands in policy.h.\n *\n * {YOURS}\n */\n\n"
        '#include "policy.h"\n\n'
        + functions(names)
        + "".join(f"{text}\n" for text in parts.constants)
        + (_CLIP if "policy_clip(" in body else "")
        + (SIGMOID + RESET.format(size=size) if size else "")
        + f"int policy_act(const policy_input *input, {state}policy_output *output)\n{{\n"
        + f"    {kind} {buffers};\n    int status = POLICY_OK;\n\n{body}\n    return status;\n}}\n"
        + (f"\n{noise(law)}" if law else "")
    )
