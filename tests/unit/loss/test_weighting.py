"""Fails when states are weighted otherwise than by the cost of a mistake, or a combination without sense is taken."""

from __future__ import annotations

import pytest
import torch

from policykd.loss.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical
from policykd.loss.weighting import weigh_by
from policykd.spine.config.load import load_config
from policykd.spine.errors import InputError


def test_the_gap_is_that_of_the_best_and_the_worst_allowed_action() -> None:
    weigh = weigh_by("q_gap", Categorical(3))
    assert weigh is not None
    labels = torch.tensor([[1.0, 4.0, -1.0], [2.0, 2.0, 2.0], [1.0, -torch.inf, 3.5], [-torch.inf, -torch.inf, 3.0]])
    torch.testing.assert_close(weigh(labels), torch.tensor([5.0, 0.0, 2.5, 0.0]))
    torch.testing.assert_close(weigh(labels + 7.0), weigh(labels))


def test_branches_and_bits_add_up() -> None:
    many, bits = weigh_by("q_gap", MultiCategorical((2, 2))), weigh_by("q_gap", Bernoulli(2))
    assert many is not None and bits is not None
    torch.testing.assert_close(many(torch.tensor([[0.0, 1.0, 5.0, 2.0]])), torch.tensor([4.0]))
    torch.testing.assert_close(bits(torch.tensor([[-2.0, 1.0], [torch.inf, 0.5]])), torch.tensor([3.0, 0.5]))


def test_confidence_is_one_for_a_sure_teacher_and_zero_for_one_that_guesses() -> None:
    weigh = weigh_by("confidence", Categorical(4))
    assert weigh is not None
    sure, guess, between = weigh(torch.tensor([[50.0, 0, 0, 0], [1.0, 1, 1, 1], [2.0, 0, 0, 0]])).tolist()
    assert sure == pytest.approx(1.0, abs=1e-6) and guess == pytest.approx(0.0, abs=1e-6) and 0.05 < between < 0.95


@pytest.mark.parametrize("weighting", ["q_gap", "confidence"])
def test_continuous_actions_and_sequences_are_refused(weighting: str) -> None:
    with pytest.raises(InputError, match="data.weighting=none"):
        weigh_by(weighting, DiagGaussian(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a gru learns whole sequences"):
        load_config(None, [f"data.weighting={weighting}", "student.kind=gru"])
