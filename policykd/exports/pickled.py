"""The one module of EXPORT that writes archives with pickles inside: for `torch.export` and stable-baselines3, which
have no other format. Nothing here reads one; `tests/house` holds both."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from policykd.learn.train.archive import portable_zip
from policykd.spine.files import write_atomic

_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
_PROTOCOL = 4  # what VecNormalize.load of every Python that stable-baselines3 runs on can read


def write_program(path: Path, program: Any) -> int:
    """A `torch.export.ExportedProgram` as a .pt2 archive; how many bytes. Where its nodes came from (paths of files and
    lines of this package) is left out, so that equal programs give equal bytes."""
    import torch

    for node in program.graph.nodes:
        for key in _ORIGINS:
            node.meta.pop(key, None)

    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return _write(path, buffer.getvalue())


def write_model(path: Path, model: Any) -> int:
    """A model of stable-baselines3 as the zip that its `load` opens; how many bytes. Equal models give equal bytes."""
    return _write(path, portable_zip(model))


def write_statistics(path: Path, normalize: Any) -> int:
    """A VecNormalize as the file that `VecNormalize.load` opens; how many bytes."""
    return _write(path, pickle.dumps(normalize, protocol=_PROTOCOL))


def _write(path: Path, data: bytes) -> int:
    write_atomic(path, data)
    return len(data)
