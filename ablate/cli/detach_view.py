"""What `run --detach` prints: who runs the study now, and how to watch and to end it."""

import shlex
from pathlib import Path

import typer

from ablate.cli.options import HERE
from ablate.execution.detached.detach import Detached


def print_detached(detached: Detached, study: str, root: Path) -> None:
    if detached.waits:
        typer.echo(f"{study} will be run by {detached.who}, which is in the queue: {detached.waits}")
    elif detached.unseen:
        typer.echo(f"{study} was given to {detached.who}, which {detached.unseen}")
    else:
        typer.echo(f"{study} is run by {detached.who}")
    at = "" if root == HERE else f" --root {shlex.quote(str(root))}"
    typer.echo(f"  how it goes:      ablate status {study} --watch{at}")
    typer.echo(f"  as a page:        ablate report {study} --watch{at}")
    typer.echo(f"  to end it:        ablate stop {study}{at}")
    typer.echo(f"  what it prints:   {detached.log}")
