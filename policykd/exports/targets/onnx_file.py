"""`onnx`: one file, policy.onnx, of any opset from 11 to 21; replayed by ONNX Runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from policykd.exports.graph import Array, Feed, Graph, Tree
from policykd.exports.interface import MASK, NOISE, START, STATE_IN, Interface, Runtime
from policykd.exports.onnx_graph import model_of
from policykd.exports.targets.table import Options
from policykd.exports.tree_products import refuse_trees
from policykd.spine.errors import InputError, brief
from policykd.spine.files import write_atomic

RUNS_CODE = False
EXAMPLE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}.onnx")
feeds = {}  # raw observations, in batches, by the names of the inputs
for value in session.get_inputs():
    dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}[value.type]
    feeds[value.name] = np.ones([1, *value.shape[1:]], dtype)
print(session.run(["action"], feeds)[0])  # in the units of the environment
"""
EXAMPLE_WITH_STATE = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{name}.onnx")
feeds = {}  # raw observations, in batches, by the names of the inputs
for value in session.get_inputs():
    dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}[value.type]
    feeds[value.name] = np.ones([1, *value.shape[1:]], dtype)  # episode_start: nothing is known from before
for step in range(3):
    action, feeds["state_in"] = session.run(["action", "state_out"], feeds)
    feeds["episode_start"] = np.zeros(1, np.bool_)  # True again where an episode begins
    print(action)  # in the units of the environment
