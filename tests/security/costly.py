"""Small files that would cost much: each took seconds or gigabytes, or ended in a traceback, in an earlier reader."""

from __future__ import annotations

import base64
import json
import struct
import zipfile

from tests.security.entry import Entries, Entry, zipped
from tests.security.forms import (
    again,
    array,
    before,
    box_of,
    dict_of,
    keep,
    keyed_statistics,
    moments_of,
    policy_of,
    with_observations,
)
from tests.security.pickles import BUILD, mapping, name, pickled, several, text
from tests.security.texts import zoo_folder
from tests.security.weights import Tensor, number, state_dict, vecnormalize
from tests.security.zips import content_of, teacher, with_data, with_weights

ZIP, STATISTICS, OTHER = "Costly: SB3 zip", "Costly: statistics", "Costly: YAML of the zoo"
_PRIME = 2**61 - 1  # Python's hash of an int is its rest by this
_ENDLESS = (2**39, 2**39, 0)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _deflated(kind: str, **members: bytes) -> bytes:
    named = {member.replace("_pth", ".pth"): raw for member, raw in members.items()}
    return zipped({**content_of(kind), **named}, zipfile.ZIP_DEFLATED)


def deviations() -> Entries:
    """log_std of gSDE and of a plain Gaussian that does not fit the network."""
    content = content_of("gsde")
    data = json.loads(content["data"])
    layers = {"mlp_extractor.policy_net.0.weight": (6, 4), "mlp_extractor.policy_net.0.bias": (6,)}
    for actions, shapes in (
        (1000, ((1_000_000, 1), (300_000, 1))),
        (3, ((7, 3), (7, 1), (6, 2), (5,), (1,), (2, 3, 1), ())),
    ):
        low, high = ([value] * actions for value in (-1.0, 1.0))
        box = {
            ":type:": "<class 'gymnasium.spaces.box.Box'>",
            ":serialized:": "",
            "dtype": "float32",
            "_shape": [actions],
        }
        document = json.dumps(data | {"action_space": box | {"low": low, "high": high}}).encode()
        for shape in shapes:
            tensors = layers | {"log_std": shape, "action_net.weight": (actions, 6), "action_net.bias": (actions,)}
            policy = policy_of(tensors, "CharStorage")
            yield teacher(
                ZIP,
                f"log_std {shape} for {actions} actions",
                _deflated("gsde", data=document, policy_pth=policy),
                "refused",
            )
    actor = {
        "actor.latent_pi.0.weight": (5, 3),
        "actor.latent_pi.0.bias": (5,),
        "actor.mu.0.weight": (2, 5),
        "actor.mu.0.bias": (2,),
    }
    for shape in ((7, 2), (2, 5), (5,), (1_000_000, 1)):
        policy = policy_of(actor | {"actor.log_std": shape}, "CharStorage")
        yield teacher(ZIP, f"sac, log_std {shape}", _deflated("sac", policy_pth=policy), "refused")


def emptiness() -> Entries:
    """Arrays without numbers whose other dimensions are beyond all bounds; tensors without numbers."""
    endless = array(b"", "f8", *_ENDLESS)
    size, stride = several(*map(number, _ENDLESS)), several(*map(number, (0, 0, 0)))
    hollow = Tensor("4", (3, 6), size=several(number(0), number(6))).opcodes()
    for label, tensor in {"tensor": Tensor("4", (3, 6), size=size, stride=stride).opcodes(), "weight": hollow}.items():
        packed = with_weights(content_of("ppo"), pickle=state_dict(**{"action_net.weight": tensor}))
        yield teacher(ZIP, f"a {label} without numbers", packed, "refused")
    yield Entry(
        STATISTICS,
        "without numbers",
        "normalizer",
        {"s.pkl": vecnormalize(obs_rms=moments_of(endless, endless))},
        "s.pkl",
        "refused",
    )
    space = box_of(endless, endless, "f4", *_ENDLESS)
    honest = json.loads(content_of("ppo")["data"])["observation_space"]
    facts = {key: value for key, value in honest.items() if not key.startswith(":")}
    yield teacher(ZIP, "bounds without numbers", with_observations("ppo", space, "box.Box", **facts), "harmless", "ppo")
    yield teacher(ZIP, "bounds without numbers alone", with_observations("ppo", space, "box.Box"), "refused")
    yield teacher(ZIP, "bounds without numbers in a Dict", with_observations("dict", dict_of({"a": space})), "refused")
    flat = {"dtype": "float32", "_shape": [10**6, 10**6, 10**6, 10**6, 0], "low": [], "high": []}
    yield teacher(ZIP, "printed bounds without numbers", with_observations("ppo", b"N", "box.Box", **flat), "refused")


