"""Pickles read as data: the opcodes are walked, and what the file names is neither imported nor called.

`decode` turns a pickle into a plain tree: numbers, strings, bytes, tuples, lists, dicts, sets; `Symbol` for a global,
`Call` for an object that the file would have made, `PersistentId` for a reference outward. What a tree means is for
its reader to decide, who accepts only the forms it knows.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_BYTES = 64 * 2**20  # of one pickle, unless a caller says otherwise
MAX_OPCODES = 500_000  # about half a second; a state dict has 40 for each tensor
MAX_FIELD_OPCODES = 50_000  # of a serialised field of a model; a space has about 200
MAX_INT_BYTES = 16  # torch's legacy magic number has 10
MAX_NAME = 1_000  # characters of a key, or of a global's module or name
_MAX_PARTS = 8  # of a tuple as a key, which is hashed anew at each use
_MAX_NUMBERS = 1_000  # keys that are no text: numbers can be chosen so that their hashes collide
_MAX_ARGUMENTS = 64  # of a call with keywords, which copies them
_CODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MARK = object()


class DecodeError(Exception):
    """The bytes are no pickle, or one that goes beyond plain data; the text says what was found."""


@dataclass(frozen=True)
class Symbol:
    """A global that the pickle names; it stays a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Call:
    """An object that the pickle would have made by calling `symbol` with `args`; it was not called.

    `state` is what BUILD would have given it, `items` and `elements` what SETITEMS and APPENDS would have put in.
    `symbol` is a `Symbol` in every honest file, but any tree in a hostile one.
    """

    symbol: Any
    args: tuple[Any, ...]
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    @property
    def target(self) -> str:
        """The dotted name of what would have been called; empty where it is no global."""
        return str(self.symbol) if isinstance(self.symbol, Symbol) else ""


@dataclass(frozen=True, eq=False, repr=False)
class PersistentId:
    """A reference to something outside the pickle (torch: a storage)."""

    value: Any


def decode(data: bytes, *, max_bytes: int = MAX_BYTES, max_opcodes: int = MAX_OPCODES) -> Any:
    """The tree of the first pickle in `data`; DecodeError for anything that is not plain, bounded data."""
    return decode_from(data, 0, max_bytes=max_bytes, max_opcodes=max_opcodes)[0]


def decode_from(
    data: bytes, start: int, *, max_bytes: int = MAX_BYTES, max_opcodes: int = MAX_OPCODES
) -> tuple[Any, int]:
    """The tree of the pickle that starts at byte `start`, and the position behind it."""
    if len(data) - start > max_bytes:
        raise DecodeError(f"{len(data) - start} bytes, more than the limit of {max_bytes}")
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine()
    try:
        for count, (name, arg) in enumerate(_operations(stream)):
            if count > max_opcodes:
                raise DecodeError(f"more than {max_opcodes} opcodes")
            machine.step(name, arg)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise DecodeError(f"not a readable pickle ({type(error).__name__}: {str(error)[:120]})") from error
    return machine.result, stream.tell()


