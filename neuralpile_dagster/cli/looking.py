"""Commands that look and change nothing: ``catalog``, ``sessions``, ``status``, ``doctor``."""

from __future__ import annotations

import json
import os
import sys

import click

from neuralpile_dagster.cli.common import INTERRUPTED, plain_errors
from neuralpile_dagster.settings import Settings


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
    from neuralpile_dagster.terminal import print_catalog

    settings = Settings.from_environment()
    if check:
        from neuralpile_dagster.checks.registry import require_known_checks
        from neuralpile_dagster.ledger.splits import require_possible_pile

        path = user_catalog_path(settings)
        rows, own = check_user_catalog(path), read_user_catalog(path)
        for row in rows:
            require_known_checks(row)
        for pile in own.piles:
            require_possible_pile(pile, settings)
        found = f"{len(rows) + len(own.piles):,} rows, all valid"
        if lines := own.everywhere.model_fields_set:
            found += f"; for all of them: {', '.join(sorted(lines))}"
        verdict = found if path.exists() else "does not exist: no rows of yours"
        click.echo(f"{path}: {verdict}")
        return
    print_catalog(list(load_catalog(settings).values()))


@click.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per session and nothing else.")
@plain_errors
def sessions(dataset: str, as_json: bool) -> None:
    """Ask the archive now and print the sessions that the catalog's rule chooses."""
    from neuralpile_dagster.archives import open_archive
    from neuralpile_dagster.catalog.load import find_dataset, load_catalog
    from neuralpile_dagster.recordings.sessions import choose_sessions
    from neuralpile_dagster.terminal import print_sessions

    settings = Settings.from_environment()
    row = find_dataset(settings, load_catalog(settings), dataset)
    listing = open_archive(settings, row.source).list_files(row.source)
    manifest = choose_sessions(row, listing, None)
    if not as_json:
        print_sessions(row, manifest)
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
    from neuralpile_dagster.terminal import print_status

    settings = Settings.from_environment()
    rows = load_catalog(settings)
    chosen = [find_dataset(settings, rows, name) for name in datasets] or list(rows.values())
    store = open_store(settings.store)
    piles = [] if datasets else piles_status(store, load_piles(settings, chosen), chosen, settings, every=show_all)
    statuses = [dataset_status(store, row, settings) for row in chosen]
    print_status(statuses, verbose=bool(datasets), piles=piles, show_untouched=show_all or bool(datasets))


@click.command()
@click.option("--dataset", help="Also read up to five sessions of this dataset, the smallest ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@plain_errors
def doctor(dataset: str | None, as_json: bool) -> None:
    """Tell what works on this machine and what to do otherwise; exit code 1 when something needed fails.

    Looks at the installation, the disk, the archives, the hub and, where they are configured, S3, Postgres and
    the broker: each once, for ten seconds at most, writing nothing.
    """
    from neuralpile_dagster.doctor.run import diagnose
    from neuralpile_dagster.terminal import print_line

    lines = []
    try:
        for line in diagnose(dataset):
            lines.append(line)
            if not as_json:
                print_line(line)
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
