"""A student of images or of mixed observations that acts with NumPy alone, beside `numpy_backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policykd.spine.packing import packing_from_json
from policykd.spine.types import Array
from policykd.students.encoders import ConvPlan, normaliser_places
from policykd.students.numpy_backend import NumpyStudent, relu
from policykd.students.steps import Activate, Conv, Dense, Step


class NumpyConvStudent(NumpyStudent):
    """The same policy as `ConvStudent`, from the same file, to float32 rounding."""

    def _read(self, tensors: dict[str, Array], architecture: dict[str, Any]) -> None:
        packing = packing_from_json(self.document["observation_space"])
        self._plan, self._tensors = ConvPlan.from_json(architecture, packing), tensors
        places = normaliser_places(packing)
        self._mean, self._scale = self._mean[places], self._scale[places]

    def means(self, observation: Array) -> Array:
        """Logits or means [B, M] for packed raw observations [B, *packing.shape]."""
        inputs, plan, found = self._inputs(observation), self._plan, []
        for encoder in plan.encoders:
            x = inputs[:, encoder.begin : encoder.end]
            if encoder.image is not None:
                height, width, channels = encoder.image
                if encoder.channels_last:
                    x = x.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
                else:
                    x = x.reshape(-1, channels, height, width)
            x = _along(encoder.steps, self._tensors, x, plan.activation)
            found.append(x.reshape(len(x), -1))
        return _along(plan.tail, self._tensors, np.concatenate(found, -1), plan.activation)


def _along(steps: Sequence[Step], tensors: Mapping[str, Array], x: Array, activation: str) -> Array:
    """What the steps make of rows [B, n] or maps [B, C, H, W]."""
    for step in steps:
        if isinstance(step, Activate):
            x = np.tanh(x) if activation == "tanh" else relu(x)
        elif isinstance(step, Dense):
            x = x @ tensors[f"{step.name}.weight"] + tensors[f"{step.name}.bias"]
        elif isinstance(step, Conv):
            x = _convolved(step, tensors[f"{step.name}.weight"], tensors[f"{step.name}.bias"], x)
        else:
            x = x + _along(step.steps, tensors, x, activation)
    return x


def _convolved(step: Conv, weight: Array, bias: Array, x: Array) -> Array:
    """[B, C, H, W] to [B, O, H', W']: every patch of the padded map in a row, times all kernels at once."""
    edge = (step.padding, step.padding)
    patches = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (0, 0), edge, edge)), (step.kernel, step.kernel), axis=(2, 3)
    )[:, :, :: step.stride, :: step.stride]
    batch, _, high, wide = patches.shape[:4]
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(batch * high * wide, -1)
    out = rows @ weight.reshape(len(weight), -1).T + bias
    return np.asarray(out.reshape(batch, high, wide, -1).transpose(0, 3, 1, 2))
