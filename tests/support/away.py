"""A device that is not there: tensors that say they lie elsewhere, and are computed on the CPU.

A tensor of the device cuda needs a GPU as soon as it records a gradient (torch's FakeTensorMode aborts there in a build
for CPUs), and a tensor without numbers cannot run a whole distillation. So the device is called `meta`, which to torch
is one as any other, but here its tensors hold numbers. As on a GPU, operands on two devices and generators of another
device are errors; what makes the host wait for the device is counted, and inside `Device.still` an error. What this
cannot show: kernels. They are those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from policykd.learn.updates.update import Learner

AWAY = torch.device("meta")
_aten = torch.ops.aten
_ASKS = {  # what needs a number of the device before it can go on: a value, or how many entries there will be
    *(_aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten.bincount, _aten.equal),
    *(_aten._unique2, _aten.unique_dim, _aten.unique_consecutive),
}
_COPIES = {_aten._to_copy, _aten.copy_}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
_Generator = torch.Generator


class HostWaits(AssertionError):
    """The host would wait for the device where it must not."""


class Away(Tensor):
    """A tensor that lies elsewhere: `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Away:
        where = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        own = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=AWAY, **where)
        own.held = held
        return own

    def tolist(self) -> Any:
        """Through the CPU, as from every device; torch refuses it of any subclass."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `Device`")

    __torch_function__ = torch._C._disabled_torch_function_impl


class Device(TorchDispatchMode):
    """Inside of it, the device is there. `waits`: by which operators the host waited for it so far."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = list[str]()
        self._still = False
        self._calls = _Calls()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds

    def __enter__(self) -> Device:
        self._calls.__enter__()
        torch.Generator = _Seeded
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        torch.Generator = _Generator
        self._calls.__exit__(*error)

    def still(self) -> AbstractContextManager[None]:
        """Inside, the host may not wait."""
        return self._while(still=True)

    def waiting(self) -> AbstractContextManager[None]:
        """Inside, it may again."""
        return self._while(still=False)

    @contextmanager
    def _while(self, *, still: bool) -> Iterator[None]:
        before, self._still = self._still, still
        try:
            yield
        finally:
            self._still = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, spec = tree_flatten((args, kwargs := dict(kwargs or {})))
        known = {id(x.held): x for x in flat if isinstance(x, Away)}
        here = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, Away)]
        away = _is_away(kwargs["device"]) if kwargs.get("device") is not None else bool(known)
        if _waits(func, args, kwargs, known=bool(known), here=here, away=away):
            self.waits.append(str(func))
            if self._still:
                raise HostWaits(f"{func} makes the host wait for the device")
        if torch.Tag.inplace_view in func.tags:  # the tensor itself takes another shape
            with no_dispatch():
                func(*args, **kwargs)
        args, kwargs = tree_unflatten([x.held if isinstance(x, Away) else x for x in flat], spec)
        if "device" in kwargs and away:
            kwargs["device"] = torch.device("cpu")

        def placed(x: Any) -> Any:
            return x if not isinstance(x, Tensor) else known[id(x)] if id(x) in known else Away(x) if away else x

        return tree_map(placed, func(*args, **kwargs))


def _waits(func: Any, args: Any, kwargs: Any, *, known: bool, here: list[Tensor], away: bool) -> bool:
    """Whether the host waits; RuntimeError where operands lie on two devices. `known`: some lie on the device, `here`
    those that do not, `away`: the result will. A copy from the host's own memory waits as well, since torch pins
    none."""
    packet = func.overloadpacket
    if any(_is_away(x.device) for x in here):
        raise RuntimeError(f"{func}: a tensor without numbers")
    if packet in _COPIES:
        return (known and bool(here)) or known != away
    if packet in _INDEXING and known and isinstance(args[0], Away):
        indices = [x for x in args[1] if x is not None]
        return bool(here) or any(x.dtype in (torch.bool, torch.uint8) for x in indices)
    if known and any(x.dim() for x in here):  # a number of the CPU may stand beside tensors of the device
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    sized = packet is _aten.repeat_interleave and kwargs.get("output_size") is None
    return known and (packet in _ASKS or sized)


class _Seeded(torch.Generator):
    """Stands for `torch.Generator`, of which none can be made for a device that is not there."""

    def __new__(cls, device: Any = "cpu") -> _Seeded:
        made = super().__new__(cls)
        made.away = _is_away(device)
        return made


class _Calls(TorchFunctionMode):
    """What can only be seen before torch takes a call apart: whose a generator is, what cuDNN refuses, and numbers of
    Python, which become tensors on the CPU and are copied, as for every device but `meta`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, own = dict(kwargs or {}), bool(args) and isinstance(args[0], Away)
        away = own if kwargs.get("device") is None else _is_away(kwargs["device"])
        generator = kwargs.get("generator")
        if generator is not None and getattr(generator, "away", False) != away:
            raise RuntimeError(f"{func}: a generator of another device")
        if func is torch.gru and own:
            plain = isinstance(args[3], bool)  # no packed sequence
            weights, training = args[2 if plain else 3], args[6 if plain else 7]
            if torch.is_grad_enabled() and any(w.requires_grad for w in weights) and not training:
                raise RuntimeError("cudnn RNN backward can only be called in training mode")
        if func in (torch.tensor, torch.as_tensor) and away and not own:
            return func(*args, **{**kwargs, "device": "cpu"}).to(AWAY)
        if func is Tensor.new_tensor and own:
            return torch.tensor(*args[1:], dtype=kwargs.get("dtype", args[0].dtype)).to(AWAY)
        return func(*args, **kwargs)


def _is_away(device: Any) -> bool:
    return torch.device(device) == AWAY


def watch_loop(
    patch: pytest.MonkeyPatch,
    still: Callable[[], AbstractContextManager[None]],
    waiting: Callable[[], AbstractContextManager[None]],
) -> list[int]:
    """From here on every `Learner.fit` runs its updates inside `still`, from the first gather to the last step, but for
    the reading of figures, inside `waiting`. Gives the updates after which they were read."""
    whole, updates, read, seen = Learner.fit, Learner._updates, Learner._read, list[int]()
    loop = ExitStack()
    begun = list[Learner]()

    def fit(self: Learner, *args: Any) -> Any:
        with loop:
            begun.clear()
            return whole(self, *args)

    def first(self: Learner, *args: Any) -> Any:
        if not begun:
            begun.append(self)
            loop.enter_context(still())
        return updates(self, *args)

    def told(self: Learner, update: int, loss: Tensor) -> Any:
        seen.append(update)
        with waiting():
            return read(self, update, loss)

    for name, changed in (("fit", fit), ("_updates", first), ("_read", told)):
        patch.setattr(Learner, name, changed)
    return seen
