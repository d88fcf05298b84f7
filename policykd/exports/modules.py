"""The layers as torch modules, with their numbers as buffers: from [B, F] to [B, F] each, in any float dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from policykd.exports.gru import Gru
from policykd.exports.gru_module import GruModule
from policykd.exports.layers import Activate, ChannelsFirst, Conv, Dense, Layer, Normalise, Parallel, Residual, Tree
from policykd.exports.tree_products import products_of


def module_of(layer: Layer) -> nn.Module:
    """The module of a layer, and of those inside of it."""
    return _MODULES[type(layer)](layer)


class _Normalise(nn.Module):
    def __init__(self, layer: Normalise) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(layer.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(layer.scale.copy()))
        self.mean: Tensor
        self.scale: Tensor
        self.limit, self.repeat = layer.limit, layer.repeat

    def forward(self, x: Tensor) -> Tensor:
        if self.repeat == 1:
            return torch.clamp((x - self.mean) * self.scale, -self.limit, self.limit)
        parts = x.reshape(x.shape[0], -1, self.repeat)
        parts = (parts - self.mean[:, None]) * self.scale[:, None]
        return torch.clamp(parts, -self.limit, self.limit).flatten(1)


class _Dense(nn.Module):
    def __init__(self, layer: Dense) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(layer.weight.copy()))
        self.register_buffer("bias", torch.from_numpy(layer.bias.copy()))
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class _Activate(nn.Module):
    def __init__(self, layer: Activate) -> None:
        super().__init__()
        self.kind = layer.kind

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) if self.kind == "tanh" else torch.relu(x)


class _ChannelsFirst(nn.Module):
    def __init__(self, layer: ChannelsFirst) -> None:
        super().__init__()
        self.shape = (layer.height, layer.width, layer.channels)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape).permute(0, 3, 1, 2).flatten(1)


class _Conv(nn.Module):
    def __init__(self, layer: Conv) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(layer.weight.copy()))
        self.register_buffer("bias", torch.from_numpy(layer.bias.copy()))
        self.weight: Tensor
        self.bias: Tensor
        self.shape = (layer.weight.shape[1], layer.height, layer.width)
        self.stride, self.padding = layer.stride, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        images = x.reshape(x.shape[0], *self.shape)
        return conv2d(images, self.weight, self.bias, self.stride, self.padding).flatten(1)


class _Residual(nn.Module):
    def __init__(self, layer: Residual) -> None:
        super().__init__()
        self.layers = nn.Sequential(*map(module_of, layer.layers))

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.layers(x)
        return x + inside


class _Parallel(nn.Module):
    def __init__(self, layer: Parallel) -> None:
        super().__init__()
        self.ranges = [(begin, end) for begin, end, _ in layer.parts]
        self.parts = nn.ModuleList([nn.Sequential(*map(module_of, inner)) for *_, inner in layer.parts])

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.ranges, self.parts, strict=True)
        return torch.cat([part(x[:, begin:end]) for (begin, end), part in parts], -1)


class _Tree(nn.Module):
    def __init__(self, layer: Tree) -> None:
        super().__init__()
        nodes, products = layer.nodes, products_of(layer.nodes)
        self.register_buffer("value", torch.from_numpy(nodes.value.copy()))
        self.value: Tensor
        if len(nodes):
            self.register_buffer("feature", torch.from_numpy(nodes.feature.copy()))
            self.register_buffer("threshold", torch.from_numpy(nodes.threshold.copy()))
            self.register_buffer("ways", torch.from_numpy(products.ways))
            self.register_buffer("reached", torch.from_numpy(products.reached))
        self.feature: Tensor
        self.threshold: Tensor
        self.ways: Tensor
        self.reached: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if len(self.value) == 1:
            return self.value.expand(x.shape[0], -1).clone()
        noes = (x[:, self.feature] > self.threshold).to(x.dtype)
        return (noes @ self.ways > self.reached).to(x.dtype) @ self.value


_MODULES: dict[type, type[nn.Module]] = {
    Normalise: _Normalise, Dense: _Dense, Activate: _Activate, ChannelsFirst: _ChannelsFirst, Conv: _Conv,
    Residual: _Residual, Parallel: _Parallel, Gru: GruModule, Tree: _Tree,
}  # fmt: skip
