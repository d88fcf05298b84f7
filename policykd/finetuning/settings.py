"""The words of the command line: a student, and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.load import load_config
from policykd.spine.config.schema import Config


def settings_of(source: str | None, words: Sequence[str], options: Mapping[str, Any]) -> tuple[str | None, Config]:
    """The student, where the first word is one (and no `key.sub=value`), and the configuration of the rest."""
    timesteps = options.get("timesteps")  # of this command; elsewhere the option means those of the rollouts
    own = [] if timesteps is None else [f"finetune.timesteps={timesteps}"]
    options = {name: value for name, value in options.items() if name != "timesteps"}
    named = bool(words) and ("=" not in words[0] or Path(words[0]).exists())
    config = load_config(source, [*(words[1:] if named else words), *own], options)
    whole = config if config.finetune is not None else config.model_copy(update={"finetune": FinetuneConfig()})
    return (words[0] if named else None), whole
