"""The proof of an export: its test vectors on the real runtime, then whole episodes with the artifact in the loop."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.evaluation.stats import return_summary
from policykd.exports import vectors as testing
from policykd.exports.graph import Array, Feed, Graph
from policykd.exports.interface import ACTION, STATE_OUT, Interface, Runtime, interface_of, random_noise
from policykd.exports.manifest import Manifest, read_manifest
from policykd.exports.of_student import exportable, graph_of, split
from policykd.exports.reference import run
from policykd.exports.stepwise import stepwise
from policykd.exports.targets.table import target
from policykd.exports.tolerance import Tolerance
from policykd.learn.setup.session import Work
from policykd.rollout.envs import EnvSpec
from policykd.spine.errors import InputError, brief
from policykd.spine.types import Turn
from policykd.students.load import load_student
from policykd.students.student import Student
from policykd.students.view import Partial

FIRST_SEED = 10_000
_CHANCE = 0.001  # that equal policies are taken for different ones (Student's t, paired by seed)
_SHARE = 0.02  # of the student's own spread and level: a smaller loss is none

_WARM, _TIMED = 20, 300  # calls, one observation each


@dataclass(frozen=True)
class Check:
    """How much is played: episodes with the seeds FIRST_SEED ..., 0 for none."""

    episodes: int = 20


@dataclass(frozen=True)
class Stage:
    """Where episodes are played: the environment, and the student as it acts there, which may show more than it
    sees."""

    spec: EnvSpec
    actor: Student | Partial


def student_of(folder: Path) -> Student:
    """The student that lies in an export folder, as data."""
    return exportable(load_student(folder / "student.safetensors"), str(folder))


def verify_folder(folder: Path, stage: Stage | None, check: Check, work: Work, *, trust: bool) -> dict[str, Any]:
    """The checks of an export folder from anywhere; InputError where something fails, or where opening the artifact
    would run code and `trust` is False."""
    manifest = read_manifest(folder)
    if target(manifest.target).RUNS_CODE and not trust:
        raise InputError(
            f"{folder}: opening a {manifest.target} export runs what its files hold; add --trust if you made them or "
            "trust who did"
        )
    return _verified(manifest, student_of(folder), stage, check, work)


def verify_made(folder: Path, student: Student, stage: Stage | None, check: Check, work: Work) -> dict[str, Any]:
    """The checks of a folder that this process has just written."""
    return _verified(read_manifest(folder), student, stage, check, work)


def _verified(manifest: Manifest, student: Student, stage: Stage | None, check: Check, work: Work) -> dict[str, Any]:
    graph = _graph(manifest, student)
    runtime = target(manifest.target).load(manifest.folder, manifest.interface, manifest.facts)
    with work.stage("replay", total=testing.COUNT):
        replayed = replay(manifest, runtime, graph)
        work.advance(testing.COUNT)
    speed = _latency(manifest, runtime)
    document = {"target": manifest.target, "vectors": replayed, "latency": speed, "episodes": None}
    if check.episodes and stage is not None:
        document["episodes"] = play(manifest, runtime, student, stage, check, work)
    return {**document, "passed": True}


def _graph(manifest: Manifest, student: Student) -> Graph:
    """The graph of the student in the folder; InputError where the manifest is that of another."""
    interface = manifest.interface
    graph = graph_of(student, stochastic=interface.noise_size > 0, with_distribution=bool(interface.distribution))
    if interface_of(graph) != interface:
        raise InputError(f"{manifest.folder}: its manifest is not that of the student in it; export the student again")
    return graph


def replay(manifest: Manifest, runtime: Runtime, graph: Graph) -> dict[str, Any]:
    """The test vectors, all at once and some one by one; InputError that says how many differ. Of a graph with a
    memory: all sequences side by side, and some alone, step by step, each step judged from the state that the runtime
    itself left behind. (Judged from the start of the sequence, errors that a student amplifies would hide others.)

    What must come out, and how near, is computed from the student anew, not believed.
    """
    stored = testing.read(manifest.folder, manifest.interface)
    n, lanes = len(stored.feed), stored.lanes
    if stored.state is not None:
        wanted = testing.steps_of(graph, stored, stored.state)
    else:
        wanted, tolerance = testing.proof_of(graph, stored.feed)
    if n < testing.COUNT or not _same(stored, wanted):
        raise InputError(f"{manifest.folder}: its test vectors are not those of the student; export the student again")
    if lanes:
        tolerance = testing.tolerance_of_steps(graph, stored)
        found, wanted = _carried(manifest, runtime, graph, stored)
    else:
        found = _run(manifest, runtime, wanted.feed)
    wrong = _wrong(manifest, tolerance, graph, found, wanted)
    for row in range(0, 0 if lanes else n, 16):
        one = wanted.rows(slice(row, row + 1))
        wrong[row] |= bool(_wrong(manifest, tolerance, graph, _run(manifest, runtime, one.feed), one)[0])
    for lane in range(0, lanes, 3):
        alone = _carried(manifest, runtime, graph, stored.lane(lane))
        wrong[lane::lanes] |= _wrong(manifest, tolerance, graph, *alone)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{manifest.folder}: the {manifest.target} artifact is not the student: {int(wrong.sum())} of {n} test "
            f"vectors differ by more than the tolerance; vector {first} gives {brief(found[ACTION][first].tolist())}, "
            f"expected {brief(wanted.action[first].tolist())}"
        )
    return {"count": n, "worst": _worst(tolerance, found, wanted)}


def _same(stored: testing.Vectors, wanted: testing.Vectors) -> bool:
    """Whether the vectors say what the student does; another machine's last bits may differ."""
    pairs = [(stored.action, wanted.action), (stored.outputs, wanted.outputs)]
    if stored.state is not None and wanted.state is not None:
        pairs.append((stored.state, wanted.state))
    return all(np.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in pairs)


