"""Fails when states that are kept as bytes come back otherwise than they were observed, or take more bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from policykd.data.records import RecordDataset, Records
from policykd.spine.packing import packing_of
from policykd.students.normaliser import Normaliser

MIXED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (5, 4, 3), np.uint8),
        "choice": spaces.MultiDiscrete([3, 2]),
        "lidar": spaces.Box(-9, 9, (3,), np.float64),
    }
)


@pytest.mark.parametrize(
    ("space", "n_bytes"),
    [(MIXED, 60 + 4 * 2 + 4 * 3), (spaces.Box(0, 255, (5, 4, 3), np.uint8), 60), (spaces.Box(0, 1, (1, 5, 4)), 80)],
)
def test_features_are_those_of_the_packing(space: spaces.Space, n_bytes: int) -> None:
    packing = packing_of(space)
    records = Records(packing)
    space.seed(1)
    packed = np.stack([packing.pack(space.sample()) for _ in range(9)])
    rows = records.encode(packed)
    assert rows.dtype == np.uint8 and rows.shape == (9, n_bytes)
    assert np.array_equal(records.features(torch.from_numpy(rows)).float().numpy(), packing.features(packed))


def test_a_mini_batch_is_normalised_by_channel() -> None:
    packing = packing_of(MIXED)
    dataset = RecordDataset(packing, 2, 1000, "cpu")
    MIXED.seed(2)
    packed = np.stack([packing.pack(MIXED.sample()) for _ in range(3000)])
    rows = torch.from_numpy(dataset.records.encode(packed))
    dataset.normaliser = dataset.measured(rows)
    assert dataset.append(rows, torch.zeros(3000, 2)) == 2000, "bounded"
    features = packing.features(packed).astype(np.float64)
    camera, others = features[:, :60].reshape(-1, 3), features[:, 60:]
    mean, std = ([*f(camera, 0), *f(others, 0)] for f in (np.mean, np.std))
    assert np.allclose(dataset.normaliser.mean, mean, rtol=1e-5)
    assert np.allclose(dataset.normaliser.scale, 1 / np.asarray(std), rtol=1e-5)
    inputs, _ = dataset.take(torch.tensor([0, 999]))
    assert inputs.shape == (2, 68) and inputs.dtype == torch.float32
    expected = (features[2000] - np.r_[np.tile(mean[:3], 20), mean[3:]]) / np.r_[np.tile(std[:3], 20), std[3:]]
    assert np.allclose(inputs[0].numpy(), expected, atol=1e-4)


def test_a_constant_channel_is_centred_only() -> None:
    rows = np.zeros((50, 4))
    rows[:, 1::2] = np.random.default_rng(0).normal(3, 2, (50, 2))
    normaliser = Normaliser.measured_by_place(lambda: [rows[:20], rows[20:]], np.array([0, 1, 0, 1]))
    assert normaliser.scale[0] == 1 and np.isclose(normaliser.scale[1], 1 / rows[:, 1::2].std(), rtol=1e-5)


def test_one_record_of_an_odd_length_is_read() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (5, 5, 3), np.uint8), "choice": spaces.Discrete(3)})
    records = Records(packing_of(space))
    space.seed(0)
    packed = np.stack([records.packing.pack(space.sample()) for _ in range(5)])
    rows = torch.from_numpy(records.encode(packed))
    assert rows.shape[1] % 4
    one_by_one = torch.cat([records.features(rows[k : k + 1]) for k in range(5)])
    assert torch.equal(one_by_one, records.features(rows))
