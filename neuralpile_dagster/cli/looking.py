"""Commands that look and change nothing: ``catalog``, ``sessions``, ``status``, ``doctor``, and the tables they print.

What the tables say is read elsewhere: the numbers of a home in `ledger`, the probes in `doctor`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from neuralpile_dagster.cli.common import INTERRUPTED, plain_errors, settings_of_home
from neuralpile_dagster.markdown import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from neuralpile_dagster.catalog.model import Dataset
    from neuralpile_dagster.doctor.probes import Line, Status
    from neuralpile_dagster.ledger.status import DatasetStatus
    from neuralpile_dagster.recordings.manifest import Manifest

_REASONS_SHOWN = 3
_COLORS: dict[Status, str] = {
    "ok": "green",
    "failed": "red",
    "warning": "yellow",
    "not needed": "dim",
    "not tried": "dim",
}


@click.command()
@click.option("--check", is_flag=True, help="Validate catalog.yaml in NEURALPILE_HOME and list its errors.")
@plain_errors
def catalog(check: bool) -> None:
    """List the datasets, their sources, and the published sessions and tokens."""
    from neuralpile_dagster.catalog.load import (
        check_user_catalog,
        load_catalog,
        read_user_catalog,
        user_catalog_path,
    )

    settings = settings_of_home()
    if check:
        from neuralpile_dagster.checks.registry import require_known_checks
        from neuralpile_dagster.ledger.splits import require_possible_pile

        path = user_catalog_path(settings)
        rows, own = check_user_catalog(path), read_user_catalog(path)
        for row in rows:
            require_known_checks(row)
        for pile in own.piles:
            require_possible_pile(pile, settings)
        found = f"{plural(len(rows) + len(own.piles), 'row')}, all valid"
        if lines := own.everywhere.model_fields_set:
            found += f"; for all of them: {', '.join(sorted(lines))}"
        verdict = found if path.exists() else "does not exist: no rows of yours"
        click.echo(f"{path}: {verdict}")
        return
    _print_catalog(list(load_catalog(settings).values()))


@click.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per session and nothing else.")
@plain_errors
def sessions(dataset: str, as_json: bool) -> None:
    """Ask the archive now and print the sessions that the catalog's rule chooses."""
    from neuralpile_dagster.archives import open_archive
    from neuralpile_dagster.catalog.load import find_dataset, load_catalog
    from neuralpile_dagster.recordings.manifest import choose_sessions

    settings = settings_of_home()
    row = find_dataset(settings, load_catalog(settings), dataset)
    listing = open_archive(settings, row.source).list_files(row.source)
    manifest = choose_sessions(row, listing, None)
    if not as_json:
        _print_sessions(row, manifest)
        return
    for note in manifest.notes:
        click.echo(note, err=True)
    for session in manifest.sessions:
        files = [{"path": file.path, "size": file.size} for file in session.files]
        names = {"subject_id": session.subject_id, "session_id": session.session_id}
        click.echo(json.dumps({**names, "files": files, "version": manifest.version}))


@click.command()
@click.argument("datasets", nargs=-1)
@click.option("--all", "show_all", is_flag=True, help="Also list the datasets of which this home has nothing yet.")
@plain_errors
def status(datasets: tuple[str, ...], show_all: bool) -> None:
    """Show per dataset: sessions known, done and failed (with the reason), tokens ours and published; and the pile."""
    from neuralpile_dagster.catalog.load import find_dataset, load_catalog, load_piles
    from neuralpile_dagster.ledger.status import dataset_status, piles_status
    from neuralpile_dagster.store import open_store

    settings = settings_of_home()
    rows = load_catalog(settings)
    chosen = [find_dataset(settings, rows, name) for name in datasets] or list(rows.values())
    store = open_store(settings.store)
    piles = [] if datasets else piles_status(store, load_piles(settings, chosen), chosen, settings, every=show_all)
    statuses = [dataset_status(store, row, settings) for row in chosen]
    _print_status(statuses, verbose=bool(datasets), piles=piles, show_untouched=show_all or bool(datasets))


