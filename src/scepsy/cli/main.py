"""The entry point: gathers the commands, turns our errors into exit code 1."""

import os
import sys
from typing import Annotated

import typer

from scepsy import __version__
from scepsy.cli import calibrate, demand, deploy, engine, gateway, plan, profile, simulate, traces
from scepsy.cli.output import err, fail
from scepsy.errors import ScepsyError

app = typer.Typer(
    name="scepsy",
    help="Plan and serve agentic workflows that call several LLMs on one GPU cluster.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


app.command()(demand.demand)
app.add_typer(traces.app, name="traces")
app.command()(engine.engine)
app.command()(gateway.gateway)
app.command()(profile.profile)
app.command()(plan.plan)
app.command()(simulate.simulate)
app.command()(calibrate.calibrate)
app.add_typer(deploy.app, name="deploy")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scepsy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Plan and serve agentic workflows that call several LLMs on one GPU cluster."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ScepsyError as error:
        try:
            fail(error)
        except typer.Exit as exit_:
            sys.exit(exit_.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our stdout left, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
