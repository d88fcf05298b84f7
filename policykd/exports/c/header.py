"""policy.h: the two structs, their sizes, what each number means, and what it costs."""

from __future__ import annotations

from policykd.exports.c.layout import Layout, Member
from policykd.exports.c.source import Source
from policykd.exports.c.text import LARGEST, YOURS, remark
from policykd.exports.graph import Graph, Port

_LAWS = {
    "gumbel": "Gumbel noise, drawn anew for every call: the action is then a sample; all 0 give the mode",
    "logistic": "logistic noise, drawn anew for every call: the action is then a sample; all 0 give the mode",
    "normal": "standard normal noise, drawn anew for every call: the action is then a sample; all 0 give the mean",
}
_ON_STACK = "{} bytes of arrays on the stack of policy_act"
_STATIC_THREADS = "its arrays are static, so that one thread at a time may call it"
_HEAD = """\
/* {title}
 *
 * {yours}
 *
 *     policy_input input = {{0}};     (in C++: policy_input input = {{}};)
 *     policy_output output;
{begin} *     input.{first}[0] = ...;        raw, in the units of the environment: the normaliser is inside
 *     if (policy_act(&input, {given}&output) == POLICY_OK) {{ ... output.action[0] ... }}
 *
 * C99 or C++, float32. Nothing is allocated, nothing is kept between calls{kept}
 * Compile policy.c with the rest and link libm (-lm), or define POLICY_NO_MATH_H for a build without math.h.
 *
 * Flash: {flash} bytes of constants, and the code. RAM: {ram}; the
 * caller's policy_input takes {input} bytes, policy_output {output}{memory}. One action: {macs} multiply-accumulates.
 */

#ifndef POLICY_H
#define POLICY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* Numbers in each array. */
{macros}

/* What policy_act returns: 0, or the sum of what was wrong. The output is filled in any case. */
#define POLICY_OK 0
#define POLICY_NOTHING_ALLOWED 1 /* the mask leaves a choice nothing: its action is the first, allowed or not */
#define POLICY_NOT_FINITE 2      /* a NaN was observed, or a result overflowed: do not use the action{spoiled} */

typedef struct policy_input {{
{inputs}}} policy_input;

typedef struct policy_output {{
{outputs}}} policy_output;

{reset}int policy_act(const policy_input *input, {taken}policy_output *output);
{noise}
/* In policy_selftest.c, where you compile it: 0, or 1 + the first of its vectors that policy_act gets wrong. */
int policy_selftest(void);

#ifdef __cplusplus
}}
#endif

#endif
"""
_NOISE = """
/* A number for `noise`, for a uniform one: 0 < u < 1, one draw for each entry. */
float policy_noise(float u);
"""
_STATELESS = {
    "begin": "", "given": "", "kept": ": {threads}.", "memory": "", "spoiled": "",
    "reset": "", "taken": "",
}  # fmt: skip
_STATE = {
    "begin": " *     float state[POLICY_STATE_SIZE];\n *     policy_reset(state);           where an episode begins\n",
    "given": "state, ",
    "kept": " but in the\n * state, which is yours: call policy_act once for every step of an episode, in their order. "
    "It may be called\n * from several threads, for several environments, with a state for each.",
    "memory": ",\n * the state {bytes}",
    "spoiled": ",\n                                  * and reset the state, which keeps it",
    "reset": "/* Where an episode begins: forgets everything, whatever the state holds. */\n"
    "void policy_reset(float *state);\n\n"
    "/* One step. `state`: POLICY_STATE_SIZE numbers, which are read and written. */\n",
    "taken": "float *state, ",
}
"""What the header says of a policy with a memory."""


def header_of(graph: Graph, layout: Layout, source: Source, title: str = "") -> str:
    """The file. `title`: a line about the policy, from the user's metadata."""
    ports = {port.name: port for port in graph.ports}
    members = (*layout.inputs, Member("action", layout.outputs[0].ctype, layout.outputs[0].size, "action"))
    macros = [f"#define {_macro(member)} {member.size}" for member in members]
    if layout.interface.distribution:
        macros.append(f"#define POLICY_OUTPUTS {graph.head.size}")
    if graph.state_size:
        macros.append(f"#define POLICY_STATE_SIZE {graph.state_size}")
    threads = _STATIC_THREADS if source.static else "it may be called from several threads"
    of_state = _STATE if graph.state_size else _STATELESS
    return _HEAD.format(
        **{key: text.format(bytes=4 * graph.state_size, threads=threads) for key, text in of_state.items()},
        title=remark(title) or "A policy as C, written by policykd.",
        yours=YOURS,
        first=layout.inputs[0].name,
        flash=source.flash,
        ram=f"{source.static} bytes of static arrays" if source.static else _ON_STACK.format(source.stack),
        input=layout.input_type.itemsize,
        output=layout.output_type.itemsize,
        macs=graph.footprint.macs,
        macros="\n".join(macros),
        inputs="".join(_line(member, _input_remark(graph, member, ports)) for member in layout.inputs),
        outputs="".join(_line(member, _output_remark(graph, member)) for member in layout.outputs),
        noise=_NOISE if graph.stochastic else "",
    )


def _macro(member: Member) -> str:
    return "POLICY_ACTION_SIZE" if member.origin == "action" else member.macro


def _line(member: Member, text: str) -> str:
    size = "POLICY_OUTPUTS" if member.origin in ("logits", "mean", "log_std") else _macro(member)
    return f"    /* {text} */\n    {member.ctype} {member.name}[{size}];\n"


def _input_remark(graph: Graph, member: Member, ports: dict[str, Port]) -> str:
    if member.name == "action_masks":
        layout = "two for each bit, off then on" if graph.head.kind == "bits" else "the choices side by side"
        return f"1 = allowed, 0 = forbidden; {layout}"
    if member.name == "noise":
        return f"{_LAWS[graph.head.law]} (policy_noise)"
    port = ports[member.origin]
    key = remark(".".join(map(str, port.path)) or "the observation")
    shape = f"shape {list(port.shape)}, row by row, " if len(port.shape) > 1 else ""
    if port.nvec:
        ranges = [f"{first} to {first + n - 1}" for n, first in zip(port.nvec, port.start, strict=True)]
        return f"{key}: {shape}choices: {_some(ranges)}; another number is none of them"
    return f"{key}: {shape}{port.dtype} in the environment, not normalised"


def _output_remark(graph: Graph, member: Member) -> str:
    action, head = graph.action, graph.head
    if member.name == "logits":
        return "before mask and noise"
    if member.name in ("mean", "log_std"):
        return "of the Gaussian" + (" before its tanh" if head.squash else "") + ", before clip and unscale"
    shape = f"shape {list(action.shape)}, row by row, " if len(action.shape) > 1 else ""
    if head.kind == "bits":
        return f"the environment's action: {shape}bits, 0 or 1"
    if head.kind == "choices":
        start = action.start or (0,) * len(head.branches)
        ranges = [f"{first} to {first + n - 1}" for n, first in zip(head.branches, start, strict=True)]
        return f"the environment's action: {shape}choices: {_some(ranges)}"
    ranges = [f"{_bound(low)} to {_bound(high)}" for low, high in zip(action.low, action.high, strict=True)]
    return f"the environment's action: {shape}in its units, clipped: {_some(ranges)}"


def _bound(value: float) -> str:
    return f"{value:g}" if abs(value) < LARGEST else "any"


def _some(ranges: list[str]) -> str:
    """At most eight of them, or one where all are the same."""
    if len(set(ranges)) == 1:
        return ranges[0]
    return ", ".join(ranges[:8]) + (", ..." if len(ranges) > 8 else "")
