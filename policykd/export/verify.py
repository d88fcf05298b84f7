"""The proof of an export: its test vectors on the real runtime, then whole episodes with the artifact in the loop."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.evaluation.stats import return_summary
from policykd.export import vectors as testing
from policykd.export.graph import Array, Feed, Graph
from policykd.export.interface import ACTION, Interface, Runtime, random_noise
from policykd.export.manifest import Manifest, read_manifest
from policykd.export.of_student import graph_of, split
from policykd.export.reference import run
from policykd.export.targets.table import target
from policykd.learn.session import Work
from policykd.rollout.envs import EnvSpec
from policykd.spine.errors import InputError
from policykd.spine.packing import Packing
from policykd.spine.types import Turn
from policykd.students.load import load_student
from policykd.students.mlp import MlpStudent

FIRST_SEED = 10_000
_T = 3.5  # half the interval in standard errors: about 99.9 % of differences of equal policies lie inside
_SHARE = 0.02  # of the student's own spread and level: a smaller loss is none

_WARM, _TIMED = 20, 300  # calls, one observation each


@dataclass(frozen=True)
class Check:
    """How much is played: episodes with the seeds FIRST_SEED ..., 0 for none."""

    episodes: int = 20


def student_of(folder: Path) -> MlpStudent:
    """The student that lies in an export folder, as data."""
    return load_student(folder / "student.safetensors")


def verify_folder(folder: Path, spec: EnvSpec | None, check: Check, work: Work, *, trust: bool) -> dict[str, Any]:
    """The checks of an export folder from anywhere; InputError where something fails, or where opening the artifact
    would run code and `trust` is False."""
    manifest = read_manifest(folder)
    if target(manifest.target).RUNS_CODE and not trust:
        raise InputError(
            f"{folder}: opening a {manifest.target} export runs what its files hold; add --trust if you made them or "
            "trust who did"
        )
    return _verified(manifest, student_of(folder), spec, check, work)


def verify_made(folder: Path, student: MlpStudent, spec: EnvSpec | None, check: Check, work: Work) -> dict[str, Any]:
    """The checks of a folder that this process has just written."""
    return _verified(read_manifest(folder), student, spec, check, work)


def _verified(
    manifest: Manifest, student: MlpStudent, spec: EnvSpec | None, check: Check, work: Work
) -> dict[str, Any]:
    runtime = target(manifest.target).load(manifest.folder, manifest.interface, manifest.facts)
    with work.stage("replay", total=testing.COUNT):
        replayed = replay(manifest, runtime)
        work.advance(testing.COUNT)
    document = {
        "target": manifest.target,
        "vectors": replayed,
        "latency": _latency(manifest, runtime),
        "episodes": None,
    }
    if check.episodes and spec is not None:
        document["episodes"] = play(manifest, runtime, student, spec, check, work)
    return {**document, "passed": True}


def _latency(manifest: Manifest, runtime: Runtime) -> dict[str, Any]:
    """Microseconds of one observation on this machine, called from Python."""
    feed = testing.read(manifest.folder, manifest.interface).feed
    rows = [feed.rows(slice(row, row + 1)) for row in range(min(64, len(feed)))]
    spent = []
    for call in range(_WARM + _TIMED):
        begin = time.perf_counter_ns()
        runtime(rows[call % len(rows)])
        spent.append((time.perf_counter_ns() - begin) / 1e3)
    measured = spent[_WARM:]
    machine = f"{platform.machine()}, {platform.system()}"
    return {"median_us": float(np.median(measured)), "p99_us": float(np.quantile(measured, 0.99)), "machine": machine}


def replay(manifest: Manifest, runtime: Runtime) -> dict[str, Any]:
    """The test vectors, all at once and some one by one; InputError that says how many differ, and the worst."""
    wanted = testing.read(manifest.folder, manifest.interface)
    n = len(wanted.feed)
    found = runtime(wanted.feed)
    wrong = _wrong(manifest, found, wanted)
    for row in range(0, n, 16):
        alone = runtime(wanted.feed.rows(slice(row, row + 1)))
        joined = {name: value[row : row + 1] for name, value in found.items()}
        for name, value in alone.items():
            if np.shape(value) != np.shape(joined[name]):
                raise InputError(f"{manifest.folder}: {name} has shape {np.shape(value)} for one observation")
        one = testing.Vectors(
            wanted.feed.rows(slice(row, row + 1)), wanted.action[row : row + 1], wanted.outputs[row : row + 1],
            wanted.margin[row : row + 1],
        )  # fmt: skip
        wrong[row] |= bool(_wrong(manifest, alone, one)[0])
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{manifest.folder}: the {manifest.target} artifact is not the student: {int(wrong.sum())} of {n} test "
            f"vectors differ by more than the tolerance; vector {first} gives "
            f"{np.asarray(found[ACTION])[first].tolist()}, expected {np.asarray(wanted.action)[first].tolist()}"
        )
    return {"count": n, "worst": _worst(manifest, found, wanted)}


def _wrong(manifest: Manifest, found: dict[str, Array], wanted: testing.Vectors) -> np.ndarray:
    """[B]: which vectors differ."""
    tolerance, interface = manifest.tolerance, manifest.interface
    n = len(wanted.feed)
    action = np.asarray(found[ACTION])
    if action.shape != wanted.action.shape:
        raise InputError(f"{manifest.folder}: actions have shape {action.shape}, expected {wanted.action.shape}")
    if tolerance.action is not None:
        wrong = tolerance.action.exceeded(action, wanted.action).any(-1)
    else:
        differ = (action.reshape(n, -1) != wanted.action.reshape(n, -1)) & (wanted.margin > tolerance.margin)
        wrong = differ.any(-1)
    if interface.distribution:
        wrong = wrong | tolerance.outputs.exceeded(found[interface.distribution[0]], wanted.outputs).any(-1)
    return np.asarray(wrong)


def _worst(manifest: Manifest, found: dict[str, Array], wanted: testing.Vectors) -> float:
    """The largest part of its tolerance that a number of an action is off; of choices, the part that differ."""
    n, bound = len(wanted.feed), manifest.tolerance.action
    action, expected = (np.asarray(x, np.float64).reshape(n, -1) for x in (found[ACTION], wanted.action))
    if bound is None:
        return float((action != expected).mean())
    return float((np.abs(action - expected) / (bound.absolute + bound.relative * np.abs(expected))).max())


class _InLoop:
    """Acts in episodes by a runtime, or by the reference graph."""

    takes_turn = True

    def __init__(self, interface: Interface, packing: Packing, act: Any) -> None:
        self._interface, self._packing, self._act = interface, packing, act
        self._rng = np.random.default_rng(0)

    def __call__(self, observation: Array, turn: Turn | None = None) -> Array:
        """Environment actions [B, ...] for packed observations [B, *O]."""
        interface = self._interface
        shape = (len(observation), interface.noise_size)
        noise = random_noise(interface.law, shape, self._rng) if interface.noise_size else None
        mask = turn.mask if interface.mask_size and turn is not None else None
        action = self._act(Feed(split(self._packing, observation), mask, noise))
        dtype = interface.action.dtype
        return np.asarray(action).astype(dtype).reshape(len(observation), *interface.action.shape)


def play(
    manifest: Manifest, runtime: Runtime, student: MlpStudent, spec: EnvSpec, check: Check, work: Work
) -> dict[str, Any]:
    """Whole episodes of the artifact and of the student on the same seeds; InputError where they are not worth the
    same: where the mean difference is neither within chance (3.5 standard errors, paired by seed) nor small."""
    seeds = range(FIRST_SEED, FIRST_SEED + max(check.episodes, 2))
    interface, packing = manifest.interface, student.packing
    with work.stage("play", total=2 * len(seeds)):
        artifact = _InLoop(interface, packing, lambda feed: runtime(feed)[ACTION])
        theirs = run_episodes(spec, artifact, seeds, work)
        if interface.noise_size:
            graph: Graph = graph_of(student, stochastic=True)
            own: Any = _InLoop(interface, packing, lambda feed: run(graph, feed, np.float32).action)
        else:
            own = policy_actor(student, True, 0)
        ours = run_episodes(spec, own, seeds, work)
    gap = theirs.returns - ours.returns
    error = float(np.std(gap, ddof=1) / np.sqrt(len(gap)))
    small = _SHARE * (abs(float(ours.returns.mean())) + float(ours.returns.std()))
    document = {
        "count": len(seeds),
        "seeds": [seeds[0], seeds[-1]],
        "artifact": return_summary(theirs.returns),
        "student": return_summary(ours.returns),
        "equal": int((gap == 0).sum()),
    }
    if abs(float(gap.mean())) > max(_T * error, small):
        raise InputError(
            f"{manifest.folder}: in the loop the {manifest.target} artifact returns {theirs.returns.mean():.4g}, the "
            f"student {ours.returns.mean():.4g} over the same {len(seeds)} episodes; they are not the same policy"
        )
    return document
