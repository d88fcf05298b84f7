"""Hostile state dicts (gadgets, tensors that are not what they say) and hostile VecNormalize statistics."""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass, replace

from tests.security.entry import Entries, Entry, Expect, base, cuts, flips, zipped
from tests.security.pickles import (
    BUILD,
    GADGETS,
    REDUCE,
    allocations,
    call,
    integer,
    mapping,
    name,
    pickled,
    several,
    smuggled,
    text,
)
from tests.security.zips import BASES, content_of, teacher, weights_pickle, with_weights

GADGET, TENSOR = "SB3 zip: gadget among the weights", "SB3 zip: tensors that are not dense"
_SHAPES: dict[str, tuple[int, ...]] = {
    "mlp_extractor.policy_net.0.weight": (6, 4), "mlp_extractor.policy_net.0.bias": (6,),
    "mlp_extractor.value_net.0.weight": (6, 4), "mlp_extractor.value_net.0.bias": (6,),
    "action_net.weight": (3, 6), "action_net.bias": (3,), "value_net.weight": (1, 6), "value_net.bias": (1,),
}  # fmt: skip
_KEY = "action_net.weight"
OLD_OPCODES = ("inst", "obj")  # gadgets by opcodes that no pickler writes: refused wherever they stand


def number(value: int) -> bytes:
    """An int of any size."""
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


@dataclass(frozen=True)
class Tensor:
    """The parts of a dense tensor's pickle, each of which an input can replace by other opcodes."""

    key: str
    shape: tuple[int, ...]
    storage_class: bytes = name("torch", "FloatStorage")
    count: int = -1
    offset: bytes = integer(0)
    size: bytes = b""
    stride: bytes = b""
    storage: bytes = b""
    function: bytes = name("torch._utils", "_rebuild_tensor_v2")
    hooks: bytes = call("collections", "OrderedDict")

    def opcodes(self) -> bytes:
        """The tensor as opcodes that leave it on the stack."""
        count = math.prod(self.shape) if self.count < 0 else self.count
        storage = several(text("storage"), self.storage_class, text(self.key), text("cpu"), number(count)) + b"Q"
        steps = tuple(itertools.accumulate(self.shape[:0:-1], lambda a, b: a * b, initial=1))[::-1]
        size = self.size or several(*map(number, self.shape))
        stride = self.stride or several(*map(number, steps))
        parts = (self.storage or storage, self.offset, size, stride, b"\x89", self.hooks)
        return self.function + several(*parts) + REDUCE


def state_dict(**changes: bytes) -> bytes:
    """The pickle of the base's state dict; `changes` replace a tensor (written with `_` for `.`) or add one."""
    tensors = {key: Tensor(str(k), shape).opcodes() for k, (key, shape) in enumerate(_SHAPES.items())}
    return pickled(mapping(**tensors | changes))


def _tensor(**changes: object) -> bytes:
    """A state dict whose `_KEY` was changed."""
    changed = replace(Tensor("4", _SHAPES[_KEY]), **changes)  # type: ignore[arg-type]
    return state_dict().replace(text(_KEY) + Tensor("4", _SHAPES[_KEY]).opcodes(), text(_KEY) + changed.opcodes())


def _sparse(layout: str) -> bytes:
    parts = several(*(Tensor("4", (3, 6)).opcodes() for _ in range(2)), several(integer(3), integer(6)))
    return name("torch._utils", "_rebuild_sparse_tensor") + several(name("torch", layout), parts) + REDUCE


