"""Layers of images: what the reference makes of them is what torch does, and layers that do not fit are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from policykd.exports import tolerance
from policykd.exports.graph import Activate, ChannelsFirst, Normalise, Parallel, Residual
from policykd.exports.layers import arrays_of, footprint_of, numbers_under_windows, statistics_of, walk, width_after
from policykd.exports.reference import apply, run
from policykd.spine.types import Footprint
from tests.support.image_graphs import GRAPHS, RELU, conv, dense, feed_of, normalise

SHAPES = [((4, 3, 3, 3), 1, 1), ((2, 1, 4, 4), 2, 0), ((5, 2, 1, 3), 3, 2), ((1, 6, 8, 8), 4, 0), ((2, 2, 9, 7), 1, 4)]


@pytest.mark.parametrize(("shape", "stride", "padding"), SHAPES)
def test_conv_is_that_of_torch(shape, stride, padding, monkeypatch):
    rng = np.random.default_rng(0)
    layer = conv(rng, shape, stride, padding, (9, 12))
    x = rng.normal(size=(7, shape[1] * 108))
    weight, bias = (torch.from_numpy(values).double() for values in (layer.weight, layer.bias))
    expected = conv2d(torch.from_numpy(x).reshape(7, shape[1], 9, 12), weight, bias, stride, padding)
    assert layer.out == expected.shape[2:]
    monkeypatch.setattr("policykd.exports.convolution._MOST", 2000)  # a few rows at once
    for dtype, most in ((np.float64, 1e-14), (np.float32, 1e-5)):
        found = apply(layer, x.astype(dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected.flatten(1).numpy(), rtol=most, atol=most)
    assert width_after((layer,), x.shape[1]) == found.shape[1]
    assert apply(layer, x[:0]).shape == (0, found.shape[1])


def test_channels_first_and_shared_statistics():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4, 3, 2))
    planes = apply(ChannelsFirst(4, 3, 2), x.reshape(5, -1))
    assert np.array_equal(planes, x.transpose(0, 3, 1, 2).reshape(5, -1))
    layer = normalise(rng, 2, repeat=12)
    wide = Normalise(np.repeat(layer.mean, 12), np.repeat(layer.scale, 12), layer.limit)
    assert np.array_equal(apply(layer, planes), apply(wide, planes))
    assert footprint_of((layer,)).constants == 4


def test_residual_and_parallel():
    rng = np.random.default_rng(0)
    x, first, second = rng.normal(size=(5, 6)), dense(rng, 6, 6), dense(rng, 2, 3)
    np.testing.assert_array_equal(apply(Residual((first, RELU)), x), x + apply(RELU, apply(first, x)))
    found = apply(Parallel(((4, 6, (second,)), (0, 5, ()))), x)
    np.testing.assert_array_equal(found, np.hstack([apply(second, x[:, 4:]), x[:, :5]]))


def test_a_whole_graph_is_that_of_torch():
    graph, feed = GRAPHS["image"], feed_of(GRAPHS["image"])
    _, norm, first, _, second, _, last = graph.layers
    one, two, three = ([torch.from_numpy(x).double() for x in (y.weight, y.bias)] for y in (first, second, last))
    mean, scale = (torch.from_numpy(x).double()[:, None, None] for x in (norm.mean, norm.scale))
    x = torch.from_numpy(feed.observations[0]).permute(0, 3, 1, 2)
    x = conv2d(((x - mean) * scale).clamp(-1.5, 1.5), *one, stride=2).relu()
    x = conv2d(x, *two, padding=1).tanh().flatten(1) @ three[0] + three[1]
    exact = run(graph, feed)
    np.testing.assert_allclose(exact.outputs, x.numpy(), rtol=1e-12, atol=1e-12)
    allowed = np.where(feed.mask, x.numpy(), -np.inf)
    assert np.array_equal(exact.action, allowed.argmax(1) + 2)
    assert len(np.unique(exact.action)) > 3
    assert not np.array_equal(exact.action, x.numpy().argmax(1) + 2)


def test_what_they_cost():
    macs = 32 * 3 * 16 * 25 + 6 * 32 * 9 * 25 + 150 * 5
    params = 32 * 48 + 32 + 6 * 288 + 6 + 750 + 5
    assert GRAPHS["image"].footprint == Footprint(params, 6, macs)
    blocks = 4 * (9 * 9 * 144) + 3 * 432
    assert GRAPHS["residual"].footprint == Footprint(4 * 84 + 432 * 3 + 3, 6, blocks)
    assert numbers_under_windows(GRAPHS["image"].layers) == 48 * 25 + 288 * 25
    inside = 4 * 18 * 36 + 4 * 36 * 36 + 3 * 6
    assert GRAPHS["several"].footprint.macs == inside + 154 * 8 + 8 * 2


def test_every_layer_has_a_name():
    layers = GRAPHS["several"].layers
    names = [name for name, _ in walk(layers)]
    assert names == ["0", *(f"0_0_{i}" for i in range(4)), "0_0_3_0", "0_0_3_1", "0_0_4", "0_1_0", "0_1_1", "0_1_2",
                     "1", "2", "3"]  # fmt: skip
    assert "layer 0_0_3_1 weight" in arrays_of(layers)
    assert "normaliser 0_0_1 mean" in arrays_of(layers)
    assert list(arrays_of((normalise(np.random.default_rng(0), 2),))) == ["normaliser mean", "normaliser scale"]


def test_statistics_go_to_the_inputs():
    graph = GRAPHS["several"]
    mean, scale = statistics_of(graph.layers, graph.n_features)
    camera, state = graph.layers[0].parts[0][2][1], graph.layers[0].parts[1][2][0]
    assert np.array_equal(mean[:288].reshape(144, 2), np.tile(camera.mean, (144, 1)))
    assert np.array_equal(scale[:288].reshape(144, 2), np.tile(camera.scale, (144, 1)))
    assert np.array_equal(mean[288:291], state.mean)
    assert np.array_equal([mean[291:], scale[291:]], [[0] * 4, [1] * 4])
    mean, _ = statistics_of(GRAPHS["residual"].layers, 432)
    assert np.array_equal(mean, np.repeat(GRAPHS["residual"].layers[0].mean, 144))


def test_sums_of_a_convolution_are_taken_in_several_orders(monkeypatch):
    """The first order is torch's own, the others are drawn: more of them find larger errors."""
    one = conv(np.random.default_rng(0), (5, 3, 12, 12), 1, 0, (12, 12))
    graph = replace(GRAPHS["image"], layers=(ChannelsFirst(12, 12, 3), one))
    feed, found = feed_of(graph, 256), []
    monkeypatch.setattr(tolerance, "_MOST", 2**14)  # a few rows at once
    error = np.abs(run(graph, feed, np.float32).outputs - run(graph, feed).outputs).max()
    for orders in (1, 2, 8):
        monkeypatch.setattr(tolerance, "_ORDERS", orders)
        found.append(tolerance.tolerance_of(graph, feed).outputs.absolute)
    assert (found[2] >= found[1]).all()
    assert (found[2] > found[1]).any()
    assert error / 10 < found[0].max() < 20 * error


