"""C functions of float32 accuracy in place of math.h, and those that make noise from uniform numbers."""

from __future__ import annotations

from policykd.exports.graph import Law

# tanh: an odd polynomial near 0, else 1 - 2 / (exp(2x) + 1); coefficients of Cephes (S. Moshier: tanhf, expf, logf).
# No bits of a float are looked at: powers of two are shifts, so that it is the same in C and in C++.
TANH = """\
static float policy_tanh(float x)
{
    const float a = x < 0.0f ? -x : x;
    float p, r, t;
    int n;
    if (!(a < 9.1f)) {
        return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; /* the last one: not a number */
    }
    if (a < 0.625f) {
        t = a * a;
        p = -5.70498872745e-3f;
        p = p * t + 2.06390887954e-2f;
        p = p * t - 5.37397155531e-2f;
        p = p * t + 1.33314422036e-1f;
        p = p * t - 3.33332819422e-1f;
        return p * t * x + x;
    }
    t = a + a;
    n = (int)(t * 1.44269504f + 0.5f);
    r = t - (float)n * 0.693359375f;
    r = r + (float)n * 2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r + 1.0f) * (float)(1L << n); /* exp(2a), n from 2 to 26 */
    r = 1.0f - 2.0f / (p + 1.0f);
    return x < 0.0f ? -r : r;
}
"""

LOG = """\
static float policy_log(float x)
{
    float e = 0.0f, y, z;
    while (x < 0.707106781f) {
        x = x * 2.0f;
        e = e - 1.0f;
    }
    while (x > 1.41421356f) {
        x = x * 0.5f;
        e = e + 1.0f;
    }
    x = x - 1.0f;
    z = x * x;
    y = 7.0376836292e-2f;
    y = y * x - 1.1514610310e-1f;
    y = y * x + 1.1676998740e-1f;
    y = y * x - 1.2420140846e-1f;
    y = y * x + 1.4249322787e-1f;
    y = y * x - 1.6668057665e-1f;
    y = y * x + 2.0000714765e-1f;
    y = y * x - 2.4999993993e-1f;
    y = y * x + 3.3333331174e-1f;
    y = y * x * z - 2.12194440e-4f * e - 0.5f * z;
    return x + y + 0.693359375f * e;
}
"""

SQRT = """\
static float policy_sqrt(float x)
{
    float s = 0.5f * (x + 1.0f);
    int i;
    for (i = 0; i < 8; ++i) {
        s = 0.5f * (s + x / s);
    }
    return s;
}
"""

GUMBEL = """\
float policy_noise(float u)
{
    return -policy_log(-policy_log(policy_open(u)));
}
"""

LOGISTIC = """\
float policy_noise(float u)
{
    const float v = policy_open(u);
    return policy_log(v) - policy_log(1.0f - v);
}
"""

# Wichura (1988), Algorithm AS 241: The percentage points of the normal distribution, PPND7, without its
# far tail, which float32 does not reach.
NORMAL = """\
float policy_noise(float u)
{
    const float v = policy_open(u), q = v - 0.5f;
    float r, z;
    if (q <= 0.425f && q >= -0.425f) {
        r = 0.180625f - q * q;
        return q * (((59.109374720f * r + 159.29113202f) * r + 50.434271938f) * r + 3.3871327179f)
            / (((67.187563600f * r + 78.757757664f) * r + 17.895169469f) * r + 1.0f);
    }
    r = policy_sqrt(-policy_log(q < 0.0f ? v : 1.0f - v)) - 1.6f; /* below 2.5, since v is a float32 */
    z = (((0.17023821103f * r + 1.3067284816f) * r + 2.7568153900f) * r + 1.4234372777f)
        / ((0.12021132975f * r + 0.73700164250f) * r + 1.0f);
    return q < 0.0f ? -z : z;
}
"""

OPEN = """\
static float policy_open(float u)
{
    return u > 5.96046448e-8f ? (u < 0.99999994f ? u : 0.99999994f) : 5.96046448e-8f;
}
"""

_OWN = {"tanh": TANH, "log": LOG, "sqrt": SQRT}


def functions(names: list[str]) -> str:
    """`policy_tanh` and the like: those of math.h, or our own with -DPOLICY_NO_MATH_H."""
    if not names:
        return ""
    own = "\n".join(_OWN[name] for name in names)
    theirs = "".join(f"#define policy_{name} {name}f\n" for name in names)
    return f"#ifdef POLICY_NO_MATH_H\n\n{own}\n#else\n\n#include <math.h>\n{theirs}\n#endif\n\n"


def noise(law: Law) -> str:
    """`policy_noise`: a number of that law for a uniform one."""
    return OPEN + "\n" + {"gumbel": GUMBEL, "logistic": LOGISTIC, "normal": NORMAL}[law]


def needed_by_noise(law: Law) -> list[str]:
    """The functions that it calls."""
    return ["log", "sqrt"] if law == "normal" else ["log"]