@click.command()
@click.option("--dataset", help="Also read up to five sessions of this dataset, the smallest ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@plain_errors
def doctor(dataset: str | None, as_json: bool) -> None:
    """Tell what works on this machine and what to do otherwise; exit code 1 when something needed fails.

    Looks at the installation, the disk, the archives, the hub and, where they are configured, S3, Postgres and
    the broker: each once, for ten seconds at most, writing nothing.
    """
    from neuralpile_dagster.doctor import diagnose

    lines = []
    try:
        for line in diagnose(dataset):
            lines.append(line)
            if not as_json:
                _print_line(line)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # as below
    failures = [line.name for line in lines if line.finding.status == "failed"]
    if as_json:
        click.echo(json.dumps({"ok": not failures, "lines": [line.document() for line in lines]}, indent=2))
    else:
        click.echo(f"failed: {', '.join(failures)}" if failures else "Everything needed works.")
    if any(line.running for line in lines):  # threads waiting for a server would keep the process alive
        sys.stdout.flush()
        os._exit(1)
    if failures:
        sys.exit(1)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    from rich.table import Table  # here: `neuralpile --help` prints none

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _console() -> Console:
    from rich.console import Console

    console = Console(soft_wrap=False)
    # a pipe has no width: do not fold rows that a script will read
    return console if console.is_terminal else Console(width=200)


def _number(value: int | None) -> str:
    """An integer with thousands separators, or a dash."""
    return "-" if value is None else f"{value:,}"


def _print_catalog(datasets: Sequence[Dataset]) -> None:
    """Print the catalog with its totals."""
    numbers = ("sessions", "subjects", "tokens published")
    table = _table("dataset", "source", "version", "species", *numbers, right=numbers)
    for row in datasets:
        table.add_row(
            row.name,
            row.source.label,
            row.source.version,
            row.species or "-",
            _number(row.sessions_due),
            _number(row.subjects_published),
            _number(row.tokens_published),
        )
    sessions = sum(row.sessions_due or 0 for row in datasets)
    tokens = sum(row.tokens_published or 0 for row in datasets)
    table.add_row(plural(len(datasets), "dataset"), "", "", "", _number(sessions), "", _number(tokens), style="bold")
    _console().print(table)


def _print_sessions(dataset: Dataset, manifest: Manifest) -> None:
    """Print the sessions that the rule chose, and the numbers of dropped files."""
    from rich.markup import escape

    table = _table("session", "subject", "files", "MB", right=("files", "MB"))
    for session in manifest.sessions:
        table.add_row(
            escape(session.session_id),
            escape(session.subject_id),
            str(len(session.files)),
            f"{session.size / 1e6:,.1f}",
        )
    console = _console()
    console.print(table)
    frozen = "" if manifest.frozen else " (not frozen: it may change)"
    console.print(
        f"{dataset.name}: {plural(len(manifest.sessions), 'session')}; {dataset.source.label} "
        f"version {manifest.version}{frozen}"
    )
    if manifest.version_note:
        console.print(escape(manifest.version_note))
    if manifest.newer_version:
        console.print(escape(manifest.newer_version))
    for note in manifest.notes:
        console.print(escape(note))
    console.print(f"{plural(manifest.considered, 'file')} considered")
    for reason, count in sorted(manifest.dropped.items()):
        console.print(f"  {count} dropped: {escape(reason)}")


def _print_status(
    statuses: Sequence[DatasetStatus], verbose: bool, piles: Sequence[str] = (), show_untouched: bool = True
) -> None:
    """Print the status of datasets and piles, with reasons of failures (all of them when ``verbose``).

    Datasets of which the home has nothing come last; one line counts them unless ``show_untouched``.
    """
    from rich.markup import escape

    touched = [status for status in statuses if not status.untouched]
    untouched = [status for status in statuses if status.untouched]
    shown = touched + untouched if show_untouched else touched
    numbers = ("sessions", "done", "failed", "to do", "tokens", "published by us", "reference")
    table = _table("dataset", *numbers, right=numbers)
    for status in shown:
        table.add_row(
            status.dataset.name,
            _number(status.known if status.known is not None else status.dataset.sessions_due),
            str(status.done),
            f"[red]{len(status.failed)}[/red]" if status.failed else "0",
            "no manifest" if status.known is None else str(status.to_do),
            _number(status.tokens),
            _number(status.published_tokens),
            _number(status.dataset.tokens_published),
        )
    console = _console()
    if shown:
        console.print(table)
    if hidden := len(statuses) - len(shown):
        count = plural(hidden, "more dataset" if shown else "dataset")
        them = "it" if hidden == 1 else "them"
        console.print(f"{count} without a manifest: neuralpile catalog lists {them}", highlight=False)
    for pile in piles:
        console.print(escape(pile), soft_wrap=True)
    if unread := [status.dataset.name for status in shown if not status.dataset.reader_checked]:
        doctor = "neuralpile doctor --dataset NAME tries it"
        console.print(f"reader untested on real files ({doctor}): {', '.join(unread)}", soft_wrap=True, highlight=False)
    if unlisted := [status.dataset.name for status in shown if not status.dataset.rule_checked]:
        console.print(f"rule untested on a real listing: {', '.join(unlisted)}", soft_wrap=True, highlight=False)
    for status in shown:
        _print_failures(console, status.dataset.name, status.failed, status.dataset.name, verbose)
        if status.stopped and status.to_do:
            again = f"neuralpile build {status.dataset.name}"
            left = f"{status.dataset.name}: {status.to_do:,} to do: {status.stopped}; run again: {again}"
            console.print(left, soft_wrap=True, highlight=False)
        for standing in status.analyses:
            name = f"{status.dataset.name} {standing.analysis.name}"
            lacking = len(standing.due) + len(standing.on_request)
            line = f"{name}: {standing.done} done, {len(standing.failed)} failed, {lacking} to do"
            if lacking and standing.analysis.on_request:
                line += f" (neuralpile build {status.dataset.name} --{standing.analysis.name})"
            console.print(line, soft_wrap=True)
            _print_failures(console, name, standing.failed, status.dataset.name, verbose)


def _print_failures(console: Console, what: str, failed: Mapping[str, str], dataset: str, verbose: bool) -> None:
    from rich.markup import escape

    shown = list(failed.items())[: None if verbose else _REASONS_SHOWN]
    for key, reason in shown:
        console.print(f"[red]failed[/red] {what} {escape(key)}: {escape(reason)}", soft_wrap=True)
    if len(shown) < len(failed):
        console.print(f"  and {len(failed) - len(shown)} more: neuralpile status {dataset}")


def _print_line(line: Line) -> None:
    """Print a line of the doctor's report: a row of a table whose other rows are not known yet."""
    from rich.markup import escape
    from rich.table import Table

    finding = line.finding
    row = Table.grid(padding=(0, 2))
    row.add_column(width=10, style=_COLORS[finding.status])
    row.add_column(width=18, overflow="fold")
    row.add_column(width=6, justify="right")
    row.add_column(overflow="fold", ratio=1)
    advice = f"\nwhat to do: {escape(finding.remedy)}" if finding.remedy else ""
    row.add_row(finding.status, escape(line.name), f"{line.seconds:.1f} s", f"{escape(finding.found)}{advice}")
    _console().print(row)
