"""Target `torch`: `policy.pt2`, a program of torch.export with a batch of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from policykd.exports.graph import Array, Feed, Graph
from policykd.exports.interface import MASK, NOISE, START, STATE_IN, Interface, Runtime, interface_of
from policykd.exports.module import GraphModule, input_dtype, inputs_of, named
from policykd.exports.pickled import write_program
from policykd.exports.targets.table import Options
from policykd.exports.tree_products import refuse_trees
from policykd.exports.trusted_loads import load_program
from policykd.spine.errors import InputError, brief

RUNS_CODE = True  # a .pt2 archive may hold pickles, and torch opens them
FILE = "policy.pt2"
EXAMPLE = """\
import torch

policy = torch.export.load("{name}.pt2").module()
# raw units, [batch, ...]: one tensor for each input, in the manifest's order
action, *others = policy({call})
print(action)  # in the environment's units
"""
EXAMPLE_WITH_STATE = """\
import torch

policy = torch.export.load("{name}.pt2").module()
# raw units, [batch, ...]: one tensor for each input, in the manifest's order, then state_in and episode_start
inputs = [{call}]
for step in range(3):
    action, *others, state = policy(*inputs)
    inputs[-2:] = [state, torch.zeros(1, dtype=torch.bool)]  # True again where an episode begins
    print(action)  # in the environment's units
"""
_BATCH = 2  # of the example; torch.export takes 1 for a constant


def check(graph: Graph, options: Options) -> None:
    """Any graph can be a program, but for trees whose products would be too large."""
    refuse_trees(graph, "torch")


def write(graph: Graph, folder: Path, options: Options) -> dict[str, Any]:
    """`policy.pt2`; facts: inputs and outputs in their order, with dtypes and shapes (`null`: the batch)."""
    contract = interface_of(graph)
    module = GraphModule(graph).eval()
    example = inputs_of(contract, _example(contract))
    with torch.no_grad():
        outputs = module(*example)
        batch = torch.export.Dim("batch")
        shapes = (tuple({0: batch} for _ in example),)
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    size = write_program(folder / FILE, program)
    extra = [name for name, n in ((MASK, contract.mask_size), (NOISE, contract.noise_size)) if n]
    names = [*(port.name for port in contract.ports), *extra, *([STATE_IN, START] if contract.state_size else [])]
    return {
        "files": [FILE],
        "inside": ["normaliser", "network", "action"],
        "outside": ["carrying the state"] if graph.state_size else [],
        "bytes": size,
        "inputs": [_described(name, tensor) for name, tensor in zip(names, example, strict=True)],
        "outputs": [_described(name, tensor) for name, tensor in zip(contract.outputs, outputs, strict=True)],
        "call": ", ".join(f"torch.ones({[1, *x.shape[1:]]}, dtype={x.dtype})" for x in example),
        "torch": torch.__version__.partition("+")[0],
    }


def load(folder: Path, interface: Interface, facts: dict[str, Any]) -> Runtime:
    """The program on torch; InputError where torch cannot open it."""
    return Program(load_program(folder / FILE).module(), interface)


class Program:
    """A loaded program as a `Runtime`."""

    def __init__(self, module: Any, interface: Interface) -> None:
        self._module, self._interface = module, interface

    @torch.no_grad()
    def __call__(self, feed: Feed) -> dict[str, Array]:
        """Outputs by name; InputError where the program takes other inputs or gives other outputs."""
        try:
            return named(self._interface, self._module(*inputs_of(self._interface, feed)))
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            reason = f"{type(error).__name__}: {brief(error)}"
            raise InputError(f"{FILE}: does not fit the manifest beside it ({reason}); export again") from error


def _example(contract: Interface) -> Feed:
    import numpy as np

    return Feed(tuple(np.zeros((_BATCH, *port.shape), input_dtype(port)) for port in contract.ports))


def _described(name: str, tensor: torch.Tensor) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": [None, *tensor.shape[1:]]}
