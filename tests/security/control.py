"""The control: the same gadgets under the same hook, opened by the loaders that SB3, torch and PyYAML have. They run."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.security.child import Watch
from tests.security.entry import base, unzipped
from tests.security.pickles import GADGETS, MARKER, pickled, smuggled
from tests.security.texts import TAGS
from tests.security.weights import state_dict
from tests.security.zips import content_of, fields, weights_pickle, with_weights


def _loaders(folder: Path) -> dict[str, Callable[[bytes], Any]]:
    import torch
    import yaml
    from gymnasium import spaces
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    from tests.support.teachers import Spaces, box

    venv = DummyVecEnv([lambda: Spaces(box(4), spaces.Discrete(3))])

    def model(raw: bytes) -> Any:
        (folder / "model.zip").write_bytes(raw)
        return PPO.load(folder / "model.zip", device="cpu")

    def statistics(raw: bytes) -> Any:
        (folder / "s.pkl").write_bytes(raw)
        return VecNormalize.load(str(folder / "s.pkl"), venv)

    def weights(raw: bytes) -> Any:
        return torch.load(io.BytesIO(unzipped(raw)["policy.pth"]), weights_only=False)

    return {
        "PPO.load": model,
        "VecNormalize.load": statistics,
        "torch.load": weights,
        "yaml.unsafe_load": yaml.unsafe_load,
    }


def _inputs() -> Iterator[tuple[str, str, bytes]]:
    """(loader, gadget, input)"""
    for entry in fields():
        kind, _, rest = entry.name.partition(", ")
        if kind == "ppo" and rest.endswith(" in all fields"):
            raw = entry.files["model.zip"]
            assert isinstance(raw, bytes)
            yield "PPO.load", rest.removesuffix(" in all fields"), raw
    for label, gadget in GADGETS.items():
        yield "VecNormalize.load", label, smuggled(gadget, base("vecnormalize.pkl"))
        yield "VecNormalize.load", label, pickled(gadget)
        yield (
            "torch.load",
            label,
            with_weights(content_of("ppo"), pickle=smuggled(gadget, weights_pickle(content_of("ppo")))),
        )
        yield "torch.load", label, with_weights(content_of("ppo"), pickle=state_dict(more=gadget))
    for label, tag in TAGS.items():
        yield "yaml.unsafe_load", label, f"a: {tag}".encode()
    yield "yaml.unsafe_load", "open", f"a: {TAGS['open']}".encode()


def control(folder: Path) -> None:
    """Prints a line of JSON for each input: loader, gadget, and the events that it caused."""
    os.chdir(folder)
    loaders = _loaders(folder)
    loaders["PPO.load"](base("ppo.zip"))
    loaders["VecNormalize.load"](base("vecnormalize.pkl"))
    loaders["torch.load"](base("ppo.zip"))
    loaders["yaml.unsafe_load"](b"a: 1")
    for loader, gadget, raw in _inputs():
        (folder / MARKER).unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            _one(loaders[loader], loader, gadget, raw)
        os.waitpid(pid, 0)


def _one(load: Callable[[bytes], Any], loader: str, gadget: str, raw: bytes) -> None:
    import sys
    import warnings

    warnings.simplefilter("ignore")
    watch, error = Watch(), ""
    sys.addaudithook(watch)
    watch.folder = "/nowhere"
    try:
        load(raw)
    except BaseException as caught:
        error = type(caught).__name__
    watch.folder = ""
    result = {"loader": loader, "gadget": gadget, "error": error, "events": watch.events[:400]}
    os.write(1, (json.dumps(result) + "\n").encode())
    os._exit(0)