def keys() -> Entries:
    """Keys that are slow to hash or to compare, lists within lists as keys of the statistics, calls that copy."""
    laugh = keep(0, b"](" + text("x") + b"e") + b"0"
    for index in range(24):
        laugh += keep(index + 1, b"](" + again(index) * 2 + b"e") + b"0"
    ones = array(struct.pack("<d", 1.0) * 4, "f8", 4)
    named = keyed_statistics({"a": moments_of(ones, ones)}, norm_obs_keys=b"](" + again(24) + b"e")
    long = text("a" * 3_000_000)
    made = name("x", "y") + again(0) + b"}" + text("a") + b"Ns\x92"
    walked = {
        "norm_obs_keys within themselves": before(laugh, named),
        "a long tuple as a key": before(keep(0, b"(" + b"N" * 20_000 + b"t") + b"0}" + (again(0) + b"Ns") * 20_000 + b"0", vecnormalize()),
        "numbers with one hash as keys": before(b"}(" + b"".join(number(_PRIME * i) + b"N" for i in range(30_000)) + b"u0", vecnormalize()),
        "a long text as a key": before(keep(0, long) + b"0}" + long + b"Ns" + (again(0) + b"Ns") * 30_000 + b"0", vecnormalize()),
        "calls that copy arguments": before(keep(0, b"(" + b"N" * 50_000 + b"t") + b"0" + (made + b"0") * 40_000, vecnormalize()),
        "a long name": before(b"c" + b"x" * 2_000_000 + b"\ny\n0", vecnormalize()),
    }  # fmt: skip
    for label, raw in walked.items():
        yield Entry(STATISTICS, label, "normalizer", {"s.pkl": raw}, "s.pkl", "refused")


def sharing() -> Entries:
    """One array in many places, and numbers of one byte that become numbers of eight."""
    million = array(bytes([1]) * 1_000_000, "i1", 1_000_000)
    shared = {"k0": keep(1, moments_of(keep(0, million), again(0)))} | {f"k{i}": again(1) for i in range(1, 150)}
    large = array(bytes([1]) * 60_000_000, "i1", 60_000_000)
    for label, raw in {"150 keys share a million": keyed_statistics(shared),
                       "60 million of one byte": vecnormalize(obs_rms=moments_of(keep(0, large), again(0)))}.items():  # fmt: skip
        yield Entry(STATISTICS, label, "normalizer", {"s.pkl": raw}, "s.pkl", "refused")
    box = keep(1, box_of(keep(0, million), again(0), "f4", 1_000_000))
    spaces = {"k0": box} | {f"k{i}": again(1) for i in range(1, 200)}
    yield teacher(
        ZIP, "200 spaces share a million bounds", _packed(with_observations("dict", dict_of(spaces))), "refused"
    )
    wide = 1_900_000
    cnn = {"cnn.0": (32, 1, 8, 8), "cnn.2": (64, 32, 4, 4), "cnn.4": (64, 64, 3, 3), "linear.0": (wide, 64)}
    tensors: dict[str, tuple[int, ...]] = {"action_net.weight": (3, wide), "action_net.bias": (3,)}
    for key, shape in cnn.items():
        tensors |= {f"features_extractor.{key}.weight": shape, f"features_extractor.{key}.bias": shape[:1]}
    policy = policy_of(tensors, "CharStorage")
    yield teacher(ZIP, "a CNN of one byte a number", _deflated("cnn", policy_pth=policy), "refused")


def _packed(raw: bytes) -> bytes:
    from tests.security.entry import unzipped

    return zipped(unzipped(raw), zipfile.ZIP_DEFLATED)


