"""The command `ablate`: its verbs, and what becomes of an error."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ablate.cli.options import HERE, Root
from ablate.cli.progress_verbs import logs, status, stop
from ablate.cli.result_verbs import diff, export, report
from ablate.cli.row_verbs import compare, results
from ablate.cli.study_verbs import data, explain, new, plan, run, schema, validate
from ablate.cli.upkeep_verbs import doctor, gc, verify
from ablate.core.errors import AblateError
from ablate.core.failures import is_of_disk

app = typer.Typer(
    name="ablate",
    help="Ablation studies of knowledge distillation: a study file in, comparison tables and loss curves out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

VERBS = (
    validate,
    plan,
    data,
    run,
    status,
    stop,
    logs,
    report,
    results,
    compare,
    explain,
    export,
    diff,
    verify,
    gc,
    doctor,
    schema,
    new,
)
"""In the order of `ablate --help`."""
for verb in VERBS:
    app.command()(verb)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from ablate import __version__

        typer.echo(f"ablate {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
]


@app.callback()
def _common(root: Root = HERE, version: Version = False) -> None:
    os.environ["ABLATE_ROOT"] = str(root)  # where the verb, whose options are read next, looks for it


def main(call: Callable[[], Any] = app) -> None:
    """Runs a verb; an error made for a reader is printed without a traceback and ends with its exit code."""
    try:
        call()
    except AblateError as error:
        typer.echo(f"error: {error}" if "\n" not in str(error) else str(error), err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # of this machine: a folder that cannot be made or written, a disk that is full
        is_passing = is_of_disk(error)
        then = "; then the same command goes on" if is_passing else ""
        typer.echo(f"error: {error.filename or 'this machine'}: {error.strerror or error}{then}", err=True)
        sys.exit(75 if is_passing else 2)
    except KeyboardInterrupt:
        sys.exit(130)
