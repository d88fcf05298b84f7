"""`policykd report`: options in, `policykd.api` called, the page's place out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policykd.cli.commands import app


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
) -> int:
    """Write a run's report.html again.

    One page: size against retention, every student, curves, commands. frontier.png and frontier.svg too.
    """
    from policykd import api
    from policykd.cli.output import print_document

    print_document({"report": str(api.report(run))})
    return 0