def _operations(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each opcode up to STOP.

    As `pickletools.genops`, but an opcode that is not on the list ends it before its argument is read: some arguments
    are text that Python would parse, with codecs that it would import for that.
    """
    name = ""
    while name != "STOP":
        code = stream.read(1)
        opcode = _CODES.get(code.decode("latin-1"))
        if opcode is None:
            raise DecodeError(f"no opcode {code!r}" if code else "it ends before its STOP")
        name = opcode.name
        if name not in _KNOWN:
            raise DecodeError(f"opcode {name} is not allowed")
        yield name, None if opcode.arg is None else opcode.arg.reader(stream)


class _Machine:
    """The pickle machine without its arms: a stack, a memo, and no way to import or call."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None
        self.numbers = 0  # keys that are no text

    def step(self, name: str, arg: Any) -> None:
        """One opcode of those that are known."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(arg)
        elif name in _INTEGERS:
            if abs(arg).bit_length() > 8 * MAX_INT_BYTES:
                raise DecodeError(f"an integer of {abs(arg).bit_length()} bits")
            self.stack.append(arg)
        elif name in _OPERATIONS:
            _OPERATIONS[name](self, arg)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise DecodeError("a mark where a value should be")
        return value

    def pop_mark(self) -> list[Any]:
        index = len(self.stack) - 1
        while self.stack[index] is not _MARK:
            index -= 1
            if index < 0:
                raise DecodeError("no mark on the stack")
        values = self.stack[index + 1 :]
        del self.stack[index:]
        return values

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise DecodeError("a mark where a value should be")
        return value


def _key(machine: _Machine, value: Any) -> Any:
    """`value`, if it is a scalar, a symbol or a short tuple of these: others are slow to hash or to compare."""
    flat = value if isinstance(value, tuple) else (value,)
    machine.numbers += not isinstance(value, str)
    if len(flat) > _MAX_PARTS or machine.numbers > _MAX_NUMBERS:
        raise DecodeError(f"a key of {len(flat)} parts, or more than {_MAX_NUMBERS} keys that are no text")
    for item in flat:
        if not (item is None or isinstance(item, str | int | float | bytes | Symbol)):
            raise DecodeError(f"a {type(value).__name__} as a key")
        if isinstance(item, str | bytes) and len(item) > MAX_NAME:
            raise DecodeError(f"a key of {len(item)} characters")
    return value


def _symbol(module: str, name: str) -> Symbol:
    if max(len(module), len(name)) > MAX_NAME:
        raise DecodeError(f"a global with a name of more than {MAX_NAME} characters")
    return Symbol(module, name)


def _put_items(machine: _Machine, values: list[Any]) -> None:
    if len(values) % 2:
        raise DecodeError("a key without a value")
    target = machine.top()
    if isinstance(target, Call):
        target = target.items
    if not isinstance(target, dict):
        raise DecodeError(f"items for a {type(target).__name__}")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[_key(machine, key)] = value


def _put_elements(machine: _Machine, values: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, Call):
        target = target.elements
    if not isinstance(target, list):
        raise DecodeError(f"elements for a {type(target).__name__}")
    target.extend(values)


def _add_to_set(machine: _Machine) -> None:
    values, target = machine.pop_mark(), machine.top()
    if not isinstance(target, set):
        raise DecodeError(f"members for a {type(target).__name__}")
    target.update(_key(machine, value) for value in values)


def _dict(machine: _Machine) -> None:
    values = machine.pop_mark()
    machine.stack.append({})
    _put_items(machine, values)


def _tuple(machine: _Machine, size: int) -> None:
    values = [machine.pop() for _ in range(size)]
    machine.stack.append(tuple(reversed(values)))


def _global(machine: _Machine, arg: str) -> None:
    module, _, name = arg.partition(" ")
    machine.stack.append(_symbol(module, name))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise DecodeError("a global whose name is not a string")
    machine.stack.append(_symbol(module, name))


def _call(machine: _Machine) -> None:
    args, symbol = machine.pop(), machine.pop()
    if not isinstance(args, tuple):
        raise DecodeError(f"a call with a {type(args).__name__} for its arguments")
    machine.stack.append(Call(symbol, args))


def _call_with_keywords(machine: _Machine) -> None:
    keywords, args, symbol = machine.pop(), machine.pop(), machine.pop()
    if not isinstance(args, tuple) or not isinstance(keywords, dict) or len(args) > _MAX_ARGUMENTS:
        raise DecodeError("a call with malformed arguments")
    machine.stack.append(Call(symbol, (*args, keywords) if keywords else args))


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.top()
    if not isinstance(target, Call):
        raise DecodeError(f"a state for a {type(target).__name__}")
    target.state = state


def _memo_put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.top()


def _stop(machine: _Machine) -> None:
    machine.result = machine.pop()
    if machine.stack:
        raise DecodeError(f"{len(machine.stack)} values left on the stack")


_CONSTANTS: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "MARK": _MARK,
}  # fmt: skip
_LITERALS = frozenset({
    "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
})  # fmt: skip
_INTEGERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4"})
_IGNORED = frozenset({"PROTO", "FRAME"})
_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "BYTEARRAY8": lambda m, arg: m.stack.append(bytes(arg)),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: _tuple(m, 1),
    "TUPLE2": lambda m, _: _tuple(m, 2),
    "TUPLE3": lambda m, _: _tuple(m, 3),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "DICT": lambda m, _: _dict(m),
    "FROZENSET": lambda m, _: m.stack.append(frozenset(_key(m, value) for value in m.pop_mark())),
    "APPEND": lambda m, _: _put_elements(m, [m.pop()]),
    "APPENDS": lambda m, _: _put_elements(m, m.pop_mark()),
    "SETITEM": lambda m, _: _put_items(m, [m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: _put_items(m, m.pop_mark()),
    "ADDITEMS": lambda m, _: _add_to_set(m),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, _: _stack_global(m),
    "REDUCE": lambda m, _: _call(m),
    "NEWOBJ": lambda m, _: _call(m),
    "NEWOBJ_EX": lambda m, _: _call_with_keywords(m),
    "BUILD": lambda m, _: _build(m),
    "BINPERSID": lambda m, _: m.stack.append(PersistentId(m.pop())),
    "MEMOIZE": lambda m, _: _memo_put(m, len(m.memo)),
    "BINPUT": _memo_put,
    "LONG_BINPUT": _memo_put,
    "BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "LONG_BINGET": lambda m, arg: m.stack.append(m.memo[arg]),
    "STOP": lambda m, _: _stop(m),
}
_KNOWN = frozenset(_CONSTANTS) | _LITERALS | _INTEGERS | _IGNORED | frozenset(_OPERATIONS)