def _odd_tensors() -> dict[str, bytes]:
    two = lambda a, b: several(number(a), number(b))  # noqa: E731
    odd: dict[str, bytes] = {
        "expanded": _tensor(stride=two(0, 0), count=1),
        "expanded by rows": _tensor(stride=two(0, 1)),
        "expanded to petabytes": _tensor(size=two(2**35, 2**15), stride=two(0, 0)),
        "overlapping": _tensor(size=two(10, 18), stride=two(0, 1)),
        "negative stride": _tensor(stride=two(-6, -1)),
        "negative size": _tensor(size=two(-3, -6)),
        "zero size": _tensor(size=two(0, 6)),
        "past the end": _tensor(offset=integer(1)),
        "negative offset": _tensor(offset=integer(-1)),
        "huge offset": _tensor(offset=number(2**62)),
        "huge stride": _tensor(stride=two(2**62, 1)),
        "huge size": _tensor(size=two(2**62, 2**62)),
        "size of 4000 bits": _tensor(size=several(number(2**1000), number(2**1000))),
        "a hundred sizes": _tensor(size=several(*[integer(1)] * 100), stride=several(*[integer(1)] * 100)),
        "count that lies": _tensor(count=10**9),
        "count too small": _tensor(count=2),
        "size of floats": _tensor(size=several(*[b"G" + struct.pack(">d", 3.0)] * 2)),
        "size of booleans": _tensor(size=several(b"\x88", b"\x88")),
        "offset of text": _tensor(offset=text("0")),
        "storage of objects": _tensor(storage_class=name("builtins", "object")),
        "storage of complex numbers": _tensor(storage_class=name("torch", "ComplexFloatStorage")),
        "storage of quantised numbers": _tensor(storage_class=name("torch", "QInt8Storage")),
        "storage of another module": _tensor(storage_class=name("evil", "FloatStorage")),
        "storage key that climbs": _tensor(key="../4"),
        "storage key that is absolute": _tensor(key="/etc/passwd"),
        "storage key that is missing": _tensor(key="999"),
        "storage that is a number": _tensor(storage=integer(4)),
        "storage that is a list": _tensor(storage=b"](" + integer(4) + b"eQ"),
        "meta tensor": _tensor(function=name("torch._utils", "_rebuild_meta_tensor_no_storage")),
        "quantised tensor": _tensor(function=name("torch._utils", "_rebuild_qtensor")),
        "device tensor": _tensor(function=name("torch._utils", "_rebuild_device_tensor_from_numpy")),
        "wrapper subclass": _tensor(function=name("torch._utils", "_rebuild_wrapper_subclass")),
        "from type": _tensor(function=name("torch._tensor", "_rebuild_from_type_v2")),
        "number for a tensor": state_dict(more=integer(1)),
        "tensor within a tensor": _tensor(offset=Tensor("4", (3, 6)).opcodes()),
        "text for a dict": pickled(text("state")),
        "list for a dict": pickled(b"]"),
        "no tensors": pickled(b"}"),
        "20,000 tensors": state_dict(**{f"t{k}": Tensor("7", (1,)).opcodes() for k in range(2_000)} | {"x": b"N"}),
    }
    return odd | {
        f"sparse, {layout}": state_dict(more=_sparse(layout)) for layout in ("sparse_coo", "sparse_csr", "sparse_bsr")
    }


def tensors() -> Entries:
    """Tensors that are sparse, expanded, out of bounds, not finite, too many or too large."""
    content = content_of("ppo")
    yield teacher(TENSOR, "assembled as torch does", with_weights(content, pickle=state_dict()), "harmless", "ppo")
    for label, raw in _odd_tensors().items():
        expect: Expect = "harmless" if label == "expanded by rows" else "refused"  # its copy is no larger than the file
        yield teacher(TENSOR, label, with_weights(content, pickle=raw), expect, "ppo")
    for kind in BASES:
        for value in ("nan", "inf", "-inf"):
            for at in (0, 1, 2):
                floats = struct.pack("<f", float(value)) * 4096
                size = {"ppo": (96, 24, 96), "sac": None}[kind]
                raw = floats[: size[at]] if size else floats[: _storage_size(kind, at)]
                packed = with_weights(content_of(kind), **{f"data_{at}": raw})
                yield teacher(
                    "SB3 zip: numbers that are not finite", f"{kind}, storage {at} is {value}", packed, "refused"
                )
    one = Tensor("7", (1,)).opcodes()
    for count in (65, 1_000, 3_000):
        for part in ("weight", "bias"):
            layers = {f"mlp_extractor.policy_net.{2 * i}.{part}": one for i in range(1, count)}
            packed = with_weights(content, pickle=state_dict(**layers))
            yield teacher("SB3 zip: huge net_arch", f"{count} layers of a {part} in the weights", packed, "refused")
    for wide in (2**20, 2**30, 2**40):
        raw = _tensor(size=several(integer(3), number(wide)), stride=several(integer(0), integer(0)))
        packed = with_weights(content, pickle=raw)
        yield teacher("SB3 zip: huge net_arch", f"a layer of {wide} in the weights", packed, "refused")


def _storage_size(kind: str, at: int) -> int:
    from tests.security.entry import unzipped

    inner = unzipped(content_of(kind)["policy.pth"])
    return next(len(raw) for member, raw in inner.items() if member.endswith(f"/data/{at}"))