RNG = np.random.default_rng(0)
WRONG = {
    "Normalise": (replace(normalise(RNG, 3, repeat=5), repeat=4), "mean (3,), scale (3,), repeat 4"),
    "Dense": (dense(RNG, 14, 2), "weight (14, 2), bias (2,)"),
    "ChannelsFirst": (ChannelsFirst(2, 2, 4), "2 x 2 x 4"),
    "Conv": (conv(RNG, (2, 3, 2, 2), 1, 0, (5, 2)), "weight (2, 3, 2, 2), bias (2,), stride 1, padding 0, on 5 x 2"),
    "stride": (replace(conv(RNG, (2, 3, 2, 2), 1, 0, (5, 1)), stride=0), "stride 0"),
    "padding": (replace(conv(RNG, (2, 3, 1, 1), 1, 0, (5, 1)), padding=-1), "padding -1"),
    "kernel": (conv(RNG, (2, 3, 2, 2), 1, 0, (5, 1)), "on 5 x 1"),
    "bias": (replace(conv(RNG, (2, 3, 1, 1), 1, 0, (5, 1)), bias=np.zeros(3, np.float32)), "bias (3,)"),
    "Residual": (Residual((dense(RNG, 15, 14),)), "1 layers that keep the size"),
    "Parallel": (Parallel(((0, 3, ()), (3, 16, ()))), "columns 0 to 3, 3 to 16"),
    "empty": (Parallel(()), "columns none"),
    "backwards": (Parallel(((4, 4, ()),)), "columns 4 to 4"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_layer_that_does_not_fit_is_told_in_one_line(name):
    layer, sizes = WRONG[name]
    for layers, at in (((Activate("relu"), layer), "1"), ((Residual((layer,)),), "0_0")):
        with pytest.raises(
            ValueError, match=f"^layer {at}: a {type(layer).__name__} of .* does not take 15 numbers$"
        ) as e:
            width_after(layers, 15)
        assert sizes in str(e.value)
    graph = GRAPHS["residual"]
    with pytest.raises(ValueError, match=r"^layer 5(_0)?: .* does not take 3 numbers$"):
        replace(graph, layers=(*graph.layers, layer))


def test_layers_that_fit_are_let_pass():
    for graph in GRAPHS.values():
        assert width_after(graph.layers, graph.n_features) == graph.head.size
