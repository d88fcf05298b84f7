"""Hostile zips of stable-baselines3: what lies in `data`, what the zip itself is like, and damage of every kind."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from tests.security.entry import (
    JSON_VALUES,
    Entries,
    Entry,
    Expect,
    Large,
    base,
    cuts,
    flips,
    paths,
    replaced,
    unzipped,
    zipped,
)
from tests.security.pickles import GADGETS, allocations, pickled, smuggled

BASES = ("ppo", "sac")
_OTHERS = ("pytorch_variables.pth", "policy.optimizer.pth", "vecnormalize.pkl", "evil.py", "data.pkl", "__init__.py")


def teacher(category: str, name: str, data: bytes | Large, expect: Expect, like: str = "") -> Entry:
    """A zip that is opened as a teacher."""
    return Entry(category, name, "teacher", {"model.zip": data}, "model.zip", expect, like)


def content_of(kind: str) -> dict[str, bytes]:
    """The members of a base."""
    return unzipped(base(f"{kind}.zip"))


def with_data(content: Mapping[str, bytes], document: Any) -> bytes:
    """The zip with another `data`."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return zipped({**content, "data": raw})


def with_weights(content: Mapping[str, bytes], **changes: bytes) -> bytes:
    """The zip with members of its policy.pth replaced (named without their folder, `_` for `/`), rightly packed."""
    inner = unzipped(content["policy.pth"])
    folder = next(iter(inner)).partition("/")[0]
    named = {f"{folder}/{name.replace('_', '/').replace('pickle', 'data.pkl')}": raw for name, raw in changes.items()}
    return zipped({**content, "policy.pth": zipped({**inner, **named})})


def weights_pickle(content: Mapping[str, bytes]) -> bytes:
    """data.pkl of a zip's policy.pth."""
    return next(raw for name, raw in unzipped(content["policy.pth"]).items() if name.endswith("data.pkl"))


def fields() -> Entries:
    """Gadgets in every serialised field of `data`; with and without the printed facts beside it."""
    for kind in BASES:
        content = content_of(kind)
        data = json.loads(content["data"])
        serialised = [key for key, value in data.items() if isinstance(value, dict) and ":serialized:" in value]
        for label, gadget in GADGETS.items():
            evil = base64.b64encode(pickled(gadget)).decode()
            for key in serialised:
                changed = data | {key: data[key] | {":serialized:": evil}}
                name = f"{kind}, {label} in {key}"
                yield teacher(
                    "SB3 zip: gadget in a serialised field", name, with_data(content, changed), "harmless", kind
                )
                honest = base64.b64decode(data[key][":serialized:"])
                both = base64.b64encode(smuggled(gadget, honest)).decode()
                changed = data | {key: data[key] | {":serialized:": both}}
                name = f"{kind}, {label} before the honest {key}"
                yield teacher(
                    "SB3 zip: gadget in a serialised field", name, with_data(content, changed), "harmless", kind
                )
            everywhere = {k: v | {":serialized:": evil} if k in serialised else v for k, v in data.items()}
            everywhere["more"] = {":type:": "<class 'evil.Evil'>", ":serialized:": evil}
            name = f"{kind}, {label} in all fields"
            yield teacher(
                "SB3 zip: gadget in a serialised field", name, with_data(content, everywhere), "harmless", kind
            )
            for key in ("policy_class", "observation_space", "action_space"):
                alone = {":type:": data[key][":type:"], ":serialized:": evil}
                name = f"{kind}, {label} alone in {key}"
                packed = with_data(content, data | {key: alone})
                yield teacher("SB3 zip: gadget in a serialised field", name, packed, "refused")


def members() -> Entries:
    """Gadgets in place of a member, members that nobody asked for, and names that lead elsewhere."""
    for kind in BASES:
        content = content_of(kind)
        for label, gadget in GADGETS.items():
            raw = pickled(gadget)
            for name in ("data", "policy.pth"):
                data = zipped({**content, name: raw})
                yield teacher("SB3 zip: gadget as a member", f"{kind}, {label} as {name}", data, "refused")
            data = zipped({**content, **dict.fromkeys(_OTHERS, raw)})
            yield teacher("SB3 zip: gadget as a member", f"{kind}, {label} as others", data, "harmless", kind)
        for prefix in (
            "../",
            "../../../",
            "/",
            "/tmp/",
            "C:\\",
            "\\\\host\\share\\",
            "a/../../",
            "~/",
            "./",
            "\u202e",
            "%2e%2e/",
        ):
            evil = {prefix + name: raw for name, raw in content.items()}
            name = f"{kind}, {prefix!r}"
            yield teacher("SB3 zip: member names", f"{name} beside", zipped({**content, **evil}), "harmless", kind)
            yield teacher("SB3 zip: member names", f"{name} instead", zipped(evil), "refused")
        for member in ("a\nb", "x" * 60_000, "\u001b[2J", "con", "data/", "policy.pth/x", " data", "DATA"):
            data = zipped({**content, member: b"x"})
            yield teacher("SB3 zip: member names", f"{kind}, {member[:20]!r}", data, "harmless", kind)
        yield teacher("SB3 zip: member names", f"{kind}, link", _linked(content), "refused")