"""
FILE = "policy.onnx"
OPSETS = range(11, 22)
_MAX_BYTES = 256 * 2**20
_MOST_BRANCHES = 900  # two nodes each; readers of ONNX files, ours included, stop at some number of nodes
_ROWS = 256  # observations that are run at once; sizes are checked for so many


def check(graph: Graph, options: Options) -> None:
    """InputError without the packages, for an opset out of range, and for what ONNX cannot hold."""
    _require_packages()
    if options.opset not in OPSETS:
        raise InputError(f"opset {options.opset}: expected {OPSETS[0]} to {OPSETS[-1]}")
    for port in graph.ports:
        if not port.name or not port.size:
            raise InputError(
                f"onnx: the observation's entry {brief(port.name)!r} has no name or no numbers, which inputs need: "
                "leave it out of the environment's observations, or rename it"
            )
    refuse_trees(graph, "onnx", least=2)
    branches = graph.head.branches
    if len(set(branches)) > 1 and len(branches) > _MOST_BRANCHES:
        raise InputError(f"onnx: {len(branches)} choices of several sizes, expected at most {_MOST_BRANCHES}")
    low, high = (np.asarray(bound, np.float32) for bound in (graph.action.low, graph.action.high))
    with np.errstate(over="ignore", invalid="ignore"):
        if graph.action.kind == "unscale" and not np.isfinite(high - low).all():
            raise InputError("onnx: the action's bounds are too far apart for float32: give the Box finite ones")


def write(graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
    """policy.onnx, read again and checked. Facts: `opset`, `ir_version`."""
    import onnx

    try:
        model = model_of(graph, options.opset, options.metadata)
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata: cannot be written as JSON ({brief(error)}): use numbers and texts") from None
    path = folder / FILE
    write_atomic(path, model.SerializeToString(deterministic=True))
    found = onnx.load(path)
    onnx.checker.check_model(found, full_check=True)
    if [(entry.domain, entry.version) for entry in found.opset_import] != [("", options.opset)]:
        raise InputError(f"{path}: was written with another opset than {options.opset}: choose another one")
    return {
        "files": [FILE],
        "inside": _inside(graph),
        "outside": ["drawing the noise"] * graph.stochastic + ["carrying the state"] * bool(graph.state_size),
        "bytes": path.stat().st_size,
        "opset": options.opset,
        "ir_version": found.ir_version,
    }


def load(folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
    """policy.onnx in ONNX Runtime, on the CPU with one thread, after the checks that ONNX teachers pass."""
    del facts
    _require_packages()
    from policykd.teachers.onnxio.session import open_session
    from policykd.teachers.onnxio.wire import UnsafeError

    path = folder / FILE
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); export again") from None
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: is larger than {_MAX_BYTES // 2**20} MB, expected a policy; export again")
    try:
        _check_safe(data, interface)
    except UnsafeError as error:
        raise InputError(f"{path}: {error}; export again") from error
    return OnnxRuntime(open_session(data, str(path)), interface, str(path))


@dataclass(frozen=True)
class OnnxRuntime:
    """The session, fed by the names of the interface."""

    session: Any
    interface: Interface
    name: str

    def __call__(self, feed: Feed) -> dict[str, Array]:
        """`action` [B, *action shape], each output of the distribution [B, M] and the next state [B, H]."""
        rows = [self._run(feed.rows(slice(at, at + _ROWS))) for at in range(0, max(len(feed), 1), _ROWS)]
        return {key: np.concatenate([part[key] for part in rows]) for key in rows[0]}

    def _run(self, feed: Feed) -> dict[str, Array]:
        parts = zip(self.interface.ports, feed.observations, strict=True)
        feeds = {port.name: np.asarray(part, np.int64 if port.nvec else np.float32) for port, part in parts}
        if self.interface.mask_size:
            feeds[MASK] = np.asarray(feed.mask, np.bool_)
        if self.interface.noise_size:
            feeds[NOISE] = np.asarray(feed.noise, np.float32)
        if self.interface.state_size:
            nothing, n = np.zeros((len(feed), self.interface.state_size), np.float32), len(feed)
            feeds[STATE_IN] = nothing if feed.state is None else np.asarray(feed.state, np.float32)
            feeds[START] = np.zeros(n, np.bool_) if feed.start is None else np.asarray(feed.start, np.bool_)
        names = list(self.interface.outputs)
        try:
            found = self.session.run(names, {key: np.ascontiguousarray(value) for key, value in feeds.items()})
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise InputError(f"{self.name}: ONNX Runtime cannot run it ({brief(error)}); export again") from error
        return dict(zip(names, found, strict=True))


def _check_safe(data: bytes, interface: Interface) -> None:
    """UnsafeError unless the bytes are plain arithmetic with the interface's inputs and outputs, of known sizes."""
    import onnx

    from policykd.teachers.onnxio.graph import check_graph
    from policykd.teachers.onnxio.sizes import measure, validate
    from policykd.teachers.onnxio.wire import UnsafeError, walk

    walk(data)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # the DecodeError of protobuf, a package that comes with onnx
        raise UnsafeError("is no ONNX file, or is damaged") from error
    check_graph(model)
    validate(model)
    expected = {port.name: port.shape for port in interface.ports}
    expected |= {MASK: (interface.mask_size,)} if interface.mask_size else {}
    expected |= {NOISE: (interface.noise_size,)} if interface.noise_size else {}
    expected |= {STATE_IN: (interface.state_size,), START: ()} if interface.state_size else {}
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if inputs != list(expected) or outputs != list(interface.outputs):
        found = brief(", ".join([*inputs, "to", *outputs]))
        raise UnsafeError(
            f"goes from {found}, but the manifest from {', '.join(expected)} to {', '.join(interface.outputs)}"
        )
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for size in (_ROWS, *expected[value.name]):
            shape.dim.add().dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    measure(model, inputs[0], expected[inputs[0]], (_ROWS,))


def _require_packages() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"onnx: needs {' and '.join(missing)}, not installed: pip install 'policykd[onnx]'")


def _inside(graph: Graph) -> list[str]:
    action = graph.action
    bounded = action.kind == "clip" and any(map(math.isfinite, (*action.low, *action.high)))
    facts = {
        "normaliser": not any(isinstance(layer, Tree) for layer in graph.layers),
        "one-hot choices": any(port.nvec for port in graph.ports),
        "squash": graph.head.squash,
        "scale to the action bounds": action.kind == "unscale",
        "clip to the bounds": bounded,
        "action mask": graph.masked,
        "noise": graph.stochastic,
    }
    return [fact for fact, held in facts.items() if held]
