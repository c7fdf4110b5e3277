"""What commands share: errors in words, the settings of a home, and values that options have in common."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from neuralpile_dagster.errors import ConfigurationError, NeuralPileError
from neuralpile_dagster.process import sending_interrupts_again
from neuralpile_dagster.settings import Settings

DEMO_HOME = "~/.neuralpile-demo"
LOCALHOST = "127.0.0.1"
PORT = click.IntRange(1, 65535)
INTERRUPTED = 130
"""Exit code of a command stopped by Ctrl-C, as in shells."""


def plain_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show our own errors, and what this machine lacks (memory, files), as one paragraph with exit code 1.

    Any other error is a defect and keeps its traceback.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            with sending_interrupts_again():
                return command(*args, **kwargs)
        except NeuralPileError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            from neuralpile_dagster.files import resource_error

            lacking = resource_error(error)
            if lacking is None:
                raise
            raise click.ClickException(str(lacking)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted. Completed work is kept; run the same command again to resume.", err=True)
            sys.exit(INTERRUPTED)

    return wrapped


def settings_of_home() -> Settings:
    """Settings of the environment, for a command that only looks: a home that is a file would look like an empty one.

    Raises `ConfigurationError` for it.
    """
    settings = Settings.from_environment()
    if settings.home.exists() and not settings.home.is_dir():
        raise ConfigurationError(
            "NEURALPILE_HOME is not a folder",
            found=f"{settings.home}, a file",
            expected="the folder of a home, or the path of one to be made",
            remedy="set NEURALPILE_HOME to a folder, or leave it out",
        )
    return settings


def not_nan(context: click.Context, parameter: click.Parameter, share: float | None) -> float | None:
    """Refuse NaN, which click takes to be in every range."""
    if share is not None and math.isnan(share):
        raise click.BadParameter("nan is not in the range 0<=x<=1.", context, parameter)
    return share
