"""The one place of EXPORT where archives with pickles inside are opened, which runs what they hold: only those that
this process has just written, or that the user names with --trust (`RUNS_CODE` of the targets says so)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError, brief

ALGORITHMS = ("PPO", "SAC", "MaskablePPO")


def load_program(path: Path) -> Any:
    """The `torch.export.ExportedProgram` in a .pt2 file; InputError where torch cannot open it."""
    import torch

    try:
        return torch.export.load(str(path))
    except Exception as error:
        raise _unreadable(path, "torch.export.load", error) from error


def load_model(path: Path, algorithm: object) -> Any:
    """The model in a zip of stable-baselines3; InputError where its `load` cannot open it."""
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InputError(f"{path}: algorithm {brief(algorithm)} is not known: expected one of {', '.join(ALGORITHMS)}")
    import sb3_contrib
    import stable_baselines3

    kind = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    try:
        return kind.load(path, device="cpu")
    except Exception as error:
        raise _unreadable(path, f"{algorithm}.load", error) from error


def load_statistics(path: Path, venv: Any) -> Any:
    """The VecNormalize in a pickle, around `venv`; InputError where its `load` cannot open it."""
    from stable_baselines3.common.vec_env import VecNormalize

    try:
        return VecNormalize.load(str(path), venv)
    except Exception as error:
        raise _unreadable(path, "VecNormalize.load", error) from error


def _unreadable(path: Path, loader: str, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {brief(error)}"
    return InputError(f"{path}: {loader} cannot open it ({reason}); export the student again")
