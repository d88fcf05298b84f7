"""Microseconds of one action for every target of `policykd export`, beside SB3's predict, torch and NumPy."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.machine import described, table
from policykd import api
from policykd.exports.bundle import Wishes
from policykd.exports.graph import Feed
from policykd.exports.interface import Runtime
from policykd.exports.manifest import Manifest, read_manifest
from policykd.exports.targets.table import TARGETS, target
from policykd.loss.distributions import Categorical
from policykd.spine.spaces import action_map
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent
from policykd.students.normaliser import Normaliser

SIZES = ((8, 32, 4), (8, 16, 4), (17, 64, 6))  # inputs, width of two tanh layers, choices
CALLS, WARM = 5000, 300
FASTER, FLASH = 100, 10_000  # C against SB3's predict, and bytes, for two layers of 32
HEAD = ("student", "on", "median, µs", "p99, µs", "SB3's median / this", "bytes of the artifact")


def measure(options: argparse.Namespace) -> tuple[str, bool]:
    """The page, and whether C holds its bounds for two layers of 32."""
    del options
    torch.set_num_threads(1)
    rows, good = [], True
    for inputs, width, choices in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found = _measured(random_student(inputs, width, choices), Path(folder))
        slow = found["SB3 predict"][0]
        for name, (median, p99, size) in found.items():
            shown = "" if size is None else f"{size:,}"
            shape = f"{inputs}-{width}-{width}-{choices}"
            rows.append([shape, name, f"{median:.2f}", f"{p99:.2f}", f"{slow / median:.1f}", shown])
        if width == SIZES[0][1]:
            median, _, size = found["C, from C"]
            good = slow / median >= FASTER and size is not None and size < FLASH
    return PAGE.format(machine=described(), calls=CALLS, table=table(HEAD, rows)), good


def random_student(inputs: int, width: int, choices: int) -> MlpStudent:
    """Two tanh layers with random weights."""
    rng = np.random.default_rng(0)
    sizes = [inputs, width, width, choices]
    pairs = pairwise(sizes)
    layers = tuple((torch.from_numpy(rng.normal(size=pair).astype("f4") / 4), torch.zeros(pair[1])) for pair in pairs)
    space = spaces.Discrete(choices)
    return MlpStudent(
        Normaliser(np.zeros(inputs, np.float32), np.ones(inputs, np.float32)),
        layers,
        torch.zeros(0),
        "tanh",
        Categorical(choices),
        action_map(space, unscale=False),
        spaces.Box(-np.inf, np.inf, (inputs,), np.float32),
        space,
    )


def _measured(student: MlpStudent, folder: Path) -> dict[str, tuple[float, float, int | None]]:
    """Name -> median, p99, bytes."""
    from policykd.spine.artifact import save_artifact

    api.export(student, list(TARGETS), folder / "out", how=Wishes(vectors="synthetic", episodes=0))
    save_artifact(folder / "s.safetensors", *student.to_artifact())
    plain = load_student(folder / "s.safetensors", backend="numpy")
    rng = np.random.default_rng(1)
    seen = rng.standard_normal((64, *(student.observation_space.shape or ()))).astype(np.float32)
    found: dict[str, tuple[float, float, int | None]] = {}
    model = _sb3(folder / "out" / "sb3")
    policies: dict[str, Any] = {"SB3 predict": model, "torch, eager": student, "NumPy backend": plain}
    for name, policy in policies.items():
        size = _size(folder, "sb3", "policy.zip") if policy is model else None
        found[name] = (*_timed(partial(policy.predict, deterministic=True), seen), size)
    files = {"onnx": "policy.onnx", "torch": "policy.pt2"}
    for name, file in files.items():
        manifest = read_manifest(folder / "out" / name)
        runtime = target(name).load(manifest.folder, manifest.interface, manifest.facts)
        label = {"onnx": "onnxruntime", "torch": "torch.export"}[name]
        found[label] = (*_timed(partial(_act, runtime), seen), _size(folder, name, file))
    manifest = read_manifest(folder / "out" / "c")
    found["C, from C"] = (*act_in_c_us(manifest, seen), int(manifest.facts["flash_bytes"]))
    return found


def _act(runtime: Runtime, observation: np.ndarray) -> Any:
    return runtime(Feed((observation[None],)))


def act_in_c_us(manifest: Manifest, seen: np.ndarray) -> tuple[float, float]:
    """Median and 99th percentile of one observation, of 64 one after the other in C: a clock cannot tell one apart."""
    runtime: Any = target("c").load(manifest.folder, manifest.interface, manifest.facts)
    records = runtime.layout.records((seen,), None, None)
    results = np.zeros(len(records), runtime.layout.output_type)
    call = lambda _: runtime.library.policy_batch(len(records), records.ctypes.data, results.ctypes.data)  # noqa: E731
    median, p99 = _timed(call, seen)
    return median / len(records), p99 / len(records)


def _sb3(folder: Path) -> Any:
    from policykd.exports.trusted_loads import load_model

    return load_model(folder / "policy.zip", "PPO")


def _size(folder: Path, name: str, file: str) -> int:
    return (folder / "out" / name / file).stat().st_size


def _timed(call: Callable[[Any], Any], seen: np.ndarray) -> tuple[float, float]:
    spent = np.empty(CALLS)
    for i in range(WARM):
        call(seen[i % len(seen)])
    for i in range(CALLS):
        x = seen[i % len(seen)]
        begin = time.perf_counter_ns()
        call(x)
        spent[i] = time.perf_counter_ns() - begin
    return float(np.median(spent)) / 1e3, float(np.quantile(spent, 0.99)) / 1e3


PAGE = """# Latency and size of exported students

`python -m benchmarks latency --out docs/benchmarks`: one observation, one thread, {calls} calls each after a warm-up,
all in one run. Students are two tanh layers with random weights; times depend on sizes alone. C is called from C (-O2),
64 observations one after the other; its bytes are the constants, onto which some hundred bytes of code come; other
bytes are those of the file. The bound: for two layers of 32, C is at least 100 times faster than stable-baselines3's
`predict`, with less than 10 kB of constants.

Machine: {machine}.

{table}"""