def _carried(
    manifest: Manifest, runtime: Runtime, graph: Graph, stored: testing.Vectors
) -> tuple[dict[str, Array], testing.Vectors]:
    """What the runtime gives over whole sequences, its own state going in again, and what each step must give."""
    size = manifest.interface.state_size
    found = stepwise(lambda feed: _run(manifest, runtime, feed), stored.feed, stored.lanes, size)
    return found, testing.steps_of(graph, stored, found[STATE_OUT])


def _run(manifest: Manifest, runtime: Runtime, feed: Feed) -> dict[str, Array]:
    """What the runtime gives; InputError where it fails, or gives something of another shape."""
    try:
        found = runtime(feed)
    except InputError:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        said = f"{type(error).__name__}: {brief(error)}"
        raise InputError(
            f"{manifest.folder}: the {manifest.target} artifact cannot be run ({said}); export the student again"
        ) from error
    interface = manifest.interface
    shapes = {ACTION: (len(feed), *interface.action.shape)}
    shapes |= {name: (len(feed), interface.n_outputs) for name in interface.distribution}
    shapes |= {STATE_OUT: (len(feed), interface.state_size)} if interface.state_size else {}
    for name, shape in shapes.items():
        if name not in found or np.shape(found[name]) != shape:
            seen = np.shape(found[name]) if name in found else "nothing"
            raise InputError(f"{manifest.folder}: {name} has shape {seen}, expected {shape}; export the student again")
    return {name: np.asarray(found[name]) for name in shapes}


def _wrong(
    manifest: Manifest, tolerance: Tolerance, graph: Graph, found: dict[str, Array], wanted: testing.Vectors
) -> np.ndarray:
    """[B]: which vectors differ."""
    n, names = len(wanted.feed), manifest.interface.distribution
    if tolerance.action is not None:
        wrong = tolerance.action.exceeded(found[ACTION], wanted.action).any(-1)
    else:
        differ = found[ACTION].reshape(n, -1) != wanted.action.reshape(n, -1)
        wrong = (differ & (wanted.margin > tolerance.margin)).any(-1)
    if names:
        wrong = wrong | tolerance.outputs.exceeded(found[names[0]], wanted.outputs).any(-1)
    if "log_std" in names:
        wrong = wrong | ~np.isclose(found["log_std"], graph.head.log_std, rtol=1e-6, atol=1e-7).all(-1)
    if tolerance.state is not None and wanted.state is not None:
        wrong = wrong | tolerance.state.exceeded(found[STATE_OUT], wanted.state).any(-1)
    return np.asarray(wrong)


