"""A Gru in policy.c: the caller owns the state, `policy_reset` empties it, `policy_act` writes it anew."""

from __future__ import annotations

import numpy as np

from policykd.exports.c.sums import Writer, add_products
from policykd.exports.gru import Gru

# 1 / (1 + exp(-x)), exact to about two units in the last place; coefficients of Cephes (S. Moshier: expf). Beyond 40
# the rest is below 5e-18. Powers of two are shifts, each small enough for a long of 32 bits.
SIGMOID = """\
static float policy_sigmoid(float x)
{
    const float a = x < 0.0f ? -x : x;
    float p, r;
    int n;
    if (!(a < 40.0f)) {
        return x > 0.0f ? 1.0f : x < 0.0f ? 0.0f : x; /* the last one: not a number */
    }
    n = (int)(a * 1.44269504f + 0.5f);
    r = a - (float)n * 0.693359375f;
    r = r + (float)n * 2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r + 1.0f) * (float)(1L << n / 2) * (float)(1L << (n - n / 2)); /* exp(a), n from 0 to 58 */
    return (x < 0.0f ? 1.0f : p) / (1.0f + p);
}

"""
RESET = """\
void policy_reset(float *state)
{{
    for (int j = 0; j < {size}; ++j) {{
        state[j] = 0.0f;
    }}
}}

"""
DRIVER = """\
#include "policy.h"
int policy_batch(int n, const policy_input *inputs, float *states, const unsigned char *starts, policy_output *outputs);
int policy_bytes(int output);
int policy_batch(int n, const policy_input *inputs, float *states, const unsigned char *starts, policy_output *outputs)
{
    int status = 0;
    for (int i = 0; i < n; ++i) {
        float *const state = states + (long)i * POLICY_STATE_SIZE;
        if (starts[i]) {
            policy_reset(state);
        }
        status |= policy_act(inputs + i, state, outputs + i);
    }
    return status;
}
int policy_bytes(int what)
{
    return (int)(what == 2 ? POLICY_STATE_SIZE * sizeof(float) : what ? sizeof(policy_output) : sizeof(policy_input));
}
"""
"""Called from Python: each row has a state of its own."""


def gru(parts: Writer, index: str, layer: Gru) -> None:
    """One step. The free buffer holds the sums: of both gates, of what the candidate knows, of what it sees."""
    n, x, y = layer.size, parts.now, parts.free
    w, b = layer.inputs.T, layer.bias
    parts.constant(f"policy_gates_{index}", np.ascontiguousarray(w[:, : 2 * n]))
    parts.constant(f"policy_new_{index}", np.ascontiguousarray(w[:, 2 * n :]))
    parts.constant(f"policy_state_{index}", np.ascontiguousarray(layer.state.T))
    parts.constant(f"policy_bias_{index}", np.concatenate([b[: 2 * n], layer.new_bias, b[2 * n :]]))
    parts.need(y, 4 * n)
    parts.need(x, n)
    parts.say(f"for (int j = 0; j < {4 * n}; ++j) {{", f"    {y}[j] = policy_bias_{index}[j];", "}")
    add_products(parts, x, f"policy_gates_{index}", (parts.width, 2 * n), f"{y}[j]")
    add_products(parts, x, f"policy_new_{index}", (parts.width, n), f"{y}[{3 * n} + j]")
    add_products(parts, "state", f"policy_state_{index}", (n, 3 * n), f"{y}[j]")
    parts.say(
        f"for (int j = 0; j < {n}; ++j) {{",
        f"    const float keep = policy_sigmoid({y}[{n} + j]);",
        f"    const float now = policy_tanh({y}[{3 * n} + j] + policy_sigmoid({y}[j]) * {y}[{2 * n} + j]);",
        "    state[j] = now + keep * (state[j] - now);",
        f"    {x}[j] = state[j];",
        "}",
    )
    parts.width = n
