"""ONNX files and the YAML cards beside them: damage, graphs that attack the reader, and hostile values in the card."""

from __future__ import annotations

import json
from functools import cache

from tests.security.entry import JSON_VALUES, Entries, Entry, Expect, paths, replaced
from tests.security.onnx_costs import costly_inputs, mixing_inputs
from tests.security.onnx_inputs import CARD, onnx_inputs
from tests.security.texts import TAGS

_EXPECT: dict[str, Expect] = {"opens": "harmless", "refused": "refused", "any": "either"}
_DAMAGE = ("truncated-", "flipped-", "noise-")
LIKE = "onnx"


@cache
def good() -> bytes:
    """An ONNX policy that opens."""
    return next(onnx_inputs())[1]


def onnx_entry(category: str, name: str, raw: bytes, expect: Expect, card: bytes | None = None) -> Entry:
    """The file m.onnx with the card m.yaml beside it."""
    files = {"m.onnx": raw, "m.yaml": json.dumps(CARD).encode() if card is None else card}
    return Entry(category, name, "teacher", files, "m.onnx", expect, LIKE if expect == "harmless" else "")


def graphs() -> Entries:
    """Damaged files and hostile graphs."""
    for name, raw, expected in (*onnx_inputs(), *costly_inputs(), *mixing_inputs()):
        category = "ONNX: damage" if name.startswith(_DAMAGE) else "ONNX: hostile graphs"
        yield onnx_entry(category, name, raw, _EXPECT[expected])


def cards() -> Entries:
    """A good file whose card is hostile."""
    whole = CARD | {"input": "obs", "observation_space": {"type": "Box", "shape": [4], "low": -1.0, "high": 1.0},
                    "action_space": {"type": "Discrete", "n": 2, "start": 0}, "distribution": "categorical",
                    "squashed": False, "unscale": False, "normalised_inside": True}  # fmt: skip
    yield onnx_entry("ONNX: cards", "all keys", good(), "harmless", json.dumps(whole).encode())
    for way in paths(whole):
        for label, text in JSON_VALUES.items():
            card = replaced(whole, way, text).encode("utf-8", "surrogatepass")
            yield onnx_entry("ONNX: cards", f"{'.'.join(map(str, way))} is {label}", good(), "either", card)
    long = "x" * 100_000
    many = "".join(f"{'x' * 40}{number}: 1\n" for number in range(4000))
    for label, text in (
        ("many", many),
        ("long", f"{long}: 1\n"),
        ("text", f"input: [{long}]\n"),
        ("tag", f"a: !{long}\n"),
    ):
        yield onnx_entry("ONNX: cards", f"unknown keys, {label}", good(), "refused", text.encode())
    for label, tag in TAGS.items():
        yield onnx_entry("ONNX: cards", f"tag {label}", good(), "refused", f"env: {tag}\n".encode())
        yield onnx_entry("ONNX: cards", f"tag {label} for a key", good(), "refused", f"? {tag}\n: 1\n".encode())
    for number, name in enumerate(("../m", "/etc/passwd", "os:CartPole-v1", "x" * 10_000, "a\nb\x1b[2J")):
        card = json.dumps(CARD | {"outputs": {"logits": name}}).encode()
        yield onnx_entry("ONNX: cards", f"output {number}", good(), "refused", card)
        card = json.dumps(CARD | {"input": name}).encode()
        yield onnx_entry("ONNX: cards", f"input {number}", good(), "refused", card)
        card = json.dumps(CARD | {"env": name}).encode()
        yield onnx_entry("ONNX: cards", f"env {number}", good(), "either", card)


MAKERS = (graphs, cards)
