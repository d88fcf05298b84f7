"""Fails when a student acts against a mask, with torch or with NumPy, or when its file forgets that it needs masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policykd.rollout.masks import mask_branches
from policykd.spine.artifact import read_header, save_artifact
from policykd.spine.errors import InputError, NumericsError
from policykd.students.load import load_student
from tests.support.core import FAMILIES, student

N = 300


def random_masks(sizes: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = rng.random((N, sum(sizes))) < 0.4
    starts = np.cumsum((0, *sizes[:-1]))
    for start, size in zip(starts, sizes, strict=True):
        mask[np.arange(N), start + rng.integers(size, size=N)] = True
    return mask


@pytest.mark.parametrize("name", ["categorical", "multi", "bernoulli"])
def test_both_backends_obey_and_agree(name: str, tmp_path: Path) -> None:
    save_artifact(tmp_path / "student.safetensors", *replace(student(name), masked=True).to_artifact())
    backends: list[Any] = [load_student(tmp_path), load_student(tmp_path, backend="numpy")]
    seen = np.random.default_rng(1).normal(size=(N, 3)).astype("f4")
    space = FAMILIES[name][1]
    sizes = mask_branches(space)
    mask, rows = random_masks(sizes), np.arange(N)[:, None]
    modes = []
    for policy in backends:
        assert policy.masked
        for deterministic in (True, False):
            actions = policy.predict(seen, deterministic=deterministic, action_masks=mask)[0]
            index = actions.reshape(N, -1) - getattr(space, "start", 0) + np.cumsum((0, *sizes[:-1]))
            assert mask[rows, index].all()
            one = policy.predict(seen[0], deterministic=True, action_masks=mask[0])[0]
            if deterministic:
                modes.append(actions)
                assert np.array_equal(one, actions[0])
        assert not np.array_equal(policy.predict(seen, deterministic=True)[0], modes[-1]), "the mask changed nothing"
        with pytest.raises(InputError, match="action mask has shape"):
            policy.predict(seen, action_masks=mask[:, 1:])
        with pytest.raises(NumericsError, match="allows nothing"):
            policy.predict(seen, action_masks=np.zeros_like(mask))
    assert np.array_equal(*modes)


def test_a_file_says_masked_only_where_it_is(tmp_path: Path) -> None:
    save_artifact(tmp_path / "plain.safetensors", *student("categorical").to_artifact())
    assert "masked" not in read_header(tmp_path / "plain.safetensors")
    for backend in ("torch", "numpy"):
        assert not load_student(tmp_path / "plain.safetensors", backend=backend).masked
    tensors, document = student("categorical").to_artifact()
    save_artifact(tmp_path / "odd.safetensors", tensors, document | {"masked": "yes"})
    with pytest.raises(InputError, match="masked"):
        load_student(tmp_path / "odd.safetensors")
