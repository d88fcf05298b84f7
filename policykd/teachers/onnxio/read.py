"""`read_onnx`: from an ONNX file and its YAML to a teacher. Nothing in the file is run before it is checked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policykd.spine.errors import InputError, brief
from policykd.spine.types import TeacherInfo
from policykd.teachers.base import Interface, Teacher
from policykd.teachers.onnxio.card import MAX_ENTRIES, Card, action_space, observation_box, read_card
from policykd.teachers.onnxio.graph import DTYPES, check_graph, quoted
from policykd.teachers.onnxio.rows import check_rows
from policykd.teachers.onnxio.session import OnnxRun, open_session
from policykd.teachers.onnxio.sizes import Sized, cost_of, measure, set_shape, validate
from policykd.teachers.onnxio.wire import UnsafeError, walk
from policykd.teachers.stated import Stated, meaning_of

if TYPE_CHECKING:
    from gymnasium import Space

    from policykd.teachers.load import Request

MAX_BYTES = 32 * 2**20
_ROWS = (1, 4, 16, 64, 256)  # observations that may be run at once; sizes are checked for each
_REMEDY = "export the policy again, its weights inside the file"


@dataclass(frozen=True)
class _Graph:
    """A checked model with a fixed input. `rows`: observations at once, 1 where the file says so."""

    model: Any
    sized: Sized
    input: str
    dtype: np.dtype[Any]
    observation_space: Space[Any]


def read_onnx(path: Path, request: Request) -> Teacher:
    """The teacher in the ONNX file `path`. InputError, in one line, for a file or card that is missing, damaged, unsafe
    or does not fit; ConfigError with one line for each wrong key of the card."""
    _require_packages(path)
    card, where = read_card(path)
    _check_statistics(card, where, request)
    actions = action_space(card, where)
    meaning = meaning_of(actions, card.stated, card.kind, card.unscale, where)
    data = _read(path)
    try:
        graph = _checked(data, card, where)
        widths = _widths(graph, card)
    except UnsafeError as error:
        raise InputError(f"{path}: {error}; {_REMEDY}") from error
    if sum(widths) != meaning.n_outputs:
        named, found = ", ".join(map(quoted, card.names)), " + ".join(map(str, widths))
        raise InputError(
            f"{path}: its outputs {named} have {found} entries, but {brief(meaning.distribution)} needs "
            f"{meaning.n_outputs}: correct action_space or outputs in {where}"
        )
    sha256 = hashlib.sha256(data).hexdigest()
    run = OnnxRun(
        session=open_session(_runnable(graph), str(path)),
        name=str(path),
        input=graph.input,
        dtype=graph.dtype,
        outputs=card.names,
        widths=widths,
        rows=graph.sized.rows,
        device=torch.device("cpu"),
    )
    check_rows(run, graph.observation_space)
    identity = f"{sha256} {json.dumps(card.model_dump(mode='json'), sort_keys=True)}"
    forward = Stated(run, meaning, str(path), identity)
    info = _info(graph, card, request, sha256)
    teacher = Teacher(forward, Interface(graph.observation_space, actions), info, request.statistics.normalizer)
    teacher.distribution_params(torch.zeros(1, *graph.observation_space.shape or ()))
    return teacher


def _require_packages(path: Path) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"{path}: needs {' and '.join(missing)}, not installed: pip install 'policykd[onnx]'")


def _check_statistics(card: Card, where: str, request: Request) -> None:
    given = request.statistics.given
    if card.normalised_inside and request.statistics.normalizer is not None:
        raise InputError(
            f"{where}: normalised_inside is true, but statistics are given, which would be applied as well: leave "
            "vec_normalize out, or say normalised_inside: false"
        )
    if not card.normalised_inside and not given:
        raise InputError(f"{where}: normalised_inside is false: give the statistics as vec_normalize")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected an ONNX file; {_REMEDY}") from error
    if not 0 < len(data) <= MAX_BYTES:
        size = f"larger than {MAX_BYTES // 2**20} MB" if data else "empty"
        raise InputError(f"{path}: is {size}, expected an ONNX file; {_REMEDY}")
    return data


def _checked(data: bytes, card: Card, where: str) -> _Graph:
    """The model, parsed and checked. What only describes (inner sizes, texts) is taken out and not believed."""
    import onnx

    walk(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the DecodeError of protobuf, a package that comes with onnx
        raise UnsafeError("is no ONNX file, or is damaged") from error
    check_graph(model)
    validate(model)
    del model.metadata_props[:]
    del model.graph.value_info[:]
    stated = observation_box(card, where)
    value = _input(model.graph, card)
    batch, shape = _input_shape(value, stated)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    sized = measure(model, value.name, shape, _ROWS if batch is None else (1,))
    set_shape(value, (batch, *shape))
    dtype = DTYPES[value.type.tensor_type.elem_type]
    return _Graph(model, sized, value.name, dtype, _observations(stated, shape, dtype))


def _input(graph: Any, card: Card) -> Any:
    weights = {tensor.name for tensor in graph.initializer}
    values = {value.name: value for value in graph.input if value.name not in weights}
    if card.input is not None and card.input not in values:
        listed = ", ".join(map(quoted, list(values)[:8])) or "none"
        raise UnsafeError(f"has no input {quoted(card.input)} (the card's), but {listed}")
    if len(values) != 1:
        raise UnsafeError(f"has {len(values)} inputs, expected one, for observations")
    (value,) = values.values()
    kind = value.type.tensor_type.elem_type
    if kind not in DTYPES or DTYPES[kind] == np.bool_:
        raise UnsafeError(f"takes observations of element type {kind}, expected floats or integers")
    return value


def _input_shape(value: Any, stated: Space[Any] | None) -> tuple[int | None, tuple[int, ...]]:
    """The batch (None: free, or 1), and the shape of one observation."""
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
    if not dims or dims[0] not in (None, 1):
        found = f"fixed at {dims[0]}" if dims else "missing"
        raise UnsafeError(f"takes a batch that is {found}, expected a free first dimension or 1")
    shape = tuple(dims[1:])
    if stated is not None:
        wanted = stated.shape or ()
        if len(shape) != len(wanted) or any(have not in (None, want) for have, want in zip(shape, wanted, strict=True)):
            raise UnsafeError(f"takes observations of shape {str(shape)[:80]}, but observation_space says {wanted}")
        return dims[0], wanted
    known = tuple(dim for dim in shape if dim is not None)
    if len(known) < len(shape):
        raise UnsafeError("takes observations of a size that it does not say: add observation_space to its YAML")
    if any(dim < 1 for dim in known) or np.prod(known, dtype=np.float64) > MAX_ENTRIES or len(known) > 8:
        raise UnsafeError(f"takes observations of shape {str(known)[:80]}, expected at most {MAX_ENTRIES} entries")
    return dims[0], known


def _widths(graph: _Graph, card: Card) -> tuple[int, ...]:
    """Entries of each output that the card names: [B, n], or, for log_std only, one [n] for all observations."""
    made = {value.name for value in graph.model.graph.output}
    rows, widths = graph.sized.rows, []
    for name in card.names:
        if name not in made:
            listed = ", ".join(map(quoted, sorted(made)[:8]))
            raise UnsafeError(f"has no output {quoted(name)} (the card's), but {listed}")
        shape = graph.sized.shapes[name]
        constant = name == card.outputs.log_std and shape[:-1] in ((), (1,))
        if not shape or not (constant or (len(shape) == 2 and shape[0] == rows)):
            raise UnsafeError(f"gives {quoted(name)} of shape {shape} for {rows} observations, expected [{rows}, n]")
        widths.append(shape[-1])
    if 0 in widths:
        raise UnsafeError("has an output without entries")
    return tuple(widths)


def _runnable(graph: _Graph) -> bytes:
    data: bytes = graph.model.SerializeToString()
    return data


def _observations(stated: Space[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Space[Any]:
    """The stated space, or all numbers of the shape; for a file that takes bytes, as environments give images."""
    from gymnasium import spaces

    if dtype == np.uint8:
        low, high = (0, 255) if stated is None else (np.clip(bound, 0, 255) for bound in (stated.low, stated.high))  # type: ignore[attr-defined]
        return spaces.Box(low, high, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32) if stated is None else stated


def _info(graph: _Graph, card: Card, request: Request, sha256: str) -> TeacherInfo:
    loops = ("its batch is fixed at 1, so observations are run one by one",) if graph.sized.rows == 1 else ()
    origin = request.origin(sha256, card.env, {}, loops)
    cost = cost_of(graph.model.graph, graph.sized, {card.names[0]})
    normalizer = request.statistics.normalizer
    constants = normalizer.constants if normalizer is not None else 0
    footprint = type(cost.footprint)(cost.footprint.params, constants, cost.footprint.macs)
    return TeacherInfo(
        source=origin.source,
        sha256=sha256,
        algo="onnx",
        env_id=origin.env_id,
        trained_on=origin.trained_on,
        layers=cost.layers,
        activation=cost.activation,
        normalised=normalizer is not None,
        gsde=False,
        footprint=footprint,
        versions={"onnx operator set": str(graph.model.opset_import[0].version)},
        notes=origin.notes,
    )