def wide() -> Entries:
    """Observations and actions of many numbers, and JSON of many brackets."""
    for count in (5_000_000, 1_000_000):
        bounds = array(bytes(count), "i1", count)
        space = box_of(keep(0, bounds), again(0), "f4", count)
        raw = _packed(with_observations("ppo", space, "box.Box", dtype="float32", _shape=[count]))
        yield teacher(ZIP, f"{count} observations", raw, "refused")
    choices = array(b"\2" * 10_000, "i1", 10_000)
    many = keep(1, name("gymnasium.spaces.multi_discrete", "MultiDiscrete") + b")\x81" + mapping(nvec=choices) + BUILD)
    spaces = {"k0": many} | {f"k{i}": again(1) for i in range(1, 90)}
    yield teacher(ZIP, "900,000 choices", _packed(with_observations("dict", dict_of(spaces))), "refused")
    content = content_of("ppo")
    for label, part in {"lists": b"[[1]],", "objects": b'{"a":1},', "empty objects": b"{},"}.items():
        raw = b'{"x":[' + part * ((2**24 - 40) // len(part)) + b"1]}"
        yield teacher(ZIP, f"data of {label}", _deflated("ppo", data=raw), "refused")
    raw = b'{"format":1,"mean":[' + b"[[1]]," * 2_700_000 + b"1]}"
    yield Entry(
        "Costly: statistics", "JSON of brackets", "normalizer", {"normalizer.json": raw}, "normalizer.json", "refused"
    )
    action = base64.b64encode(
        pickled(box_of(array(bytes(900_000), "i1", 900_000), array(bytes(900_000), "i1", 900_000), "f4", 900_000))
    ).decode()
    entry = {
        ":type:": "<class 'gymnasium.spaces.box.Box'>",
        ":serialized:": action,
        "dtype": "float32",
        "_shape": [900_000],
    }
    packed = _packed(with_data(content, json.loads(content["data"]) | {"action_space": entry}))
    yield teacher(ZIP, "900,000 actions", packed, "refused")


def directories() -> Entries:
    """Zips of many members without content, or of long names, and old torch files of many opcodes."""
    for count, length in ((800_000, 1), (1_000, 60_000)):
        inner = _directory(count, length)
        yield teacher(ZIP, f"policy.pth of {count} members", _deflated("ppo", policy_pth=inner), "refused")
        yield teacher(ZIP, f"{count} members", inner, "refused")
        lying = inner[:-14] + struct.pack("<HH", 1, 1) + inner[-10:]
        yield teacher(ZIP, f"{count} members that say they are one", lying, "refused")
    fill = b"(K\x01K\x02K\x03t0" * 83_000
    platform = b"}" + text("little_endian") + b"\x88s."
    old = (
        _LEGACY
        + b"\x80\x02"
        + fill
        + b"K\x01."
        + b"\x80\x02"
        + fill
        + platform
        + b"\x80\x02"
        + fill
        + b"}."
        + b"\x80\x02"
        + fill
        + b"]."
    )
    yield teacher(ZIP, "four long pickles of before torch 1.6", _deflated("ppo", policy_pth=old), "refused")


def _directory(count: int, length: int) -> bytes:
    """A zip whose directory names one empty member many times, with the records of zip64 where there are too many."""
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    fixed = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, length, 0, 0, 0, 0, 0, 0)
    entries = (fixed + b"a" * length) * count
    if count < 2**16:
        return local + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entries), len(local), 0)
    wide_ = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(entries), len(local))
    where = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + len(entries), 1)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
    return local + entries + wide_ + where + end


def yamls() -> Entries:
    """Lists of aliases of lists, as keyword arguments of the environment and elsewhere; brackets within brackets."""
    for count in (10, 300):
        cube = f"a: &a [{'1,' * count}1]\nb: &b [{'*a ,' * count}*a ]\nc: &c [{'*b ,' * count}*b ]\n"
        for key in ("env_kwargs: {k: *c }\n", "env_kwargs: *c\n", "more: [*c , *c ]\n"):
            args = ("env: CartPole-v1\n" + cube + key).encode()
            expect = "refused" if count == 300 or key == "env_kwargs: *c\n" else "harmless"
            yield zoo_folder(OTHER, f"{count} aliases, {key.strip()}", {"args.yml": args}, expect)
    deep = "a: [" + ("[" * 100 + "]" * 100 + ",") * 160 + "a]"
    yield zoo_folder(OTHER, "brackets within brackets", {"args.yml": deep.encode()}, "refused")
    wide_ = ("a: {" + "a," * 16_300 + "a}").encode()
    settings = {"args.yml": b"env: CartPole-v1\n" + wide_, "config.yml": wide_, "env_kwargs.yml": b"{}"}
    yield zoo_folder(OTHER, "three files of many values", settings, "either")


MAKERS = (deviations, emptiness, keys, sharing, wide, directories, yamls)
