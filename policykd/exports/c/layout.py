"""How inputs and outputs lie in the C structs `policy_input` and `policy_output`, and what C calls them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from policykd.exports.graph import Array
from policykd.exports.interface import MASK, NOISE, Interface

_WORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const const_cast
    consteval constexpr constinit continue decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or
    or_eq private protected public register reinterpret_cast requires restrict return short signed sizeof static
    static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename typeof
    union unsigned using virtual void volatile wchar_t while xor xor_eq co_await co_return co_yield char8_t char16_t
    char32_t complex imaginary unix linux near far small interface errno assert offsetof signbit isnan isinf isfinite
    isnormal fpclassify isgreater isless isunordered i386 arm mips sun vax
"""
_KEYWORDS = frozenset(_WORDS.split())
"""Of C and C++ up to C++20, and macros that compilers or their headers define in lower case."""
_C_TYPES = {"float": np.float32, "int32_t": np.int32, "uint8_t": np.uint8, "int8_t": np.int8}
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Member:
    """An array in a struct: `name` in C, `size` entries of `ctype`, and the name that the interface has for it."""

    name: str
    ctype: str
    size: int
    origin: str

    @property
    def macro(self) -> str:
        """The macro that holds its size."""
        kinds = {MASK: "POLICY_MASK_SIZE", NOISE: "POLICY_NOISE_SIZE"}
        return kinds.get(self.origin, f"POLICY_INPUT_{self.name.upper()}_SIZE")


@dataclass(frozen=True)
class Layout:
    """The two structs. Ports without a number in them have no member: C has no empty arrays."""

    interface: Interface

    @cached_property
    def inputs(self) -> tuple[Member, ...]:
        """Members of `policy_input`: the ports in their order, the mask, the noise."""
        taken: set[str] = {MASK, NOISE}
        members = []
        for port in self.interface.ports:
            if port.size:
                name = identifier(port.name, taken)
                members.append(Member(name, "int32_t" if port.nvec else "float", port.size, port.name))
        if self.interface.mask_size:
            members.append(Member(MASK, "uint8_t", self.interface.mask_size, MASK))
        if self.interface.noise_size:
            members.append(Member(NOISE, "float", self.interface.noise_size, NOISE))
        return tuple(members)

    @cached_property
    def outputs(self) -> tuple[Member, ...]:
        """Members of `policy_output`: the action, then the distribution's parameters."""
        kind, action = self.interface.kind, self.interface.action
        ctype = {"choices": "int32_t", "numbers": "float", "bits": "uint8_t" if action.dtype == "uint8" else "int8_t"}
        size = len(self.interface.branches) if kind == "choices" else self.interface.n_outputs
        found = [Member("action", ctype[kind], size, "action")]
        return (
            *found,
            *(Member(name, "float", self.interface.n_outputs, name) for name in self.interface.distribution),
        )

    @cached_property
    def input_type(self) -> np.dtype[Any]:
        """`policy_input` as NumPy sees it."""
        return _struct(self.inputs)

    @cached_property
    def output_type(self) -> np.dtype[Any]:
        """`policy_output` as NumPy sees it."""
        return _struct(self.outputs)

    def records(self, observations: tuple[Array, ...], mask: Array | None, noise: Array | None) -> Array:
        """Inputs [B] as `policy_input`s."""
        filled = np.zeros(len(observations[0]), self.input_type)
        parts = dict(zip((port.name for port in self.interface.ports), observations, strict=True))
        parts |= {MASK: mask, NOISE: noise}  # type: ignore[dict-item]
        for member in self.inputs:
            values = np.asarray(parts[member.origin]).reshape(len(filled), member.size)
            if member.ctype == "int32_t":  # no choice is that large (`c99.check`), so that one out of range stays so
                values = np.clip(values, INT32.min, INT32.max)
            filled[member.name] = values
        return filled


def identifier(name: str, taken: set[str]) -> str:
    """A name for a member, unlike those in `taken` (to which it is added) even in capitals."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    reserved = not re.match(r"[A-Za-z]", plain) or plain in _KEYWORDS or plain.isupper() or plain.endswith("_t")
    plain = f"obs_{plain}" if reserved else plain
    found, count = plain, 1
    while found.lower() in taken:
        count += 1
        found = f"{plain}_{count}"
    taken.add(found.lower())
    return found


def _struct(members: tuple[Member, ...]) -> np.dtype[Any]:
    return np.dtype([(m.name, _C_TYPES[m.ctype], (m.size,)) for m in members], align=True)
