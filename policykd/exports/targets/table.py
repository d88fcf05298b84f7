"""Which targets there are. A new one is one module and one line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from policykd.exports.graph import Graph
from policykd.exports.interface import Interface, Runtime
from policykd.spine.errors import InputError

TARGETS = {
    "onnx": "onnx_file",
    "c": "c99",
    "torch": "torch_program",
    "sb3": "sb3_zip",
    "json": "rules_json",
}


@dataclass(frozen=True)
class Options:
    """What the user may choose for a target: `opset` of ONNX; `metadata` goes into files that have room for it."""

    opset: int = 17
    metadata: dict[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """A module of `policykd.exports.targets`."""

    RUNS_CODE: bool
    """Whether opening its files runs what they hold (compiled code, pickles)."""
    EXAMPLE: str
    """How to load it on the target, in ten lines of that target's language; the card fills in {name}, the file's stem,
    {env}, and facts of the target."""

    def check(self, graph: Graph, options: Options) -> None:
        """InputError, in one line, for a student that the target cannot hold or options that it does not have."""
        ...

    def write(self, graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
        """Writes the target's files into `folder`; returns facts for the manifest: {"files": [...], "inside": [...],
        "outside": [...], "bytes": ..., and what the target alone knows}."""
        ...

    def load(self, folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
        """The files on their real runtime; `facts` are those of `write`. InputError where the runtime is missing or
        cannot open them."""
        ...


def target(name: str) -> Target:
    """The target of that name; InputError for another."""
    if name not in TARGETS:
        raise InputError(f"--to {name}: no such target, expected one of {', '.join(TARGETS)}, joined by commas")
    module: object = importlib.import_module(f"policykd.exports.targets.{TARGETS[name]}")
    return cast("Target", module)
