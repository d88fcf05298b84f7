"""Opening a student file, with torch or with NumPy alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from policykd.spine.actions import sizes_of
from policykd.spine.artifact import load_artifact
from policykd.spine.device import resolve_device
from policykd.spine.errors import InputError, brief
from policykd.spine.packing import Packing, packing_from_json
from policykd.spine.types import Array
from policykd.students.encoders import ConvPlan
from policykd.students.nodes import Nodes
from policykd.students.numpy_backend import NumpyGruStudent, NumpyStudent, gru_shapes
from policykd.students.numpy_conv import NumpyConvStudent
from policykd.students.numpy_tree import NumpyTreeStudent

if TYPE_CHECKING:
    from policykd.students.student import Student

_KINDS: dict[str, type[NumpyStudent]] = {
    "mlp": NumpyStudent,
    "gru": NumpyGruStudent,
    "cnn": NumpyConvStudent,
    "multi": NumpyConvStudent,
    "tree": NumpyTreeStudent,
}
_MAX_LAYERS, _MAX_BRANCHES = 1_000, 100_000
_N_MEANS = {"Categorical": "n", "Bernoulli": "n", "DiagGaussian": "dim", "SquashedDiagGaussian": "dim"}


@overload
def load_student(path: str | Path, *, backend: Literal["torch"] = "torch", device: str = "cpu") -> Student: ...
@overload
def load_student(path: str | Path, *, backend: Literal["numpy"], device: str = "cpu") -> NumpyStudent: ...
def load_student(
    path: str | Path, *, backend: Literal["torch", "numpy"] = "torch", device: str = "cpu"
) -> Student | NumpyStudent:
    """The student in `path`, a file or a run folder that holds student.safetensors.

    `backend="numpy"` needs neither torch nor gymnasium. Raises InputError for a file that is not a whole student.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "student.safetensors"
    tensors, document = load_artifact(file)
    _check(file, tensors, document)
    if backend not in ("torch", "numpy"):
        raise InputError(f"backend {backend!r} is not known: expected torch or numpy")
    if backend == "torch":
        device = resolve_device(device)
    try:
        kind = document["architecture"]["kind"]
        plain = _KINDS[kind](tensors, document)
        plain.predict_packed(np.zeros((1, *plain.packing.shape), np.float32), deterministic=True)
        if backend == "numpy":
            return plain

        from policykd.students.conv import ConvStudent
        from policykd.students.gru import GruStudent
        from policykd.students.mlp import MlpStudent
        from policykd.students.tree import TreeStudent

        known: dict[str, type[Student]] = {
            "mlp": MlpStudent,
            "gru": GruStudent,
            "cnn": ConvStudent,
            "multi": ConvStudent,
            "tree": TreeStudent,
        }
        return known[kind].from_artifact(tensors, document, device)
    except (
        InputError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        AssertionError,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__}: {brief(error)}"
        raise InputError(
            f"{file}: header does not describe a student that acts ({reason}); the file is damaged"
        ) from None


def _check(path: Path, tensors: dict[str, Array], document: dict[str, Any]) -> None:
    """Every tensor that the header promises, in its shape, and no other."""
    expected = _expected_shapes(path, document)
    found = {name: value.shape for name, value in tensors.items()}
    for name in expected.keys() | found.keys():
        if expected.get(name) != found.get(name):
            wanted, seen = expected.get(name, "nothing"), found.get(name, "nothing")
            raise InputError(
                f"{path}: tensor {brief(name)} has shape {seen}, its header says {wanted}; the file is damaged"
            )
    whole = "weights" in document["architecture"]
    for name, value in tensors.items():
        wanted = "int8" if whole and name.endswith(".weight") else "float32"
        if value.dtype != wanted:
            raise InputError(
                f"{path}: tensor {brief(name)} is {value.dtype}, its header says {wanted}; the file is damaged"
            )