def _linked(content: Mapping[str, bytes]) -> bytes:
    """`data` as a symbolic link to a file of the system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, raw in content.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            if name == "data":
                info.create_system, info.external_attr, raw = 3, 0o120777 << 16, b"/etc/passwd"
            archive.writestr(info, raw)
    return buffer.getvalue()


def bombs() -> Entries:
    """Zips that unfold, lie about sizes or are large."""
    category = "SB3 zip: bombs"
    deflated = zipfile.ZIP_DEFLATED
    for kind in BASES:
        content = content_of(kind)
        for megabytes in (17, 64, 300):
            zeros = bytes(megabytes * 2**20)
            for name in ("data", "policy.pth", "_stable_baselines3_version", "system_info.txt"):
                if megabytes == 17 or (name, kind) == ("policy.pth", "ppo"):
                    data = zipped({**content, name: zeros}, deflated)
                    yield teacher(category, f"{kind}, {name} of {megabytes} MB", data, "refused")
            inner = unzipped(content["policy.pth"])
            for part in [name for name in inner if name.endswith(("data.pkl", "data/0", "byteorder"))]:
                if megabytes == 17:
                    data = zipped({**content, "policy.pth": zipped({**inner, part: zeros}, deflated)})
                    yield teacher(category, f"{kind}, {part} of 17 MB", data, "refused")
        many = zipped({**{f"m{i}": b"" for i in range(20_001)}, **content})
        yield teacher(category, f"{kind}, 20,000 members", many, "refused")
        nested = base(f"{kind}.zip")
        for _ in range(20):
            nested = zipped({"data": content["data"], "policy.pth": nested}, deflated)
        yield teacher(category, f"{kind}, a zip in a zip, 20 deep", nested, "refused")
        for member in ("data", "policy.pth"):
            for size in (0, 10, 2**31, 2**32 - 1):
                yield teacher(category, f"{kind}, {member} says {size}", _lying(content, member, size), "refused")
        yield teacher(category, f"{kind}, data twice", _twice(content), "refused")
    for size in (2**28, 2**29, 2**30, 2**30 + 1, 2**40):
        yield teacher(category, f"hole of {size} bytes", Large(size, b"PK\x03\x04"), "refused")


def _lying(content: Mapping[str, bytes], member: str, size: int) -> bytes:
    """A zip whose directory says another size of a member."""
    raw = bytearray(zipped(content, zipfile.ZIP_DEFLATED))
    at = raw.index(b"PK\x01\x02")
    while raw[at + 46 : at + 46 + len(member)] != member.encode():
        at = raw.index(b"PK\x01\x02", at + 4)
    raw[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(raw)


def _twice(content: Mapping[str, bytes]) -> bytes:
    renamed = zipped({**content, "atad": b"{}"})
    return renamed.replace(b"atad", b"data")


def documents() -> Entries:
    """Hostile values in every field of `data` that is read, bombs of JSON, and huge architectures."""
    for kind in BASES:
        content = content_of(kind)
        data = json.loads(content["data"])
        read = {key: data[key] for key in ("policy_class", "observation_space", "action_space", "policy_kwargs")}
        read["policy_kwargs"] = {"net_arch": [5], "activation_fn": "<class 'torch.nn.modules.activation.Tanh'>",
                                 "use_expln": False, "clip_mean": 2.0, "features_extractor_class": _FLATTEN}  # fmt: skip
        ways = [way for way in paths(read) if len(way) == 1 or way[1] in _READ]
        for way in ways:
            for label, text in JSON_VALUES.items():
                if len(way) == 1 or way[1] != ":serialized:" or label in ("null", "text", "long text"):
                    shown = data | {"policy_kwargs": read["policy_kwargs"]}
                    if way[-1] in _PRINTED and way[0] != "policy_kwargs":  # counts where the serialised field does not
                        shown = shown | {way[0]: data[way[0]] | {":serialized:": ""}}
                    raw = replaced(shown, way, text).encode()
                    name = f"{kind}, {'.'.join(map(str, way))} is {label}"
                    yield teacher("SB3 zip: hostile values in data", name, with_data(content, raw), "either", kind)
        for label, arch in _ARCHITECTURES.items():
            raw = replaced(data, ("policy_kwargs",), f'{{"net_arch": {arch}}}').encode()
            expect: Expect = "refused" if label == "a million layers" else "harmless"  # as JSON of too many values
            yield teacher("SB3 zip: huge net_arch", f"{kind}, {label}", with_data(content, raw), expect, kind)
        for label, raw in _JSON_BOMBS.items():
            yield teacher("SB3 zip: bombs", f"{kind}, data is {label}", with_data(content, raw), "refused")


_FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"
_PRINTED = ("low", "high", "shape", "_shape", "dtype", "n", "start")
_READ = (":type:", ":serialized:", "__module__", "__init__", "low", "high", "shape", "_shape", "dtype", "n", "start",
         "activation_fn", "use_expln", "clip_mean", "features_extractor_class")  # fmt: skip
_ARCHITECTURES = {
    "10,000 layers": json.dumps([64] * 10_000), "a layer of 2^40": f"[{2**40}]", "a layer of 4000 digits": "[" + "9" * 4000 + "]",
    "deep": "[" * 500 + "]" * 500, "text": '"[10**9]*10**9"', "a million layers": json.dumps({"pi": [2**20] * 1_000_000}),
}  # fmt: skip
_JSON_BOMBS = {
    "deep": b"[" * 200_000, "deep objects": b'{"a":' * 100_000, "long": b"[" + b"0," * 4_000_000 + b"0]",
    "many digits": b'{"a":' + b"9" * 10_000 + b"}", "no text": b"\xff\xfe", "null": b"null", "empty": b"{}",
    "one string": b'"' + b"x" * 2**23 + b'"', "equal keys": b"{" + b'"a":1,' * 1_000_000 + b'"a":1}',
}  # fmt: skip


def opcodes() -> Entries:
    """Opcodes that allocate, in the space, the weights and in both."""
    for label, raw in allocations():
        for kind in BASES:
            content = content_of(kind)
            name = f"{kind}, {label}"
            yield teacher("Opcodes that allocate", f"{name} in data.pkl", with_weights(content, pickle=raw), "refused")
        data = json.loads(content_of("ppo")["data"])
        evil = base64.b64encode(raw).decode()
        changed = {
            k: v | {":serialized:": evil} if isinstance(v, dict) and ":serialized:" in v else v for k, v in data.items()
        }
        packed = with_data(content_of("ppo"), changed)
        small = len(packed) < 2**24  # `data` may have no more
        yield teacher(
            "Opcodes that allocate", f"ppo, {label} in the fields", packed, "harmless" if small else "refused", "ppo"
        )


def rezipped(kind: str, seed: int, share: int = 1) -> Iterator[tuple[str, bytes]]:
    """Flips and cuts inside the members, packed again so that the sums of both zips are right; one in `share`."""
    content = content_of(kind)
    for number, raw in enumerate(flips(content["data"], 150 // share, seed)):
        yield f"data, flip {number}", with_data(content, raw)
    for number, raw in enumerate(flips(weights_pickle(content), 250 // share, seed + 1)):
        yield f"data.pkl, flip {number}", with_weights(content, pickle=raw)
    for number, raw in enumerate(cuts(weights_pickle(content), 40 // share, seed + 2)):
        yield f"data.pkl, cut {number}", with_weights(content, pickle=raw)
    inner = unzipped(content["policy.pth"])
    storages = sorted(name.partition("/data/")[2] for name in inner if "/data/" in name)
    for storage in storages[:4]:
        raw = next(value for name, value in inner.items() if name.endswith(f"/data/{storage}"))
        for number, changed in enumerate(flips(raw, 30 // share, seed + 3)):
            yield f"storage {storage}, flip {number}", with_weights(content, **{f"data_{storage}": changed})
        for number, changed in enumerate(cuts(raw, max(5 // share, 2), seed + 4)):
            yield f"storage {storage}, cut {number}", with_weights(content, **{f"data_{storage}": changed})
    data = json.loads(content["data"])
    for key in ("policy_class", "observation_space", "action_space"):
        honest = base64.b64decode(data[key][":serialized:"])
        for number, raw in enumerate(flips(honest, 40 // share, seed + 5)):
            alone = {":type:": data[key][":type:"], ":serialized:": base64.b64encode(raw).decode()}
            yield f"{key} alone, flip {number}", with_data(content, data | {key: alone})


RAW, PACKED, CUT = "SB3 zip: flipped bits", "SB3 zip: flipped bits, valid sums", "SB3 zip: truncated"


def damage() -> Entries:
    """Flipped bits and truncation of a whole zip, and inside it with valid sums."""
    for seed, kind in enumerate(BASES):
        whole = base(f"{kind}.zip")
        for number, raw in enumerate(flips(whole, 150, 10 + seed)):
            yield teacher(RAW, f"{kind}, {number}", raw, "either", kind)
        for number, raw in enumerate(cuts(whole, 100, 20 + seed)):
            yield teacher(CUT, f"{kind}, {number}", raw, "refused")
        for name, raw in rezipped(kind, 30 + 10 * seed):
            yield teacher(PACKED, f"{kind}, {name}", raw, "either", kind)


MAKERS = (fields, members, bombs, documents, opcodes, damage)
