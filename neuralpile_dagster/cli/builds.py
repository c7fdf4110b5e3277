"""Commands that build, and serve what was built: ``demo``, ``build``, ``ui``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from neuralpile_dagster.cli.common import DEMO_HOME, LOCALHOST, PORT, not_nan, plain_errors
from neuralpile_dagster.settings import Settings


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help=f"Where to build it (default {DEMO_HOME}).")
@click.option("--no-ui", is_flag=True, help="Return when the pile is built, without serving the UI.")
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the UI.")
@plain_errors
def demo(home: Path | None, no_ui: bool, port: int) -> None:
    """Build a small pile from SYNTHETIC recordings, then serve the Dagster UI."""
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.orchestration.launch import build as launch
    from neuralpile_dagster.orchestration.serving import require_available

    for name in [name for name in os.environ if name.startswith("NEURALPILE_")]:
        if name not in ("NEURALPILE_THREADS", "NEURALPILE_CONNECTIONS"):
            del os.environ[name]  # synthetic recordings always go to the demo's own home and hub
    os.environ["NEURALPILE_HOME"] = str((home or Path(DEMO_HOME)).expanduser().absolute())
    os.environ["NEURALPILE_ARCHIVE"] = "sample"
    settings = Settings.from_environment()
    if not no_ui:
        require_available(settings.home, LOCALHOST, port, click.echo)  # fail before minutes of building
    outcome = launch(settings, list(load_catalog(settings)), merge=True, annotations=True)
    click.echo(outcome.summary())
    if outcome.failed:
        sys.exit(1)
    use = f"NEURALPILE_HOME={settings.home} NEURALPILE_ARCHIVE=sample neuralpile status"
    click.echo(f"To use this home with other commands: {use}", err=True)
    if not no_ui:
        _serve(settings, port, LOCALHOST)


_SPLIT_OPTIONS = (
    click.option("--seed", type=click.IntRange(0), help="With --merge: seed of split and shuffle."),
    click.option(
        "--split-by",
        type=click.Choice(["rows", "sessions", "subjects", "datasets"]),
        help="With --merge: what is wholly in one split.",
    ),
    click.option(
        "--split-rule",
        type=click.Choice(["permutation", "hash"]),
        help="With --merge: hash keeps each session's split when others come or go.",
    ),
    click.option(
        "--test-size",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        callback=not_nan,
        help="With --merge: share that becomes test.",
    ),
    click.option(
        "--valid-size",
        type=click.FloatRange(0, 1, max_open=True),
        callback=not_nan,
        help="With --merge: share that becomes valid.",
    ),
    click.option(
        "--hold-out",
        multiple=True,
        metavar="WHAT",
        help="With --merge, repeatable: benchmark:NAME, dataset:NAME, session:DATASET/GLOB or subject:DATASET/SUBJECT "
        "that no model may train on, besides what a pile's row in the catalog names; '' holds out nothing else.",
    ),
    click.option(
        "--held-out-go-to",
        type=click.Choice(["test", "leave_out"]),
        help="With --merge: what is held out goes to test, or is not in the pile.",
    ),
    click.option(
        "--order",
        type=click.Choice(["as_published", "hash"]),
        help="With --merge: hash changes few files of the pile when a session is added.",
    ),
)


def _split_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that override the last pile's run configuration, by its names."""
    for option in reversed(_SPLIT_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--sessions", "pattern", help="Only sessions whose id matches this glob, e.g. 'sub-Cori*'.")
@click.option("--limit", type=click.IntRange(1), help="At most so many sessions of each dataset.")
@click.option("--allow-missing", is_flag=True, help="Publish without the sessions that failed.")
@click.option(
    "--min-session-share",
    type=click.FloatRange(0, 1),
    callback=not_nan,
    metavar="SHARE",
    help="Publish when at least this share (0 to 1) of a dataset's sessions is done.",
)
@click.option("--annotations", is_flag=True, help="Also read trials, stimuli, unit metrics and electrode positions.")
@click.option("--merge", is_flag=True, help="Then merge all published components of the piles that they are in.")
@_split_options
@plain_errors
def build(
    datasets: tuple[str, ...],
    pattern: str | None,
    limit: int | None,
    allow_missing: bool,
    min_session_share: float | None,
    annotations: bool,
    merge: bool,
    **split: Any,
) -> None:
    """Discover, bin and publish datasets. What is up to date is skipped.

    A session that fails keeps its dataset from being published, unless --allow-missing or --min-session-share
    permit it: the card names what is missing, the failures are still listed, and the exit code is 0. With
    --sessions or --limit a dataset is published without the sessions that were left out. A part never replaces
    a publication of more sessions. --annotations reads only small parts of the files; without it only the configs
    intervals and unit_metrics are missing. --merge keeps the seed and split of each pile's last plan, but for the
    options that are given; docs/merge.md explains them, and the launchpad of its manifest (neural_pile/manifest) has
    more. Lines of catalog.yaml turn more on: unit_order, and with --merge the pile's motifs and tokens
    (docs/unit_order.md, docs/motifs.md).
    """
    from neuralpile_dagster.orchestration.launch import build as launch

    if allow_missing and min_session_share is not None:
        raise click.UsageError("--allow-missing is --min-session-share 0: give one of them")
    choices = {name: value for name, value in split.items() if value not in (None, ())}
    if choices and not merge:
        raise click.UsageError(f"--{next(iter(choices)).replace('_', '-')} is for --merge")
    if "hold_out" in choices:
        choices["hold_out"] = [entry for entry in choices["hold_out"] if entry]
    outcome = launch(
        Settings.from_environment(),
        list(datasets),
        pattern=pattern,
        limit=limit,
        min_session_share=0.0 if allow_missing else min_session_share,
        merge=merge,
        annotations=annotations,
        choices=choices,
    )
    click.echo(outcome.summary())
    if outcome.failed:
        sys.exit(1)


@click.command()
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the UI.")
@click.option("--host", default=LOCALHOST, show_default=True, help="There is no login: keep it on this machine.")
@plain_errors
def ui(port: int, host: str) -> None:
    """Serve Dagster's web UI and daemon on the home's instance, until Ctrl-C or SIGTERM.

    Stopping it stops the runs that it launched, and leaves no process behind. They are recorded as failed and keep
    completed sessions; queued runs start with the next UI. A home has one UI at a time.
    """
    _serve(Settings.from_environment(), port, host)


def _serve(settings: Settings, port: int, host: str) -> None:
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.checks.registry import require_known_checks
    from neuralpile_dagster.orchestration.serving import serve

    for row in load_catalog(settings).values():  # fail here with one paragraph instead of a traceback in the UI
        require_known_checks(row)
    serve(settings, host, port, click.echo)
