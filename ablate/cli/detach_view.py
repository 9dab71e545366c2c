"""What `run --detach` prints: who runs the study now, and how to watch and to end it."""

import typer

from ablate.execution.detached.detach import Detached


def print_detached(detached: Detached, study: str) -> None:
    if detached.waits:
        typer.echo(f"{study} will be run by {detached.who}, which is in the queue: {detached.waits}")
    elif detached.unseen:
        typer.echo(f"{study} was given to {detached.who}, which {detached.unseen}")
    else:
        typer.echo(f"{study} is run by {detached.who}")
    verbs = {"status": f"status {study} --watch", "stop": f"stop {study}", "report": f"report {study} --watch"}
    typer.echo(f"  how it goes:      ablate {verbs['status']}")
    typer.echo(f"  as a page:        ablate {verbs['report']}")
    typer.echo(f"  to end it:        ablate {verbs['stop']}")
    typer.echo(f"  what it prints:   {detached.log}")
