"""What an ONNX file may cost, that its rows stand alone, and that real policies are well within."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from policykd import InputError, load_teacher
from tests.security.onnx_costs import costly_inputs, mixing_inputs
from tests.security.onnx_inputs import CARD
from tests.support.onnx_files import write

COSTLY = {name: (raw, expected) for name, raw, expected in costly_inputs()}
MIXING = {name: raw for name, raw, _ in mixing_inputs()}


@pytest.mark.parametrize("name", COSTLY)
def test_what_costs_too_much_is_refused_at_once(tmp_path: Path, name: str) -> None:
    raw, expected = COSTLY[name]
    path, start = write(tmp_path / "a.onnx", raw, CARD), time.process_time()
    if expected == "any":
        load_teacher(path)
    else:
        with pytest.raises(InputError, match=r"a\.onnx: (is too large|has a|is larger)") as refusal:
            load_teacher(path)
        assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_depend_on_each_other_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"a\.onnx: .*(mixes the observations of a batch|in training mode, which mixes)"
    ):
        load_teacher(write(tmp_path / "a.onnx", MIXING[name], CARD))


class Impala(nn.Module):
    """The residual network of IMPALA (Espeholt 2018) on four grey images, one of the largest policies in use."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList([nn.Conv2d(i, o, 3, padding=1) for i, o in ((4, 16), (16, 32), (32, 32))])
        self.rest = nn.ModuleList([nn.Conv2d(c, c, 3, padding=1) for c in (16, 32, 32) for _ in range(4)])
        self.dense, self.last = nn.Linear(32 * 11 * 11, 256), nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x / 255.0
        for index, conv in enumerate(self.first):
            x = nn.functional.max_pool2d(conv(x), 3, 2, 1)
            for at in (4 * index, 4 * index + 2):
                x = x + self.rest[at + 1](torch.relu(self.rest[at](torch.relu(x))))
        x = torch.relu(x).view(x.size(0), -1)  # a size that the graph computes
        return self.last(torch.relu(self.dense(x)))


class Nature(nn.Module):
    """NatureCNN on four grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
                                  nn.Conv2d(64, 64, 3), nn.ReLU())  # fmt: skip
        self.head = nn.Sequential(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x / 255.0)
        return self.head(x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "dynamo"])
@pytest.mark.parametrize("kind", [Nature, Impala])
def test_policies_of_images_open(tmp_path: Path, kind: Any, dynamo: bool) -> None:
    torch.manual_seed(0)
    agent = kind().eval()
    free: dict[str, Any] = {"dynamic_axes": {name: {0: "batch"} for name in ("obs", "logits")}}
    if dynamo:
        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(agent, (torch.zeros(2, 4, 84, 84, dtype=torch.uint8),), str(tmp_path / "a.onnx"),
                          dynamo=dynamo, input_names=["obs"], output_names=["logits"], external_data=False,
                          verbose=False, **free)  # fmt: skip
    card = {"action_space": {"type": "Discrete", "n": 3}, "outputs": {"logits": "logits"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(card))
    teacher = load_teacher(tmp_path / "a.onnx")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (23, 4, 84, 84)).astype(np.uint8))
    with torch.no_grad():
        expected = agent(pixels)
    torch.testing.assert_close(teacher.distribution_params(pixels), expected, rtol=0, atol=1e-4)
