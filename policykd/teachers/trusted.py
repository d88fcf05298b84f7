"""The one place where stable-baselines3's own loader opens a file, which runs what the file holds: after --trust."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from policykd.spine.errors import InputError

_MODULES = {  # part of the policy class's module, where that is one of sb3-contrib's
    ".maskable.": "MaskablePPO",
    ".recurrent.": "RecurrentPPO",
    ".crossq.": "CrossQ",
}
_TELLS = {  # attributes that only this algorithm saves, most telling first
    "cg_max_steps": "TRPO",
    "clip_range": "PPO",
    "top_quantiles_to_drop_per_net": "TQC",
    "target_entropy": "SAC",
    "policy_delay": "TD3",
    "delta_std_schedule": "ARS",
    "n_quantiles": "QRDQN",
    "exploration_fraction": "DQN",
    "gae_lambda": "A2C",
}


def read_once(path: Path) -> tuple[bytes, str]:
    """The bytes of the file and their sha256; InputError when it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a zip of stable-baselines3") from error
    return raw, hashlib.sha256(raw).hexdigest()


def load_trusted(path: Path, raw: bytes, sha256: str, algo: str | None) -> Any:
    """The live model that the bytes hold; the file's sha256 is said on standard error before it is opened.

    InputError, in one line, when the loader fails, as it does where the file's classes cannot be imported.
    """
    shown = "".join(char if char.isprintable() else "?" for char in str(path))
    sys.stderr.write(
        f"trusted: {shown} sha256 {sha256} is opened by stable-baselines3's own loader, which runs what it holds\n"
    )
    sys.stderr.flush()
    try:
        return _class(path, raw, algo).load(io.BytesIO(raw), device="cpu")
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: stable-baselines3's own loader cannot open it ({type(error).__name__}: {said}): make the classes "
            "that it uses importable, or pass the live model in Python"
        ) from error


def _class(path: Path, raw: bytes, algo: str | None) -> Any:
    import sb3_contrib
    import stable_baselines3

    known = {name.upper(): name for name in (*_TELLS.values(), *_MODULES.values(), "DDPG")}
    known |= {"PPO_LSTM": "RecurrentPPO", "MASKABLE_PPO": "MaskablePPO", "RECURRENT_PPO": "RecurrentPPO"}
    name = known.get((algo or "").upper()) or _told(raw)
    if not name:
        raise InputError(f"{path}: does not tell its algorithm: pass the live model in Python")
    return getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)


def _told(raw: bytes) -> str:
    """The algorithm by what the zip's own data say; "" where they do not."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        data = json.loads(archive.read("data"))
    policy, kwargs = data.get("policy_class"), data.get("policy_kwargs")
    module = str(policy.get("__module__")) if isinstance(policy, dict) else ""
    tells = [named for part, named in _MODULES.items() if part in module]
    tells += [named for tell, named in _TELLS.items() if tell in data]
    name = tells[0] if tells else ""
    if name == "SAC" and "policy_delay" in data:
        return "CrossQ"
    critics = kwargs.get("n_critics") if isinstance(kwargs, dict) else None
    return "DDPG" if name == "TD3" and critics == 1 and data["policy_delay"] == 1 else name
