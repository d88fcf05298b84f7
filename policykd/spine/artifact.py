"""A student file: one safetensors file whose header holds one JSON document. NumPy only; no times, no paths.

The document's first key is `format`. Reading is safe: safetensors holds no code, sizes are checked by the library,
and the document is plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.spine.errors import InputError, brief
from policykd.spine.files import write_atomic

FORMAT = 1
_KEY = "policykd"
_MAX_HEADER = 1 << 22
_MAX_FILE = 1 << 27  # 32 million weights; reading takes four times as much memory


def save_artifact(path: Path, tensors: Mapping[str, NDArray[Any]], document: dict[str, Any]) -> int:
    """Writes the file atomically and returns its size in bytes. Equal content gives equal bytes."""
    from safetensors.numpy import save

    text = json.dumps({"format": FORMAT, **document}, sort_keys=True, allow_nan=False)
    data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, {_KEY: text})
    write_atomic(path, data)
    return len(data)


def load_artifact(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and document; InputError, in one line, for anything that is not a finite student file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = _read(path)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({brief(error)}); give a student.safetensors made by policykd"
        ) from None
    document = _document(path, data)
    for name, value in tensors.items():
        if value.dtype != np.int8 and (value.dtype != np.float32 or not np.isfinite(value).all()):
            raise InputError(
                f"{path}: tensor {brief(name)} is not finite float32, or int8; the file is damaged, save the student "
                "again"
            )
    return tensors, document


def read_header(path: Path) -> dict[str, Any]:
    """The document alone."""
    return load_artifact(path)[1]


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a student.safetensors made by policykd")
    size = path.stat().st_size
    if size > _MAX_FILE:
        raise InputError(f"{path}: {size} bytes, expected at most {_MAX_FILE}; not a policykd student")
    return path.read_bytes()


def _document(path: Path, data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if length > _MAX_HEADER:
        raise InputError(f"{path}: header of {length} bytes, expected at most {_MAX_HEADER}; not a policykd student")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__")
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if text is None:
        raise InputError(
            f"{path}: safetensors file without a {_KEY} header; give a student.safetensors made by policykd"
        )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: header {_KEY} is not JSON ({brief(error)}); the file is damaged") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise InputError(
            f"{path}: format {brief(found)}, this version reads {FORMAT}; use the policykd that wrote the file"
        )
    return document
