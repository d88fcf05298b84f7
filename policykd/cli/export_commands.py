"""`policykd export` and `policykd verify`: options in, `policykd.api` called, documents out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from policykd.cli.commands import AllowImport, AsJson, EnvId, app
from policykd.spine.errors import InputError


@app.command()
def export(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="A student or a run folder.")],
    to: Annotated[str, typer.Option(metavar="TARGET", help="onnx, c, torch, sb3 or json, or several with commas.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="By default exports/TARGET beside the student.")
    ] = None,
    env: EnvId = None,
    allow_import: AllowImport = False,
    stochastic: Annotated[bool, typer.Option("--stochastic", help="Sample, from noise that is an input.")] = False,
    with_distribution: Annotated[
        bool, typer.Option("--with-distribution", help="Logits, or mean and log_std, as outputs too.")
    ] = False,
    vectors: Annotated[str, typer.Option(metavar="KIND", help="Test vectors: recorded, or synthetic.")] = "recorded",
    opset: Annotated[int, typer.Option(metavar="N", help="Of ONNX, 11 to 21.")] = 17,
    episodes: Annotated[int, typer.Option(metavar="N", min=0, help="Played to verify it; 0 plays none.")] = 20,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove what was written.")] = True,
    as_json: AsJson = False,
) -> int:
    """Write a student for other programs, with its proof.

    Each folder holds the files of its target, test vectors, a model card and a manifest, and is verified at once.
    """
    from policykd.cli.output import print_document, watched
    from policykd.spine.config.schema import EnvConfig

    if vectors not in ("recorded", "synthetic"):
        raise InputError(f"--vectors {vectors}: expected recorded or synthetic")
    with watched() as (tracker, stop):
        from policykd import api
        from policykd.exports.bundle import Wishes
        from policykd.exports.targets.table import Options

        kind: Any = vectors
        where = EnvConfig(id=env, allow_import=allow_import)
        how = Wishes(stochastic, with_distribution, kind, verify, episodes, Options(opset), where)
        written = api.export(student, to, out, how=how, tracker=tracker, stop=stop)
    print_document({one["target"]: one for one in written}, as_json=as_json)
    return 0


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="EXPORT_DIR", help="A folder that policykd export wrote.")],
    env: EnvId = None,
    allow_import: AllowImport = False,
    trust: Annotated[bool, typer.Option("--trust", help="Let its files run code: compiled C, torch, SB3.")] = False,
    episodes: Annotated[int, typer.Option(metavar="N", min=0, help="Whole episodes; 0 plays none.")] = 20,
    as_json: AsJson = False,
) -> int:
    """Prove an export on its real runtime.

    Replays its test vectors, then plays whole episodes with it and compares returns with the student's.
    """
    from policykd.cli.output import print_document, watched
    from policykd.spine.config.schema import EnvConfig

    where = EnvConfig(id=env, allow_import=allow_import)
    with watched() as (tracker, stop):
        from policykd import api

        found = api.verify(folder, episodes=episodes, trust=trust, env=where, tracker=tracker, stop=stop)
    print_document(found, as_json=as_json)
    return 0
