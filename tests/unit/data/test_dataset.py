"""Fails when the ring drops anything but the oldest states, miscounts them, or draws beyond its size or its weights."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policykd.data.dataset import Dataset


@given(max_states=st.integers(1, 3000), sizes=st.lists(st.integers(0, 1500), max_size=12))
@settings(max_examples=60, deadline=None)
def test_ring_against_a_list(max_states: int, sizes: list[int]) -> None:
    dataset, model, dropped, number = Dataset(1, 2, max_states, "cpu"), list[int](), 0, 0
    for size in sizes:
        new = list(range(number, number + size))
        number += size
        values = torch.tensor(new, dtype=torch.float32)
        returned = dataset.append(values[:, None], torch.stack([values, -values], -1))
        model += new
        surplus = max(len(model) - max_states, 0)
        model = model[surplus:]
        dropped += surplus
        assert returned == surplus
        assert len(dataset) == len(model) and dataset.dropped == dropped
        inputs, params = dataset.take(torch.arange(len(model)))
        assert sorted(inputs[:, 0].int().tolist()) == model
        assert torch.equal(params, torch.stack([inputs[:, 0], -inputs[:, 0]], -1)), "labels must stay with their states"


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=30, deadline=None)
def test_memory_grows_with_the_data_and_not_with_the_bound(size: int, max_states: int) -> None:
    dataset = Dataset(3, 1, max_states, "cpu")
    dataset.append(torch.zeros(size, 3), torch.zeros(size, 1))
    held = dataset.draw(1, 1, torch.Generator()).numel() and len(dataset._inputs)
    assert min(size, max_states) <= held <= min(max(2 * size, 1024), max_states)


@given(st.integers(1, 50), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_draw_stays_in_range(size: int, seed: int) -> None:
    dataset = Dataset(2, 1, 1000, "cpu")
    dataset.append(torch.zeros(size, 2), torch.zeros(size, 1))
    index = dataset.draw(5, 40, torch.Generator().manual_seed(seed))
    assert index.shape == (5, 40) and index.min() >= 0 and index.max() < size
    assert torch.equal(index, dataset.draw(5, 40, torch.Generator().manual_seed(seed)))


def test_draw_is_uniform_and_take_keeps_the_shape() -> None:
    dataset = Dataset(1, 1, 1000, "cpu")
    dataset.append(torch.arange(10.0)[:, None], torch.arange(10.0)[:, None])
    index = dataset.draw(100, 200, torch.Generator().manual_seed(0))
    counts = torch.bincount(index.flatten(), minlength=10) / index.numel()
    torch.testing.assert_close(counts, torch.full((10,), 0.1), atol=0.01, rtol=0)
    inputs, params = dataset.take(index)
    assert inputs.shape == params.shape == (100, 200, 1)
    assert torch.equal(inputs[..., 0], index.float())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_states_are_drawn_in_proportion_to_their_weights(weights: list[int], extra: int) -> None:
    """The ring has gone round, so weights must stay with their states."""
    dataset = Dataset(1, 1, len(weights), "cpu")
    dataset.weigh = lambda labels: labels[:, 0]
    old = torch.full((extra, 1), 7.0)
    dataset.append(old, old)
    values = torch.tensor(weights, dtype=torch.float32)[:, None]
    dataset.append(values, values)
    index = dataset.draw(100, 100, torch.Generator().manual_seed(0))
    drawn = dataset.take(index)[1].flatten()
    total = float(values.sum())
    for weight in set(weights):
        share = weights.count(weight) * (weight / total if total else 1 / len(weights))
        assert abs(float((drawn == weight).float().mean()) - share) < 0.03
