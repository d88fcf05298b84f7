"""`hf:ORG/REPO[@COMMIT]`: the few files of a teacher from the Hugging Face Hub, at one commit, in the Hub's own cache.

The cache, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and a token are huggingface_hub's business. Its telemetry is turned off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError

PREFIX = "hf:"
SETTINGS = ("config.yml", "args.yml", "env_kwargs.yml", "vec_normalize.pkl", "vecnormalize.pkl")
"""Files beside the zip that say how the teacher was trained; nothing else is downloaded."""

_NOT_A_MODEL = "train_eval_metrics.zip"  # the zoo's curves
_MAX_ZIP, _MAX_SETTINGS = 2**30, 2**26  # bytes
_REFERENCE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFiles:
    """What was fetched: `source` names the commit, `folder` holds the zip and the settings that the repository has."""

    source: str
    folder: Path
    zip_path: Path
    notes: tuple[str, ...]


def fetch(source: str) -> HubFiles:
    """The files of a teacher; InputError, in one line, for what is not there, not reachable or not clear.

    With HF_HUB_OFFLINE=1 only what the cache holds of the commit.
    """
    match = _REFERENCE.fullmatch(source)
    if match is None:
        raise InputError(f"{source}: expected hf:ORG/REPO or hf:ORG/REPO@COMMIT, such as hf:sb3/ppo-CartPole-v1")
    hub = _library(source)
    with _quiet(hub), _in_one_line(source):
        if hub.constants.HF_HUB_OFFLINE:
            return _cached(hub, source, match["repo"], match["revision"])
        return _downloaded(hub, source, match["repo"], match["revision"])


def _library(source: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise InputError(
            f"{source}: needs huggingface_hub, which is not installed: pip install 'policykd[hub]'"
        ) from error
    return huggingface_hub


def _downloaded(hub: Any, source: str, repo: str, revision: str | None) -> HubFiles:
    info = hub.HfApi(library_name="policykd").model_info(repo, revision=revision, files_metadata=True)
    commit, sizes = str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if not _COMMIT.fullmatch(commit):
        raise InputError(f"{source}: the Hub names no commit ({commit[:60]!r}): check HF_ENDPOINT")
    name = _choose(source, repo, list(sizes))
    wanted = [*(setting for setting in SETTINGS if setting in sizes), name]
    for file in wanted:
        limit = _MAX_ZIP if file == name else _MAX_SETTINGS
        if sizes[file] > limit:
            raise InputError(f"{source}: {file} has {sizes[file]:,} bytes, expected at most {limit:,}: not fetched")
    # The zip comes last: a cache that holds it holds the settings that belong to it.
    paths = [Path(hub.hf_hub_download(repo, file, revision=commit, library_name="policykd")) for file in wanted]
    notes = () if commit == revision else (f"{PREFIX}{repo} is at commit {commit}",)
    return HubFiles(f"{PREFIX}{repo}@{commit}", paths[-1].parent, paths[-1], notes)


def _cached(hub: Any, source: str, repo: str, revision: str | None) -> HubFiles:
    """What an earlier run fetched; a branch stands for the commit that it was then."""
    folder = Path(hub.snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[*SETTINGS]))
    name = _choose(source, repo, [path.name for path in folder.iterdir()])
    note = f"{PREFIX}{repo} is at commit {folder.name} in the cache (HF_HUB_OFFLINE)"
    return HubFiles(f"{PREFIX}{repo}@{folder.name}", folder, folder / name, (note,))


def _choose(source: str, repo: str, files: list[str]) -> str:
    """The repository's one zip at the top, or the one of several that has its name."""
    zips = sorted(file for file in files if file.endswith(".zip") and "/" not in file and file != _NOT_A_MODEL)
    if len(zips) == 1:
        return zips[0]
    named = f"{repo.partition('/')[2]}.zip"
    if named in zips:
        return named
    if not zips:
        shown = ", ".join(sorted(files)[:5]) or "nothing"
        raise InputError(
            f"{source}: holds no zip of a stable-baselines3 model (found {shown}): choose another repository"
        )
    raise InputError(
        f"{source}: holds several zips ({', '.join(zips[:5])}), none of them {named}: download one and pass its path"
    )


@contextmanager
def _quiet(hub: Any) -> Iterator[None]:
    """Without telemetry and without progress bars of its own."""
    hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # asked at every request, so this is in time
    shown = not hub.utils.are_progress_bars_disabled()
    if shown:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            hub.utils.enable_progress_bars()


@contextmanager
def _in_one_line(source: str) -> Iterator[None]:
    from huggingface_hub import errors

    transport: Any = errors.HfHubHTTPError.__bases__[0]  # HTTPError of requests, httpx or httpx2, by its version
    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{source}: the repository has no such commit or branch; leave @COMMIT out, or mend it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{source}: no such repository, or a private one: check the name, or log in with `hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise InputError(
            f"{source}: is not in the cache, and the Hub cannot be reached (no network, or HF_HUB_OFFLINE is set): go "
            "online once, or download the zip and pass its path"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        raise InputError(f"{source}: the Hub answers with {status}: try again later") from error
    except (transport, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise InputError(
            f"{source}: cannot be fetched ({type(error).__name__}: {said}): check the network and HF_ENDPOINT; "
            "HF_HUB_OFFLINE=1 opens what the cache holds"
        ) from error
