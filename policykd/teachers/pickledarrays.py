"""The known trees of `pickledata` as numpy arrays and plain dicts: numbers only, sizes checked against the bytes."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policykd.teachers.pickledata import Call, DecodeError, PersistentId, Symbol

Array = NDArray[Any]

MAX_DIMS = 8
_MAX_PRODUCT = 2**32  # of the sizes of an array that are not 0
_DTYPES = frozenset(f"{kind}{size}" for kind, sizes in (("i", "1248"), ("u", "1248"), ("f", "248")) for size in sizes)
_NUMPY = ("numpy.core.", "numpy._core.")


class Budget:
    """How many bytes may still be made out of one file.

    A file can refer to one array many times, and one byte can become a number of eight: what is made is counted, and
    counted before it is made.
    """

    def __init__(self, limit: int, what: str) -> None:
        self.left, self._limit, self._what = limit, limit, what

    def take(self, size: int) -> None:
        """Use `size` bytes; DecodeError where they are not left."""
        self.left -= size
        if self.left < 0:
            raise DecodeError(f"more than {self._limit} bytes of {self._what}")


def is_array(tree: Any) -> bool:
    """Whether the tree is a pickled numpy array or numpy scalar."""
    return isinstance(tree, Call) and _numpy_name(tree) in _ARRAY_NAMES


def as_array(tree: Any, budget: Budget) -> Array:
    """The array (or 0-d array, for a scalar) that the tree describes, of which `budget` loses eight bytes a number;
    DecodeError for anything else."""
    if isinstance(tree, bool | int | float):
        return np.asarray(tree)
    if not isinstance(tree, Call):
        raise DecodeError(f"expected an array, found {kind_of(tree)}")
    name = _numpy_name(tree)
    if name == "multiarray._reconstruct":
        return _from_state(tree.state, budget)
    if name == "numeric._frombuffer":
        return _from_buffer(tree.args, budget)
    if name == "multiarray.scalar" and len(tree.args) == 2:
        return _array(tree.args[1], as_dtype(tree.args[0]), ((), "C"), budget)
    raise DecodeError(f"expected an array, found {kind_of(tree)}")


def as_dtype(tree: Any) -> np.dtype[Any]:
    """A numeric or boolean dtype, byte order included; DecodeError for any other."""
    if not (isinstance(tree, Call) and tree.target == "numpy.dtype" and tree.args and isinstance(tree.args[0], str)):
        raise DecodeError(f"expected a dtype, found {kind_of(tree)}")
    code = tree.args[0]
    if code in ("b1", "?"):
        return np.dtype(np.bool_)
    if code not in _DTYPES:
        raise DecodeError(f"dtype {code[:20]!r} is not numeric")
    order = tree.state[1] if isinstance(tree.state, tuple) and len(tree.state) > 1 else "="
    if not isinstance(order, str) or order not in ("<", ">", "=", "|"):
        raise DecodeError("a dtype with an unknown byte order")
    return np.dtype(code if order in "=|" else order + code)


def _bytes(tree: Any, size: int) -> bytes:
    """`size` bytes, also in the form that protocol 2 gives them (text in latin-1)."""
    if isinstance(tree, bytes) and len(tree) == size:
        return tree
    if isinstance(tree, Call) and tree.target == "_codecs.encode" and len(tree.args) == 2:
        text, codec = tree.args
        if isinstance(text, str) and codec == "latin1" and len(text) == size:
            return text.encode("latin-1")
    if isinstance(tree, Call) and tree.target in ("builtins.bytes", "__builtin__.bytes") and not (tree.args or size):
        return b""
    raise DecodeError(f"expected {size} bytes, found {kind_of(tree)}, or another number of them")


def as_shape(tree: Any) -> tuple[int, ...]:
    """A tuple of at most eight sizes, none negative, whose product is bounded also where one of them is 0."""
    shape = as_strides(tree)
    if math.prod(size or 1 for size in shape) > _MAX_PRODUCT:
        raise DecodeError("a shape beyond all bounds")
    return shape


def as_strides(tree: Any) -> tuple[int, ...]:
    """A tuple of at most eight steps, none negative."""
    if not isinstance(tree, tuple) or len(tree) > MAX_DIMS:
        raise DecodeError("a malformed shape")
    if not all(type(size) is int and 0 <= size < 2**40 for size in tree):
        raise DecodeError("a malformed shape")
    return tree


def as_dict(tree: Any) -> dict[Any, Any]:
    """A dict or OrderedDict."""
    if isinstance(tree, dict):
        return tree
    if isinstance(tree, Call) and tree.target == "collections.OrderedDict":
        return tree.items
    raise DecodeError(f"expected a dict, found {kind_of(tree)}")


def as_state(tree: Any, class_name: str) -> dict[Any, Any]:
    """The attributes of a pickled object of a class of this name, whatever its module."""
    if not isinstance(tree, Call):
        raise DecodeError(f"expected a {class_name}, found {kind_of(tree)}")
    symbol = tree.symbol
    if tree.target in ("copyreg._reconstructor", "copy_reg._reconstructor") and tree.args:
        symbol = tree.args[0]
    if not isinstance(symbol, Symbol) or symbol.name != class_name or not isinstance(tree.state, dict):
        raise DecodeError(f"expected a {class_name}, found {kind_of(tree)}")
    return tree.state


def kind_of(tree: Any) -> str:
    """What a tree is, in a few words, for messages; its content is never printed."""
    if isinstance(tree, Call):
        return f"an object of {tree.target[:80]!r}"
    if isinstance(tree, Symbol):
        return f"the name {str(tree)[:80]!r}"
    if isinstance(tree, PersistentId):
        return "a reference"
    return type(tree).__name__


def _numpy_name(tree: Call) -> str:
    for prefix in _NUMPY:
        if tree.target.startswith(prefix):
            return tree.target.removeprefix(prefix)
    return ""


_ARRAY_NAMES = frozenset({"multiarray._reconstruct", "numeric._frombuffer", "multiarray.scalar"})


def _from_state(state: Any, budget: Budget) -> Array:
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[3], bool | int):
        raise DecodeError("an array with a malformed state")
    _, shape, dtype, fortran, data = state
    return _array(data, as_dtype(dtype), (as_shape(shape), "F" if fortran else "C"), budget)


def _from_buffer(args: tuple[Any, ...], budget: Budget) -> Array:
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise DecodeError("an array with a malformed buffer")
    data, dtype, shape, _ = args
    return _array(data, as_dtype(dtype), (as_shape(shape), args[3]), budget)


def _array(data: Any, dtype: np.dtype[Any], form: tuple[tuple[int, ...], Literal["C", "F"]], budget: Budget) -> Array:
    """The numbers of `data` in the form (shape, order)."""
    shape, order = form
    budget.take(8 * math.prod(shape))
    flat = np.frombuffer(_bytes(data, math.prod(shape) * dtype.itemsize), dtype)
    return flat.astype(dtype.newbyteorder("="), copy=True).reshape(shape, order=order)
