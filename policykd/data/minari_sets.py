"""Stored data as a Minari data set (https://minari.farama.org): whole episodes, with the labels in their infos."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policykd.data.stored import Layout, Stored
from policykd.rollout.envs import EnvSpec, make_env
from policykd.spine.errors import InputError, brief
from policykd.spine.files import make_folder
from policykd.spine.packing import Leaf, Packing, packing_of
from policykd.spine.types import Progress

_ROOT = "MINARI_DATASETS_PATH"
_HINT = "choose another --minari ID, or another version"


def minari_root(folder: Path) -> Path:
    """Where Minari looks for data sets, where the user said so; else `folder`/minari."""
    said = os.environ.get(_ROOT)
    return Path(said).expanduser() if said else folder / "minari"


def refuse_taken(name: str) -> None:
    """InputError where Minari is not installed, or has such a data set already."""
    _minari()
    if os.environ.get(_ROOT) and (minari_root(Path()) / name).exists():
        raise InputError(f"--minari {name}: {minari_root(Path()) / name} exists; {_HINT}")


def write_minari(stored: Stored, layout: Layout, spec: EnvSpec, name: str, progress: Progress) -> Path:
    """Writes the data set beside its place, and moves it there when it is whole; returns its folder.

    An episode that the end of a shard cut is truncated one step earlier, since its last observation is not there.
    """
    minari = _minari()
    from minari.dataset.minari_storage import MinariStorage

    root = minari_root(stored.path)
    place = root / name
    if place.exists():
        if stored.document.get("minari") == name:
            return place
        raise InputError(f"--minari {name}: {place} exists; {_HINT}")
    staging = place.with_name(f".{place.name}.policykd")
    shutil.rmtree(staging, ignore_errors=True)
    make_folder(staging)
    env = make_env(spec)
    try:
        packing = spec.packing or packing_of(env.observation_space)
        spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
        known = env.spec if spec.factory is None else None
        storage = MinariStorage.new(staging / "data", env_spec=known, jpeg_encoding=False, **spaces)
    finally:
        env.close()
    about = stored.document["about"]
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            "algorithm_name": str(about["teacher"]["algo"]),
            "author": {"policykd"},
            "description": f"{about['env']}, labelled by a teacher of sha256 {about['teacher']['sha256']}; "
            "infos: teacher_params, actor (-1: the teacher), and mask where actions are masked",
        }
    )
    for index in range(len(stored.shards)):
        progress.check()
        columns = stored.read(index, layout)
        storage.update_episodes(_episodes(columns, packing))
        progress.advance()
    _place(staging, place, root)
    stored.document["minari"] = name
    stored.save()
    return place


def _episodes(columns: dict[str, NDArray[Any]], packing: Packing) -> Iterator[Any]:
    """The shard's episodes as Minari's buffers: T actions, rewards and infos, T + 1 observations."""
    from minari.data_collector import EpisodeBuffer

    begins = np.flatnonzero(columns["start"])
    done, last = columns["terminated"] | columns["truncated"], iter(columns["last"])
    for begin, end in zip(begins, [*begins[1:], len(done)], strict=True):
        truncated = columns["truncated"][begin:end].copy()
        if done[end - 1]:
            seen, stop = np.concatenate([columns["observation"][begin:end], next(last)[None]]), end
        else:
            seen, stop = columns["observation"][begin:end], end - 1
            truncated = truncated[:-1]
            truncated[-1:] = True
        if stop == begin:
            continue
        infos = {"teacher_params": columns["params"][begin:stop], "actor": columns["actor"][begin:stop]}
        if "mask" in columns:
            infos["mask"] = columns["mask"][begin:stop]
        yield EpisodeBuffer(
            observations=_unpacked(seen, packing),
            actions=columns["action"][begin:stop],
            rewards=columns["reward"][begin:stop],
            terminations=columns["terminated"][begin:stop],
            truncations=truncated,
            infos=infos,
        )


def _unpacked(seen: NDArray[Any], packing: Packing) -> Any:
    """Packed observations [T, *shape] as the space has them: an array, or one for each entry of a Dict or Tuple."""
    if packing.plain:
        return seen.astype(packing.leaves[0].dtype, copy=False)
    tree: dict[Any, Any] = {}
    for leaf in packing.leaves:
        branch = tree
        for key in leaf.path[:-1]:
            branch = branch.setdefault(key, {})
        branch[leaf.path[-1]] = _leaf(seen, leaf, packing)
    return _tuples(tree)


def _leaf(seen: NDArray[Any], leaf: Leaf, packing: Packing) -> NDArray[Any]:
    values: NDArray[Any] = packing.leaf_of(seen, leaf).astype(leaf.dtype)
    return values


def _tuples(tree: Any) -> Any:
    """Entries that are named by numbers are those of a Tuple."""
    if not isinstance(tree, dict):
        return tree
    inner = {key: _tuples(value) for key, value in tree.items()}
    return tuple(inner[i] for i in range(len(inner))) if 0 in inner else inner


def _place(staging: Path, place: Path, root: Path) -> None:
    """Moves the whole data set to where Minari finds it, with the folders around it as Minari's namespaces."""
    for parent in place.parents:
        if parent == root:
            break
        record = parent / "namespace_metadata.json"
        if not record.exists():
            record.write_text("{}")
    staging.rename(place)


def _minari() -> Any:
    try:
        import h5py  # noqa: F401  # Minari's storage
        import minari
    except ImportError as error:
        raise InputError(
            f"--minari: the package is not installed ({brief(error)}): pip install 'policykd[minari]', or leave "
            "--minari out"
        ) from None
    return minari
