"""Writing an export folder: the target's files, the student, test vectors, a model card and the manifest."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policykd.evaluation.episodes import policy_actor, run_episodes
from policykd.exports import vectors as testing
from policykd.exports.card import model_card
from policykd.exports.graph import Graph
from policykd.exports.interface import interface_of
from policykd.exports.manifest import tolerance_json, write_manifest
from policykd.exports.of_student import graph_of, split
from policykd.exports.sequences import Recording, Stretch, sequences_of
from policykd.exports.targets.table import Options, target
from policykd.exports.tolerance import Tolerance
from policykd.exports.verify import Check, Stage, verify_made
from policykd.learn.setup.session import Work
from policykd.spine.artifact import save_artifact
from policykd.spine.errors import InputError
from policykd.spine.files import make_folder
from policykd.spine.spaces import encode_space
from policykd.students.student import Student

STUDENT = "student.safetensors"
_RECORDING_SEED, _RECORDING_EPISODES, _RECORDED = 3_000_000, 8, 4096


@dataclass(frozen=True)
class Wishes:
    """What the user asks of an export. `vectors`: recorded from episodes, or synthetic where recordings are private.
    `episodes`: how many are played with the artifact in the loop; 0 plays none. `verify` False writes without proof.
    `env`: an id, an EnvConfig or a function, in place of the environment that the student's file names."""

    stochastic: bool = False
    with_distribution: bool = False
    vectors: testing.Source = "recorded"
    verify: bool = True
    episodes: int = 20
    options: Options = field(default_factory=Options)
    env: Any = None


def export_student(
    student: Student, stage: Stage | None, places: Sequence[tuple[str, Path]], wishes: Wishes, work: Work
) -> list[dict[str, Any]]:
    """Writes `student` for each (target, folder), each with its proof; returns the checks, one document each.

    Nothing is left behind where one is refused: InputError for a target that cannot hold the student, a folder that
    exists, weights that are not finite, or an export that does not act as the student does.
    """
    graph = graph_of(student, stochastic=wishes.stochastic, with_distribution=wishes.with_distribution)
    places = [(name, folder.resolve()) for name, folder in places]
    for name, folder in places:
        target(name).check(graph, wishes.options)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: exists and is not empty; choose another --out, or remove it")
    made_parents = [parent for _, folder in places for parent in folder.parents if not parent.exists()]
    made = _vectors(graph, student, stage if wishes.vectors == "recorded" else None, work)
    partial = [folder.with_name(f".{folder.name}.{os.getpid()}.partial") for _, folder in places]
    try:
        documents = []
        for (name, folder), place in zip(places, partial, strict=True):
            make_folder(place)
            document = _write(name, graph, student, place, made, wishes)
            checked = verify_made(place, student, stage, Check(wishes.episodes), work) if wishes.verify else None
            if checked is not None:
                write_manifest(place, {**document, "latency": checked["latency"]})
            size = {**document["size"], **{key: value for key, value in document["facts"].items() if "bytes" in key}}
            documents.append({"target": name, "folder": str(folder), "size": size, "verified": checked})
        _put(partial, [folder for _, folder in places])
        return documents
    finally:
        for place in partial:
            shutil.rmtree(place, ignore_errors=True)
        for parent in sorted(set(made_parents), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # those that hold something stay
                parent.rmdir()


def _put(partial: Sequence[Path], folders: Sequence[Path]) -> None:
    """All folders in their places, or none."""
    done: list[Path] = []
    try:
        for place, folder in zip(partial, folders, strict=True):
            place.replace(folder)  # an empty folder there gives way
            done.append(folder)
    except OSError as error:
        for folder in done:
            shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None


@dataclass(frozen=True, eq=False)
class _Made:
    vectors: testing.Vectors
    tolerance: Tolerance
    source: testing.Source


def _vectors(graph: Graph, student: Student, stage: Stage | None, work: Work) -> _Made:
    source: testing.Source = "synthetic" if stage is None else "recorded"
    if graph.state_size:
        recording = None if stage is None else _recorded(stage, work)
        packings = (student.packing, None if stage is None else stage.actor.packing)
        feed = sequences_of(graph, recording, lambda packed: split(packings[0], packed, packings[1]))
        return _Made(*testing.proof_of(graph, feed, testing.LANES), source)
    recorded, mask = None, None
    if stage is not None:
        seeds = range(_RECORDING_SEED, _RECORDING_SEED + _RECORDING_EPISODES)
        with work.stage("record", total=len(seeds)):
            actor = policy_actor(stage.actor, True, 0)
            played = run_episodes(stage.spec, actor, seeds, work, keep_visited=_RECORDED)
        recorded, mask = split(student.packing, played.visited, stage.actor.packing), played.masks
    feed = testing.feed_of(graph, recorded, mask)
    return _Made(*testing.proof_of(graph, feed), source)


def _recorded(stage: Stage, work: Work) -> list[Stretch]:
    """What a student with a memory saw, episode by episode."""
    seeds = range(_RECORDING_SEED, _RECORDING_SEED + _RECORDING_EPISODES)
    recording = Recording(policy_actor(stage.actor, True, 0), len(seeds))
    with work.stage("record", total=len(seeds)):
        run_episodes(stage.spec, recording, seeds, work)
    return recording.episodes()


def _write(name: str, graph: Graph, student: Student, folder: Path, made: _Made, wishes: Wishes) -> dict[str, Any]:
    interface = interface_of(graph)
    provenance = {key: value for key, value in student.provenance.items() if key != "config"}
    options = Options(wishes.options.opset, {**wishes.options.metadata, "provenance": provenance})
    facts = target(name).write(graph, folder, options)
    prove = getattr(target(name), "prove", None)  # a test for the device itself, where the target has one
    if prove is not None:
        prove(graph, made.vectors, made.tolerance, folder)
    save_artifact(folder / STUDENT, *student.to_artifact())
    testing.write(made.vectors, interface, folder)
    footprint, lanes = graph.footprint, made.vectors.lanes
    count = {"count": len(made.vectors.feed), "source": made.source}
    count |= {"sequences": lanes, "steps": testing.STEPS} if lanes else {}
    document = {
        "target": name,
        "interface": interface.to_json(),
        "spaces": {
            "observation": encode_space(student.observation_space),
            "action": encode_space(student.action_space),
        },
        "units": {"observation": "raw, as the environment gives them", "action": "as the environment takes them"},
        "tolerance": tolerance_json(made.tolerance),
        "vectors": {"file": testing.FILE, **count},
        "inside": list(facts["inside"]),
        "outside": list(facts["outside"]),
        "size": {"params": footprint.params, "constants": footprint.constants, "macs": footprint.macs},
        "student": STUDENT,
        "provenance": provenance,
        "facts": facts,
        "latency": None,
    }
    (folder / "README.md").write_text(model_card(document, student, _example(name, graph)), "utf-8")
    write_manifest(folder, document)
    return document


def _example(name: str, graph: Graph) -> str:
    """How to load it, and where it has a memory how to carry the state."""
    stateful = getattr(target(name), "EXAMPLE_WITH_STATE", None)
    return stateful if graph.state_size and stateful is not None else target(name).EXAMPLE
