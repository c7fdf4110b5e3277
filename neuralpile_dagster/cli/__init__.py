"""``neuralpile``: the command line. Everything it builds is visible in the Dagster UI of the same home.

Arguments and output only: builds belong in `orchestration.launch`, tables in `looking`.
"""

from __future__ import annotations

import sys

import click

from neuralpile_dagster import process
from neuralpile_dagster.cli.builds import build, demo, ui
from neuralpile_dagster.cli.common import plain_errors
from neuralpile_dagster.cli.files import bin_command, export, raster
from neuralpile_dagster.cli.looking import catalog, doctor, sessions, status
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.settings import documented

__all__ = ["main"]


def _settings_help() -> str:
    rows = [f"  {variable} [{default}]: {text}" for variable, default, text in documented()]
    # click keeps the lines of a paragraph that begins with \b
    return "\n".join(["\b", "Settings (environment variables) [and their defaults]:", *rows]).replace("`", "")


@click.group(
    epilog=_settings_help(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="neuralpile-dagster")
@plain_errors
def main() -> None:
    """Build the neural pile: recordings in, spike counts out, as Hugging Face datasets.

    Environment variables, listed below, set where things are and how sessions are binned.
    """
    if sys.platform == "win32":  # file locks are fcntl's
        raise ConfigurationError(
            "neuralpile runs on Linux and macOS", found="Windows", remedy="run it in the Windows Subsystem for Linux"
        )
    from neuralpile_dagster.files import require_address_space

    process.relax_collector()
    require_address_space()


for command in (demo, catalog, sessions, build, status, doctor, bin_command, raster, export, ui):
    main.add_command(command)
