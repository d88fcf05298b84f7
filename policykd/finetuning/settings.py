"""What `finetune` adds to a configuration that does not speak of it, and what it has no use for."""

from __future__ import annotations

from pydantic import BaseModel

from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.schema import Config
from policykd.spine.config.student import StudentConfig
from policykd.spine.errors import InputError

_OF_DISTILL = ("compress", "loss", "rollout", "data", "update", "augment", "aside", "tasks", "progressive")
_USED = {"loss.q_temperature"}  # a teacher of Q-values has a distribution by it
_OF_PPO = ("proximal", "n_envs", "n_steps", "n_epochs", "gae_lambda", "clip_range", "target_kl", "entropy")


def with_finetune(config: Config) -> Config:
    """The configuration, with the defaults of `finetune` where it says nothing about it."""
    return config if config.finetune is not None else config.model_copy(update={"finetune": FinetuneConfig()})


def refuse_unused(config: Config, source: str | None) -> None:
    """InputError for what the user gave, and fine-tuning has no use for; `source`: the student that goes on, whose
    architecture stays."""
    defaults = Config()
    changed = [name for part in _OF_DISTILL for name in _changed(part, getattr(config, part), getattr(defaults, part))]
    _refuse([name for name in changed if name not in _USED], "policykd finetune, which learns by PPO or SAC")
    if config.robust.collect:
        raise InputError("robust.collect: policykd finetune of this version learns undisturbed: leave it out")
    if config.student.start is not None:
        raise InputError("student.start: a setting of policykd distill, of no use to finetune: leave it out")
    if source is not None:
        _refuse(_changed("student", config.student, StudentConfig()), f"{source}, which keeps its architecture")


def refuse_of_ppo(settings: FinetuneConfig, learner: str) -> None:
    """InputError for settings of PPO alone, where `learner` is what learns."""
    defaults = FinetuneConfig()
    changed = [name for name in _OF_PPO if getattr(settings, name) != getattr(defaults, name)]
    _refuse([f"finetune.{name}" for name in changed], learner)


def _refuse(names: list[str], whom: str) -> None:
    if names:
        raise InputError(f"{', '.join(names)}: of no use to {whom}: leave {'it' if len(names) == 1 else 'them'} out")


def _changed(name: str, given: object, default: object) -> list[str]:
    """The keys, from `name` on, whose values are not the defaults."""
    if not (isinstance(given, BaseModel) and isinstance(default, BaseModel)):
        return [] if given == default else [name]
    fields = type(given).model_fields
    return [
        found
        for field in fields
        for found in _changed(f"{name}.{field}", getattr(given, field), getattr(default, field))
    ]
