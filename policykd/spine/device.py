"""Where tensors live. Torch is imported only here and when asked."""

from __future__ import annotations

from policykd.spine.errors import InputError


def resolve_device(name: str) -> str:
    """`auto` is CUDA when present; InputError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise InputError(
            f"device {name!r}: PyTorch finds {torch.cuda.device_count()} CUDA devices here; use auto or cpu"
        )
    return name
