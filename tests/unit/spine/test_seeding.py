"""Fails when two streams coincide, when a training seed can meet a reported one, or when the numbers of a key change
from one version to the next (a resumed run would go on with others)."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from policykd.spine.seeding import TRAINING_SEEDS_FROM, SeedKey

STAGES = ("init", "collect", "act", "update", "bootstrap", "random")
PINNED_EPISODES = [2438301896, 4089088713, 2785464606]
PINNED_NUMPY = [488, 121, 11, 110]
PINNED_TORCH = [627, 741, 884, 815]
PINNED_INIT = [96, 892, 583]


def test_streams_are_distinct() -> None:
    keys = [SeedKey(*key) for key in product((0, 1, 2, 2**31 - 1), STAGES, (0, 1, 2), (0, 1, 2))]
    words = {tuple(key.sequence(*more).generate_state(4)) for key in keys for more in ((), (0,), (1,), (0, 0), (0, 1))}
    assert len(words) == 5 * len(keys)
    assert len({float(torch.rand(1, generator=key.torch(), dtype=torch.float64)) for key in keys}) == len(keys)


@given(
    st.integers(0, 2**31 - 1), st.integers(0, 500), st.integers(0, 500), st.integers(0, 10_000), st.integers(0, 10_000)
)
def test_training_seeds_lie_apart_from_all_others(root: int, r: int, shard: int, slot: int, episode: int) -> None:
    assert TRAINING_SEEDS_FROM == 2**31
    assert 2**31 <= SeedKey(root, "collect", r, shard).episode_seed(slot, episode) < 2**32


def test_episode_seeds_hardly_repeat() -> None:
    key = SeedKey(0, "collect", 1)
    seeds = {key.episode_seed(slot, episode) for slot in range(60) for episode in range(60)}
    assert len(seeds) > 3590


def test_numbers_are_pinned() -> None:
    assert [SeedKey(0, "collect").episode_seed(0, k) for k in range(3)] == PINNED_EPISODES
    assert SeedKey(1, "update", 2, 3).numpy().integers(0, 1000, 4).tolist() == PINNED_NUMPY
    generator = SeedKey(1, "update", 2, 3).torch()
    assert torch.randint(1000, (4,), generator=generator).tolist() == PINNED_TORCH
    assert SeedKey(5, "init").numpy(2, 16, 0).integers(0, 1000, 3).tolist() == PINNED_INIT


def test_a_key_gives_the_same_numbers_each_time() -> None:
    key = SeedKey(9, "act", 4, 1)
    assert np.array_equal(key.numpy().random(5), key.numpy().random(5))
    assert torch.equal(torch.rand(5, generator=key.torch()), torch.rand(5, generator=key.torch()))