def _expected_shapes(path: Path, document: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    try:
        architecture, distribution = document["architecture"], document["distribution"]
        kind = architecture["kind"]
        known = isinstance(kind, str) and kind in _KINDS
        if kind == "mlp":
            known = architecture["activation"] in ("tanh", "relu") and architecture.get("weights", "int8") == "int8"
        elif "weights" in architecture:
            known = False
        if not (known and document["action_map"]["kind"]) or not float(architecture["normaliser_limit"]) > 0:
            raise InputError(f"{path}: architecture {brief(kind)} is not known to this version; update policykd")
        family = distribution["type"]
        branches = distribution["nvec"] if family == "MultiCategorical" else [distribution[_N_MEANS[family]]]
        outputs = sum(sizes_of(branches, most=_MAX_BRANCHES))
        packing = packing_from_json(document["observation_space"])
        document["action_space"]
        if not isinstance(document["provenance"], dict):
            raise TypeError(f"provenance is {brief(document['provenance'])}, expected an object")
        if not isinstance(document.get("masked", False), bool):
            raise ValueError(f"masked is {brief(document['masked'])}, expected true or false")
        shapes = _shapes_of(kind, architecture, packing, outputs)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError, IndexError) as error:
        raise InputError(
            f"{path}: header is incomplete ({type(error).__name__}: {brief(error)}); the file is damaged"
        ) from None
    except _Misfit as error:
        raise InputError(f"{path}: {error}; the file is damaged") from None
    if family.endswith("Gaussian"):
        shapes["log_std"] = (outputs,)
    return shapes


class _Misfit(Exception):
    """Sizes that do not fit together, in one line."""


def _shapes_of(kind: str, architecture: dict[str, Any], packing: Packing, outputs: int) -> dict[str, tuple[int, ...]]:
    """Of the normaliser and of every weight and bias."""
    if kind in ("cnn", "multi"):
        plan = ConvPlan.from_json(architecture, packing)
        if plan.kind != kind or plan.outputs != outputs:
            raise _Misfit(f"its layers make a {plan.kind} of {plan.outputs} outputs, expected a {kind} of {outputs}")
        means = (plan.constants,)
        return {"normaliser.mean": means, "normaliser.scale": means, **plan.shapes}
    if kind == "tree":
        return _of_tree(architecture, packing.n_features, outputs)
    layers = _gru_ends(architecture) if kind == "gru" else [_pair(s) for s in architecture["layers"][:_MAX_LAYERS]]
    n_inputs = packing.n_features
    chained = all(a[1] == b[0] for a, b in pairwise(layers))
    if not layers or not chained or (layers[0][0], layers[-1][1]) != (n_inputs, outputs):
        raise _Misfit(
            f"layers {brief(layers)} do not fit together, or not to {brief(n_inputs)} inputs and {outputs} outputs"
        )
    shapes: dict[str, tuple[int, ...]] = {"normaliser.mean": (n_inputs,), "normaliser.scale": (n_inputs,)}
    if kind == "gru":
        return shapes | gru_shapes(n_inputs, layers[0][1], outputs)
    for k, (i, o) in enumerate(layers):
        shapes[f"layers.{k}.weight"], shapes[f"layers.{k}.bias"] = (i, o), (o,)
        if "weights" in architecture:
            shapes[f"layers.{k}.scale"] = (o,)
    return shapes


def _of_tree(architecture: dict[str, Any], n_inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Whether the arrays are a tree is checked where they are read."""
    inputs, leaves, theirs = sizes_of([architecture[name] for name in ("inputs", "leaves", "outputs")])
    if (inputs, theirs) != (n_inputs, outputs) or leaves < 1:
        raise _Misfit(f"a tree of {inputs} inputs and {theirs} outputs does not fit to {n_inputs} and {outputs}")
    normaliser = {"normaliser.mean": (n_inputs,), "normaliser.scale": (n_inputs,)}
    return {**normaliser, **Nodes.shapes(leaves, outputs)}


def _gru_ends(architecture: dict[str, Any]) -> list[tuple[int, int]]:
    """(inputs, hidden), (hidden, outputs)."""
    inputs, hidden, outputs = sizes_of([architecture[name] for name in ("inputs", "hidden", "outputs")])
    return [(inputs, hidden), (hidden, outputs)]


def _pair(sizes: Any) -> tuple[int, int]:
    """(inputs, outputs) of a layer."""
    inputs, outputs = sizes_of(sizes)
    return inputs, outputs
