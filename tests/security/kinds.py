"""The other kinds of policy (gSDE, CNN, Dict, recurrent, maskable, CrossQ) and statistics of a Dict: gadgets and
damage, as on the bases in `zips` and `weights`, and names that would print badly."""

from __future__ import annotations

import base64
import json

from tests.security.entry import Entries, Entry, Expect, base, cuts, flips
from tests.security.forms import POSITIVE, array, dict_of, keyed_statistics, moments_of, unit_box, with_observations
from tests.security.pickles import GADGETS, pickled, smuggled
from tests.security.weights import OLD_OPCODES
from tests.security.zips import (
    CUT,
    PACKED,
    RAW,
    content_of,
    rezipped,
    teacher,
    weights_pickle,
    with_data,
    with_weights,
)

KINDS = ("gsde", "cnn", "dict", "recurrent", "maskable", "crossq")
_PRINTED_SHORT = ("dict", "cnn")  # of their observations, only the serialised field says everything
_FIELDS = ("policy_class", "observation_space", "action_space")
_NAMES = {
    "lines": "a\nb\r\nc\u2028d\x1b[2J",
    "long": "x" * 999,
    "code": "__import__('os').getpid()",
    "empty": "",
    "dots": "a.b",
}


def gadgets() -> Entries:
    """Gadgets in the serialised fields and in data.pkl."""
    category = "SB3 zip, other kinds: gadgets"
    for kind in KINDS:
        content = content_of(kind)
        data = json.loads(content["data"])
        serialised = [key for key, value in data.items() if isinstance(value, dict) and ":serialized:" in value]
        for label, gadget in GADGETS.items():
            evil = base64.b64encode(pickled(gadget)).decode()
            unseen: Expect = "refused" if label in OLD_OPCODES else "harmless"
            for key in _FIELDS:
                only = kind in _PRINTED_SHORT and key == "observation_space"
                both = smuggled(gadget, base64.b64decode(data[key][":serialized:"]))
                hidden = data[key] | {":serialized:": base64.b64encode(both).decode()}
                changed = with_data(content, data | {key: hidden})
                yield teacher(
                    category, f"{kind}, {label} before the honest {key}", changed, unseen if only else "harmless", kind
                )
                alone = with_data(content, data | {key: {":type:": data[key][":type:"], ":serialized:": evil}})
                yield teacher(category, f"{kind}, {label} alone in {key}", alone, "refused")
            everywhere = {
                key: value | {":serialized:": evil} if key in serialised else value for key, value in data.items()
            }
            expect: Expect = "refused" if kind in _PRINTED_SHORT else "harmless"
            yield teacher(category, f"{kind}, {label} in all fields", with_data(content, everywhere), expect, kind)
            packed = with_weights(content, pickle=smuggled(gadget, weights_pickle(content)))
            yield teacher(category, f"{kind}, {label} thrown away in data.pkl", packed, unseen, kind)
            yield teacher(
                category, f"{kind}, {label} as data.pkl", with_weights(content, pickle=pickled(gadget)), "refused"
            )


def damage() -> Entries:
    """Flipped bits and truncation, of the whole zip and inside with right sums."""
    for seed, kind in enumerate(KINDS):
        whole = base(f"{kind}.zip")
        for count, raw in enumerate(flips(whole, 25, 210 + seed)):
            yield teacher(RAW, f"{kind}, {count}", raw, "either", kind)
        for count, raw in enumerate(cuts(whole, 15, 220 + seed)):
            yield teacher(CUT, f"{kind}, {count}", raw, "refused")
        for label, raw in rezipped(kind, 230 + 10 * seed, share=5):
            yield teacher(PACKED, f"{kind}, {label}", raw, "either", kind)


def _both(category: str, label: str, raw: bytes, expect: Expect, like: str = "keyed statistics") -> Entries:
    yield Entry(category, f"{label}, alone", "normalizer", {"k.pkl": raw}, "k.pkl", expect, like)
    files = {"model.zip": base("dict.zip"), "vecnormalize.pkl": raw}
    yield Entry(category, f"{label}, with a teacher", "teacher+statistics", files, "model.zip", expect, "dict")


def keyed() -> Entries:
    """Statistics of a Dict: gadgets, damage, and entries of odd names beside a teacher."""
    honest = base("keyed.pkl")
    yield from _both("Keyed statistics: gadgets", "as SB3 wrote them", honest, "harmless")
    for label, gadget in GADGETS.items():
        unseen: Expect = "refused" if label in OLD_OPCODES else "harmless"
        yield from _both("Keyed statistics: gadgets", f"{label}, thrown away", smuggled(gadget, honest), unseen)
        raw = keyed_statistics({"a": gadget})
        yield from _both("Keyed statistics: gadgets", f"{label} as an entry", raw, "refused")
    for count, raw in enumerate([*flips(honest, 100, 200), *cuts(honest, 40, 201)]):
        yield from _both("Keyed statistics: damage", str(count), raw, "either")
    ones = array(POSITIVE * 4, "f4", 4)
    for label, key in _NAMES.items():
        files = {"model.zip": base("dict.zip"), "vecnormalize.pkl": keyed_statistics({key: moments_of(ones, ones)})}
        yield Entry(
            "Keyed statistics: names", f"{label} beside a Dict", "teacher+statistics", files, "model.zip", "refused"
        )
        files = files | {"model.zip": base("ppo.zip")}
        expect: Expect = "refused" if key else "either"  # an observation without a name is the whole one
        yield Entry(
            "Keyed statistics: names", f"{label} beside a Box", "teacher+statistics", files, "model.zip", expect
        )
        for field, inside in {
            "Box": unit_box(2),
            "nested": dict_of({"a": unit_box(2)}),
            "image": unit_box(1, 3, 3),
        }.items():
            packed = with_observations("dict", dict_of({key: inside}))
            yield teacher("SB3 zip, other kinds: names", f"{label}, {field}", packed, "refused")


MAKERS = (gadgets, damage, keyed)
