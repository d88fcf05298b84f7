"""Fails when a chunk reaches over an episode's start or end, when a state is learned from twice or never, when a chunk
begins with another memory than the episode left there, or when a member with a memory does not learn what needs one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from policykd.data.sequences import BURN_IN, CHUNK, SequenceDataset
from policykd.learn.updates.update import Learner
from policykd.loss.distributions import Categorical
from policykd.loss.losses import Loss
from policykd.spine.config.data import UpdateConfig
from policykd.spine.seeding import SeedKey
from policykd.students.recurrent import Episodes, GruFamily
from policykd.students.spec import MemberSpec
from tests.support.core import Quiet

LENGTHS = st.lists(st.integers(1, 3 * CHUNK), min_size=1, max_size=6)
SPECS = [MemberSpec(1, 4, 0, "gru"), MemberSpec(1, 6, 0, "gru")]


def starts(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(n) == 0 for n in lengths])


def numbered(lengths: list[int], most: int = 10**6) -> SequenceDataset:
    """Row k observes k, and its label is k."""
    data, rows = SequenceDataset(1, 1, most, "cpu"), torch.arange(sum(lengths), dtype=torch.float32).view(-1, 1)
    data.append(rows, rows, starts(lengths))
    return data


def every(data: SequenceDataset) -> Tensor:
    """The index of every chunk, once [1, K]."""
    return torch.arange(len(data._begin)).view(1, -1)


@settings(max_examples=60, deadline=None)
@given(LENGTHS)
def test_every_state_is_learned_from_once_inside_its_episode(lengths: list[int]) -> None:
    data = numbered(lengths)
    data.remember(GruFamily(SPECS, 1, Categorical(1)))
    chunks = data.take(every(data))
    assert torch.equal(chunks.inputs, chunks.params)
    learned = chunks.inputs[chunks.weight > 0].flatten()
    assert torch.equal(learned.sort().values, torch.arange(sum(lengths), dtype=torch.float32))
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    for rows, weight in zip(chunks.inputs[0, :, :, 0].long(), chunks.weight[0], strict=True):
        assert len(episode[rows].unique()) == 1
        own = rows[weight > 0]
        assert torch.equal(own, torch.arange(int(own[0]), int(own[-1]) + 1))
        seen = rows[: int(weight.nonzero()[-1]) + 1]
        assert torch.equal(seen, torch.arange(int(seen[0]), int(own[-1]) + 1)), "nothing is left out on the way"
        origin = int((episode == episode[rows[0]]).nonzero()[0])
        assert int(seen[0]) == max(int(own[0]) - BURN_IN, origin)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 5))
def test_a_chunk_begins_with_what_its_episode_left(lengths: list[int], seed: int) -> None:
    family = GruFamily(SPECS, 2, Categorical(3), root_seed=seed)
    data, inputs = SequenceDataset(2, 3, 10**6, "cpu"), torch.randn(sum(lengths), 2)
    start = starts(lengths)
    data.append(inputs, torch.zeros(len(inputs), 3), start)
    data.remember(family)
    chunks = data.take(every(data))
    whole = family.along(inputs, start)
    out = family.outputs(family.flat, chunks.inputs[0], [before[0] for before in chunks.before])
    row = torch.arange(len(inputs))
    places = SequenceDataset(1, 3, 10**6, "cpu")
    places.append(row.float().view(-1, 1), torch.zeros(len(inputs), 3), start)
    rows = places.take(every(places)).inputs[0, :, :, 0].long()
    learned = chunks.weight[0] > 0
    for index in range(len(SPECS)):
        assert torch.allclose(out[index][learned], whole[index][rows[learned]], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 200))
def test_the_oldest_episodes_are_dropped_first(lengths: list[int], most: int) -> None:
    data = numbered(lengths, most)
    assert len(data) <= most and data.dropped + len(data) == sum(lengths)
    kept = data.params.flatten()
    assert torch.equal(kept, torch.arange(data.dropped, sum(lengths), dtype=torch.float32))
    begins = starts(lengths).nonzero().flatten().tolist()
    if len(data) and data.dropped > begins[-1]:
        assert len(data) == most, "of one long episode only what must go is dropped"
    elif data.dropped:
        assert data.dropped in begins, "the rest begins with an episode"


def test_what_needs_a_memory_is_learned() -> None:
    """The label is the sign of the observation three steps ago, which no state tells."""
    generator, lengths = torch.Generator().manual_seed(0), [50] * 40
    inputs = torch.randn(sum(lengths), 1, generator=generator).sign()
    start, signs = starts(lengths), torch.zeros(len(inputs))
    for episode in Episodes.of(start).begin.tolist():
        signs[episode + 3 : episode + 50] = inputs[episode : episode + 47, 0]
    labels = torch.stack([4 * signs, -4 * signs], 1)
    family = GruFamily([MemberSpec(1, 8, 0, "gru"), MemberSpec(1, 16, 0, "gru")], 1, Categorical(2))
    data = SequenceDataset(1, 2, 10**6, "cpu")
    data.append(inputs, labels, start)
    learner = Learner(family, Loss(), UpdateConfig(n_updates=400, batch_size=512, learning_rate=0.02), 1)
    metrics = learner.fit(data, 0, SeedKey(0, "update", 0), Quiet())
    first, last = metrics[0].loss, metrics[-1].loss
    assert max(last) < 0.1 * max(first) and max(last) < 0.05, (first, last)
