"""Images in NumPy, in any precision: the reference of `ChannelsFirst` and `Conv`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.exports.layers import ChannelsFirst, Conv

_MOST = 2**22  # numbers under all windows of the rows that are computed at once


def channels_first(layer: ChannelsFirst, x: NDArray[Any]) -> NDArray[Any]:
    """[B, height * width * channels] -> [B, channels * height * width]."""
    images = x.reshape(len(x), layer.height, layer.width, layer.channels)
    return np.moveaxis(images, -1, 1).reshape(x.shape)


def convolved(layer: Conv, x: NDArray[Any]) -> NDArray[Any]:
    """[B, I * height * width] -> [B, O * h' * w'], in the dtype of `x`."""
    weight, bias, edge = layer.weight.astype(x.dtype), layer.bias.astype(x.dtype), (layer.padding,) * 2
    images = x.reshape(len(x), weight.shape[1], layer.height, layer.width)
    padded = np.pad(images, ((0, 0), (0, 0), edge, edge))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: layer.stride, :: layer.stride]  # [B, I, h', w', kh, kw]
    rows = max(1, _MOST // int(np.prod(windows.shape[1:])))
    found = [  # [rows, h', w', O] each
        np.tensordot(windows[at : at + rows], weight, axes=((1, 4, 5), (1, 2, 3))) + bias
        for at in range(0, max(len(x), 1), rows)
    ]
    return np.moveaxis(np.concatenate(found), -1, 1).reshape(len(x), bias.size * int(np.prod(layer.out)))
