"""Whole runs on the GPU, where there is one. Red when a tensor or a generator is left on the CPU, when the update loop
makes the host wait for the GPU, or when what comes out is no number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from policykd import distill, load_config, resume
from tests.support.away import watch_loop
from tests.support.killed_run import SMALL
from tests.support.pictures import Patch, finder
from tests.unit.learn.test_device import quick


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


@contextmanager
def synchronising(mode: str) -> Iterator[None]:
    """What torch does where the host waits for the GPU: nothing ("default"), or an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", ["mlp", "gru", "multi"])
def test_the_update_loop_never_waits(kind, tmp_path, monkeypatch):
    there = {"teacher": finder(mixed=kind == "multi"), "env": lambda: Patch(mixed=kind == "multi")}
    read = watch_loop(monkeypatch, lambda: synchronising("error"), lambda: synchronising("default"))
    found = distill(quick(kind, "cuda"), out=tmp_path / "run", **there)
    assert read == list(range(8))
    assert all(torch.isfinite(part).all() for part in found.student.weights().values())