def _worst(tolerance: Tolerance, found: dict[str, Array], wanted: testing.Vectors) -> float:
    """The largest part of its tolerance that a number of an action is off; of choices, the part that differ."""
    n, bound = len(wanted.feed), tolerance.action
    action, expected = (np.asarray(x, np.float64).reshape(n, -1) for x in (found[ACTION], wanted.action))
    if bound is None:
        return float((action != expected).mean())
    return float((np.abs(action - expected) / (bound.absolute + bound.relative * np.abs(expected))).max())


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


class _InLoop:
    """Acts in episodes by a runtime, or by the reference graph: `act` gives what comes out by name. What it remembers
    is kept here, for each environment its own."""

    takes_turn = True

    def __init__(self, interface: Interface, ports: Callable[[Array], tuple[Array, ...]], act: Runtime) -> None:
        self._interface, self._ports, self._act = interface, ports, act
        self._rng = np.random.default_rng(0)
        self._state = np.full((0, interface.state_size), np.nan, np.float32)

    def __call__(self, observation: Array, turn: Turn) -> Array:
        """Environment actions [B, ...] for packed observations [B, *O]."""
        interface = self._interface
        shape = (len(observation), interface.noise_size)
        noise = random_noise(interface.law, shape, self._rng) if interface.noise_size else None
        feed = Feed(self._ports(observation), turn.mask if interface.mask_size else None, noise)
        action = (self._remembering(feed, turn) if interface.state_size else self._act(feed))[ACTION]
        return np.asarray(action).astype(interface.action.dtype).reshape(len(observation), *interface.action.shape)

    def _remembering(self, feed: Feed, turn: Turn) -> dict[str, Array]:
        missing = max(int(turn.slot.max()) + 1 - len(self._state), 0)
        self._state = np.pad(self._state, ((0, missing), (0, 0)), constant_values=np.nan)
        found = self._act(replace(feed, state=self._state[turn.slot], start=turn.start))
        self._state[turn.slot] = found[STATE_OUT]
        return found


def _reference(graph: Graph) -> Runtime:
    """The graph in float32 as a runtime."""

    def act(feed: Feed) -> dict[str, Array]:
        result = run(graph, feed, np.float32)
        return {ACTION: result.action} | ({} if result.state is None else {STATE_OUT: result.state})

    return act


def play(
    manifest: Manifest, runtime: Runtime, student: Student, stage: Stage, check: Check, work: Work
) -> dict[str, Any]:
    """Whole episodes of the artifact and of the student on the same seeds; InputError where they are not worth the
    same: where the mean difference is neither within chance (99.9 % by Student's t, paired by seed) nor small."""
    seeds = range(FIRST_SEED, FIRST_SEED + check.episodes)
    interface = manifest.interface

    def ports(observation: Array) -> tuple[Array, ...]:
        return split(student.packing, observation, stage.actor.packing)

    with work.stage("play", total=2 * len(seeds)):
        theirs = run_episodes(stage.spec, _InLoop(interface, ports, runtime), seeds, work)
        if interface.noise_size:
            own: Any = _InLoop(interface, ports, _reference(graph_of(student, stochastic=True)))
        else:
            own = policy_actor(stage.actor, True, 0)
        ours = run_episodes(stage.spec, own, seeds, work)
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
    from scipy.special import stdtrit

    if abs(float(gap.mean())) > max(float(stdtrit(len(gap) - 1, 1 - _CHANCE / 2)) * error, small):
        raise InputError(
            f"{manifest.folder}: in the loop the {manifest.target} artifact returns {theirs.returns.mean():.4g}, the "
            f"student {ours.returns.mean():.4g} over the same {len(seeds)} episodes; they are not the same policy"
        )
    return document
