"""Fails when a student that an earlier version wrote no longer loads, or acts otherwise than it did then."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policykd.students.load import load_student

FOLDER = Path(__file__).parents[2] / "fixtures" / "artifact-1"
RECORDS = sorted(FOLDER.glob("*.json"))
DISTRIBUTIONS = {"Bernoulli", "Categorical", "DiagGaussian", "MultiCategorical", "SquashedDiagGaussian"}


def recorded(path: Path) -> tuple[Path, dict[str, Any]]:
    record = json.loads(path.read_text())
    return FOLDER / record["file"], record


def test_there_is_one_of_each_distribution() -> None:
    files = [recorded(path)[0] for path in RECORDS]
    found = [load_student(file, backend="numpy").document["distribution"]["type"] for file in files]
    assert sorted(found) == sorted(DISTRIBUTIONS)
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(p.name for p in [*files, *RECORDS])}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_file_was_not_written_anew(path: Path) -> None:
    file, record = recorded(path)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]


@pytest.mark.parametrize("backend", ["torch", "numpy"])
@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_an_old_student_acts_as_it_did(path: Path, backend: Any) -> None:
    file, record = recorded(path)
    student = load_student(file, backend=backend)
    observations = np.asarray(record["observations"], np.float32)
    if backend == "torch":
        means = student.distribution_params(torch.from_numpy(observations)).numpy()[:, : len(record["means"][0])]
    else:
        means = student.means(observations)
    np.testing.assert_allclose(means, record["means"], rtol=1e-5, atol=1e-5)
    actions, _ = student.predict(observations, deterministic=True)
    assert actions.dtype == record["dtype"]
    np.testing.assert_allclose(actions, record["actions"], rtol=1e-5, atol=1e-6 if actions.dtype.kind == "f" else 0)
    single, _ = student.predict(observations[0], deterministic=True)
    np.testing.assert_allclose(single, record["actions"][0], rtol=1e-5, atol=1e-6)
