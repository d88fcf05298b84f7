"""What `finetune` adds to a configuration that does not speak of it."""

from __future__ import annotations

from policykd.spine.config.finetune import FinetuneConfig
from policykd.spine.config.schema import Config


def with_finetune(config: Config) -> Config:
    """The configuration, with the defaults of `finetune` where it says nothing about it."""
    return config if config.finetune is not None else config.model_copy(update={"finetune": FinetuneConfig()})