def gadgets() -> Entries:
    """Gadgets in data.pkl: in place of the dict, as a tensor or part of one, as a key, and thrown away unseen."""
    for label, gadget in GADGETS.items():
        content = content_of("ppo")
        forms = {
            "whole": pickled(gadget),
            "a value": state_dict(more=gadget),
            "a key": pickled(b"}(" + gadget + Tensor("4", (3, 6)).opcodes() + b"u"),
            "in a list": pickled(b"](" + gadget + b"e"),
            "a storage": _tensor(storage=gadget + b"Q"),
            "a storage class": _tensor(storage_class=gadget),
            "a size": _tensor(size=gadget),
            "an offset": _tensor(offset=gadget),
            "a function": _tensor(function=gadget),
            "a state": pickled(call("collections", "OrderedDict") + gadget + BUILD),
        }
        for form, raw in forms.items():
            expect: Expect = "refused"
            packed = with_weights(content, pickle=raw)
            yield teacher(GADGET, f"{label} as {form}", packed, expect)
        unseen: Expect = "refused" if label in OLD_OPCODES else "harmless"
        packed = with_weights(content, pickle=_tensor(hooks=gadget))
        yield teacher(GADGET, f"{label} as hooks", packed, unseen, "ppo")
        for kind in BASES:
            raw = smuggled(gadget, weights_pickle(content_of(kind)))
            packed = with_weights(content_of(kind), pickle=raw)
            yield teacher(GADGET, f"{kind}, {label} thrown away", packed, unseen, kind)
        legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
        packed = zipped({**content, "policy.pth": legacy + pickled(gadget) * 3})
        yield teacher(GADGET, f"{label} in the format before 1.6", packed, "refused")


def vecnormalize(**state: bytes) -> bytes:
    """A VecNormalize of four observations, with attributes replaced or added."""
    zeros = several(
        b"B" + struct.pack("<I", 32) + bytes(24) + struct.pack("<d", 1.0), *_F8, several(integer(4)), text("C")
    )
    array = name("numpy._core.numeric", "_frombuffer") + zeros + REDUCE
    ones = array.replace(bytes(24) + struct.pack("<d", 1.0), struct.pack("<d", 1.0) * 4)
    moments = (
        name("stable_baselines3.common.running_mean_std", "RunningMeanStd")
        + b")\x81"
        + mapping(mean=array, var=ones)
        + BUILD
    )
    clip, epsilon = (b"G" + struct.pack(">d", value) for value in (10.0, 1e-8))
    full = {"obs_rms": moments, "clip_obs": clip, "epsilon": epsilon, "norm_obs": b"\x88"} | state
    start = name("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize") + b")\x81"
    return pickled(start + mapping(**full) + BUILD, 4)


_F8 = (call("numpy", "dtype", text("f8"), b"\x89", b"\x88"),)


def statistics(category: str, label: str, raw: bytes, expect: Expect) -> Entries:
    """The statistics alone, and beside a teacher of four observations."""
    like = "statistics" if expect == "harmless" else ""
    files = {"vecnormalize.pkl": raw}
    yield Entry(category, f"{label}, alone", "normalizer", files, "vecnormalize.pkl", expect, like)
    with_teacher = files | {"model.zip": base("ppo.zip")}
    like = "ppo" if expect == "harmless" else ""
    yield Entry(category, f"{label}, with a teacher", "teacher+statistics", with_teacher, "model.zip", expect, like)


def normalizers() -> Entries:
    """vecnormalize.pkl: gadgets, opcodes that allocate, numbers that are not finite, flips and cuts."""
    category, honest = "vecnormalize.pkl: gadgets", base("vecnormalize.pkl")
    yield from statistics(category, "assembled as SB3 does", vecnormalize(), "harmless")
    for label, gadget in GADGETS.items():
        yield from statistics(category, f"{label}, whole", pickled(gadget), "refused")
        unseen: Expect = "refused" if label in OLD_OPCODES else "harmless"
        yield from statistics(category, f"{label}, thrown away", smuggled(gadget, honest), unseen)
        yield from statistics(category, f"{label} as venv", vecnormalize(venv=gadget), unseen)
        yield from statistics(category, f"{label} as obs_rms", vecnormalize(obs_rms=gadget), "refused")
        yield from statistics(category, f"{label} as clip_obs", vecnormalize(clip_obs=gadget), "refused")
    for label, raw in allocations():
        entry = Entry("Opcodes that allocate", f"statistics, {label}", "normalizer", {"s.pkl": raw}, "s.pkl", "refused")
        yield entry
    for value in (math.nan, math.inf, -1.0, 0.0, -math.inf):
        for key in ("clip_obs", "epsilon"):
            if (key, value) not in (("clip_obs", math.inf), ("epsilon", 0.0)):
                raw = vecnormalize(**{key: b"G" + struct.pack(">d", value)})
                if not (key == "epsilon" and value == 0.0):
                    yield from statistics("vecnormalize.pkl: numbers", f"{key} {value}", raw, "refused")
    for number_, raw in enumerate(flips(honest, 250, 60)):
        yield Entry("vecnormalize.pkl: flipped bits", str(number_), "normalizer", {"s.pkl": raw}, "s.pkl", "either")
    for number_, raw in enumerate(cuts(honest, 80, 61)):
        yield Entry("vecnormalize.pkl: truncated", str(number_), "normalizer", {"s.pkl": raw}, "s.pkl", "refused")


MAKERS = (tensors, gadgets, normalizers)
