"""A whole run on the GPU, where there is one. Red when a tensor or a generator is left on the CPU."""

from __future__ import annotations

import pytest
import torch

from policykd import distill, load_config, resume
from tests.support.killed_run import SMALL


@pytest.mark.cuda
@pytest.mark.parametrize("teacher", ["builtin:cartpole", "builtin:pendulum"])
def test_a_run_on_the_device(teacher, tmp_path):
    assert torch.cuda.is_available()
    overrides = [*SMALL, "student.width=[4, 8]"]
    run = distill(load_config(None, overrides, {"teacher": teacher, "device": "cuda"}), out=tmp_path / "run")
    assert run.result["device"].startswith("cuda")
    assert run.student.device.type == "cpu"  # what is saved and handed out needs no GPU
    (run.folder / "result.json").unlink()
    (run.folder / "student.safetensors").rename(tmp_path / "first")
    resume(run.folder)  # restores weights, moments and snapshots on the device
    assert (run.folder / "student.safetensors").read_bytes() == (tmp_path / "first").read_bytes()
