"""policykd: distil a trained reinforcement-learning policy into the smallest policy that still does the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from policykd.api import (
        Run,
        distill,
        evaluate,
        export,
        inspect,
        load_teacher,
        play,
        rank,
        resume,
        shrink,
        train_teacher,
        verify,
    )
    from policykd.spine.config.load import load_config, load_train_config
    from policykd.spine.config.schema import Config, TrainConfig
    from policykd.spine.errors import ConfigError, InputError, Interrupted, NumericsError, PolicykdError
    from policykd.students.load import load_student
    from policykd.studies import collect, resume_collection, tune
    from policykd.teachers.custom import make_custom_teacher

_HOMES = {
    "policykd.api": (
        *("Run", "distill", "evaluate", "export", "inspect", "load_teacher", "play", "rank", "resume", "train_teacher"),
        *("shrink", "verify"),
    ),
    "policykd.studies": ("collect", "resume_collection", "tune"),
    "policykd.spine.config.load": ("load_config", "load_train_config"),
    "policykd.spine.config.schema": ("Config", "TrainConfig"),
    "policykd.spine.errors": ("ConfigError", "InputError", "Interrupted", "NumericsError", "PolicykdError"),
    "policykd.students.load": ("load_student",),
    "policykd.teachers.custom": ("make_custom_teacher",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "Config",
    "ConfigError",
    "InputError",
    "Interrupted",
    "NumericsError",
    "PolicykdError",
    "Run",
    "TrainConfig",
    "collect",
    "distill",
    "evaluate",
    "export",
    "inspect",
    "load_config",
    "load_student",
    "load_teacher",
    "load_train_config",
    "make_custom_teacher",
    "play",
    "rank",
    "resume",
    "resume_collection",
    "shrink",
    "train_teacher",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Loads a public name on first use, so that `import policykd` needs neither torch nor gymnasium."""
    if name not in _HOME:
        raise AttributeError(f"module 'policykd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
