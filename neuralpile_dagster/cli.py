"""``neuralpile``: the command line. Everything it builds is visible in the Dagster UI of the same home.

Arguments and output only: builds belong in `orchestration.launch`, tables in `terminal`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from neuralpile_dagster.errors import ConfigurationError, NeuralPileError
from neuralpile_dagster.settings import DEFAULT_BIN_WIDTH_S, DEFAULT_MAX_TOKENS, Settings, documented

DEMO_HOME = "~/.neuralpile-demo"
LOCALHOST = "127.0.0.1"
PORT = click.IntRange(1, 65535)
INTERRUPTED = 130
"""Exit code of a command stopped by Ctrl-C, as in shells."""


def _plain_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show our own errors, and what this machine lacks (memory, files), as one paragraph with exit code 1.

    Any other error is a defect and keeps its traceback.
    """

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
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


def _settings_help() -> str:
    rows = [f"  {variable} [{default}]: {text}" for variable, default, text in documented()]
    # click keeps the lines of a paragraph that begins with \b
    return "\n".join(["\b", "Settings (environment variables) [and their defaults]:", *rows]).replace("`", "")


@click.group(
    epilog=_settings_help(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="neuralpile-dagster")
@_plain_errors
def main() -> None:
    """Build the neural pile: recordings in, spike counts out, as Hugging Face datasets.

    Environment variables, listed below, set where things are and how sessions are binned.
    """
    if sys.platform == "win32":  # file locks are fcntl's
        raise ConfigurationError(
            "neuralpile runs on Linux and macOS", found="Windows", remedy="run it in the Windows Subsystem for Linux"
        )
    from neuralpile_dagster.files import require_address_space

    require_address_space()


@main.command()
@click.option("--home", type=click.Path(path_type=Path), help=f"Where to build it (default {DEMO_HOME}).")
@click.option("--no-ui", is_flag=True, help="Return when the pile is built, without serving the UI.")
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the UI.")
@_plain_errors
def demo(home: Path | None, no_ui: bool, port: int) -> None:
    """Build a small pile from SYNTHETIC recordings, then serve the Dagster UI."""
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.definitions import whole_job
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
    outcome = launch(settings, list(load_catalog(settings)), whole_job, merge=True, annotations=True)
    click.echo(outcome.summary())
    if outcome.failed:
        sys.exit(1)
    use = f"NEURALPILE_HOME={settings.home} NEURALPILE_ARCHIVE=sample neuralpile status"
    click.echo(f"To use this home with other commands: {use}", err=True)
    if not no_ui:
        _serve(settings, port, LOCALHOST)


@main.command()
@click.option("--check", is_flag=True, help="Validate catalog.yaml in NEURALPILE_HOME and list its errors.")
@_plain_errors
def catalog(check: bool) -> None:
    """List the datasets, their sources, and the published sessions and tokens."""
    from neuralpile_dagster.catalog.load import check_user_catalog, load_catalog, user_catalog_path
    from neuralpile_dagster.terminal import print_catalog

    settings = Settings.from_environment()
    if check:
        from neuralpile_dagster.checks.registry import require_known_checks

        path = user_catalog_path(settings)
        rows = check_user_catalog(path)
        for row in rows:
            require_known_checks(row)
        verdict = f"{len(rows)} rows, all valid" if path.exists() else "does not exist: no rows of yours"
        click.echo(f"{path}: {verdict}")
        return
    print_catalog(list(load_catalog(settings).values()))


@main.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per session and nothing else.")
@_plain_errors
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


def _not_nan(context: click.Context, parameter: click.Parameter, share: float | None) -> float | None:
    """Refuse NaN, which click takes to be in every range."""
    if share is not None and math.isnan(share):
        raise click.BadParameter("nan is not in the range 0<=x<=1.", context, parameter)
    return share


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
        callback=_not_nan,
        help="With --merge: share that becomes test.",
    ),
    click.option(
        "--valid-size",
        type=click.FloatRange(0, 1, max_open=True),
        callback=_not_nan,
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


@main.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--sessions", "pattern", help="Only sessions whose id matches this glob, e.g. 'sub-Cori*'.")
@click.option("--limit", type=click.IntRange(1), help="At most so many sessions of each dataset.")
@click.option("--allow-missing", is_flag=True, help="Publish without the sessions that failed.")
@click.option(
    "--min-session-share",
    type=click.FloatRange(0, 1),
    callback=_not_nan,
    metavar="SHARE",
    help="Publish when at least this share (0 to 1) of a dataset's sessions is done.",
)
@click.option("--annotations", is_flag=True, help="Also read trials, stimuli, unit metrics and electrode positions.")
@click.option("--merge", is_flag=True, help="Then merge all published components of the piles that they are in.")
@_split_options
@_plain_errors
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
    more.
    """
    from neuralpile_dagster.definitions import whole_job
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
        whole_job,
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


@main.command()
@click.argument("datasets", nargs=-1)
@click.option("--all", "show_all", is_flag=True, help="Also list the datasets of which this home has nothing yet.")
@_plain_errors
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


@main.command()
@click.option("--dataset", help="Also read up to five sessions of this dataset, the smallest ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@_plain_errors
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


def _known_reader(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse an unknown reader as click refuses a choice; other packages' readers are looked up only here."""
    from neuralpile_dagster.catalog.readers import get_reader

    try:
        return get_reader(name).name
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _reader_options(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    """Parse options that are given as a YAML mapping."""
    from neuralpile_dagster.catalog.load import parse_yaml

    try:
        given = parse_yaml(text or "{}", "--reader-options")
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if not isinstance(given, dict):
        raise click.BadParameter("it is a mapping, '{name: value, ...}'.", context, parameter)
    return given


@main.command("bin")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--bin-width", default=DEFAULT_BIN_WIDTH_S, show_default=True, help="Seconds per bin.")
@click.option("--max-tokens", default=DEFAULT_MAX_TOKENS, show_default=True, help="Nominal tokens per segment.")
@click.option(
    "--reader",
    default="units",
    show_default=True,
    callback=_known_reader,
    help="How the files are read: units, binned_series, firing_rates, eight_probe_mat, or one that an installed "
    "package adds.",
)
@click.option("--table", help="Path of the units table in the files, where it is not /units.")
@click.option(
    "--reader-options",
    metavar="YAML",
    callback=_reader_options,
    help="As in a catalog row, e.g. '{path: /acquisition/rasters, bin_width_s: 0.001, sum_bins: 20}'.",
)
@click.option("--stack", is_flag=True, help="Stack files that do not state the same subject and start time.")
@_plain_errors
def bin_command(
    files: tuple[Path, ...],
    output: Path,
    bin_width: float,
    max_tokens: int,
    reader: str,
    table: str | None,
    reader_options: dict[str, Any],
    stack: bool,
) -> None:
    """Bin one session without Dagster: your own NWB in, rows out.

    Several FILES of one session (the same subject and start time) are stacked, units after units.
    """
    from neuralpile_dagster.catalog.readers import get_reader
    from neuralpile_dagster.checks.plausibility import PLAUSIBILITY
    from neuralpile_dagster.session.own_files import bin_files

    options = {**reader_options, **({} if table is None else {"table": table})}
    get_reader(reader).configured(options)
    _require_recordings(files)
    _require_target(output, ".parquet")
    say = partial(click.echo, err=True)
    record = bin_files(files, output, bin_width, max_tokens, reader, progress=say, stack=stack, options=options)
    for note in record.notes:
        click.echo(note, err=True)
    stats = record.stats
    lost = stats.dropped + stats.lost_to_saturation
    click.echo(
        f"{output}: {stats.n_units:,} units x {stats.n_bins:,} bins of {stats.bin_width_s:g} s = "
        f"{stats.tokens:,} tokens in {len(record.rows)} rows; {stats.spikes_kept:,} spikes kept, {lost:,} dropped"
    )
    for name, check in PLAUSIBILITY.items():
        if not (verdict := check(stats)).passed:
            click.echo(f"Warning ({name}): {verdict.found}; what to do: {verdict.remedy}", err=True)


@main.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option("--all", "every", is_flag=True, help="Draw every row, a PNG each, into the folder -o.")
@click.option("-n", "rows", default=6, show_default=True, type=click.IntRange(1, 50), help="Number of rows to draw.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same rows.")
@_plain_errors
def raster(source: str, output: Path, every: bool, rows: int, seed: int) -> None:
    """Draw random rows, or with --all every row, as rasters.

    x is time, y are units by brain area (where known) and rate.

    SOURCE is a Parquet file, a dataset's name, a folder of a local hub, or a hub repository (owner/name).
    """
    from neuralpile_dagster.files import write_bytes
    from neuralpile_dagster.ledger.samples import all_rows, random_rows
    from neuralpile_dagster.plots.raster import raster_name, raster_png

    if every:
        _require_folder(output)
        number = 0
        for number, sample in enumerate(all_rows(Settings.from_environment(), source, seed), 1):
            write_bytes(output / raster_name(number, sample), raster_png([sample]))
        click.echo(f"{output}: all {number:,} rows of {source}")
        return
    _require_target(output, ".png")
    samples = random_rows(Settings.from_environment(), source, rows, seed)
    write_bytes(output, raster_png(samples))
    click.echo(f"{output}: {len(samples)} rows of {source}")


@main.command()
@click.argument("pile")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--layout",
    required=True,
    type=click.Choice(["time-major", "unit-major"]),
    help="Of each row: bins x units, or units x bins.",
)
@click.option("--split", help="Rows of this split alone, e.g. train.")
@click.option("--exclude-dataset", "exclude", multiple=True, metavar="NAME", help="Leave a dataset out; repeatable.")
@click.option("--max-rows", type=click.IntRange(1), help="Take so many rows at random.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same rows.")
@click.option("--revision", help="Branch, tag or commit on the Hugging Face Hub.")
@_plain_errors
def export(
    pile: str,
    folder: Path,
    layout: str,
    split: str | None,
    exclude: tuple[str, ...],
    max_rows: int | None,
    seed: int,
    revision: str | None,
) -> None:
    """Write a published pile into FOLDER as one uint8 file to map into memory, and an index of its rows.

    PILE is the name of a pile or dataset on the local hub, a folder, a repository of the Hugging Face Hub (owner/name),
    or s3://bucket/prefix. Needs a byte per token of disk. Run the same command again to resume.
    """
    from neuralpile_dagster.hub import open_hub
    from neuralpile_dagster.hub.local import LocalHub
    from neuralpile_dagster.reading.export import export_pile
    from neuralpile_dagster.reading.pile import Pile

    hub = open_hub(Settings.from_environment())
    named = hub.find(pile) if isinstance(hub, LocalHub) and not Path(pile).exists() else None
    with Pile.open(named or pile, revision) as opened:
        meta = export_pile(
            opened,
            folder,
            layout,  # type: ignore[arg-type]
            split=split,
            exclude=[f"dataset:{name}" for name in exclude],
            max_rows=max_rows,
            seed=seed,
            progress=partial(click.echo, err=True),
        )
    click.echo(f"{folder}: {meta['rows']:,} rows, {meta['tokens']:,} tokens, {layout}")


@main.command()
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the UI.")
@click.option("--host", default=LOCALHOST, show_default=True, help="There is no login: keep it on this machine.")
@_plain_errors
def ui(port: int, host: str) -> None:
    """Serve Dagster's web UI and daemon on the home's instance, until Ctrl-C or SIGTERM.

    Stopping it stops the runs that it launched, and leaves no process behind. They are recorded as failed and keep
    completed sessions; queued runs start with the next UI. A home has one UI at a time.
    """
    _serve(Settings.from_environment(), port, host)


def _require_recordings(files: tuple[Path, ...]) -> None:
    """Raise `ConfigurationError` unless all are files, and different ones; a Zarr folder is named."""
    from neuralpile_dagster.hdf5.foreign import is_zarr, zarr_folder

    for path in files:
        if not path.is_file():
            if path.is_dir() and is_zarr(path):
                raise zarr_folder(str(path))
            found = "a folder" if path.is_dir() else "no such file"
            raise ConfigurationError(f"{path} cannot be read", found=found, expected="the file of a recording (.nwb)")
    if len({path.resolve() for path in files}) < len(files):
        raise ConfigurationError("a file is named twice", found=", ".join(map(str, files)), expected="each file once")


def _require_target(output: Path, suffix: str) -> None:
    """Raise `ConfigurationError` unless ``output`` can be the path of a file, and ends in ``suffix``."""
    if output.is_dir():
        raise ConfigurationError(f"{output} cannot be written", found="a folder", expected="-o with the path of a file")
    if output.suffix.lower() != suffix:
        raise ConfigurationError(
            f"{output} cannot be written",
            found=f"the suffix {output.suffix}" if output.suffix else "no suffix",
            expected=f"a name that ends in {suffix}, the only format that this command writes",
        )
    _require_folder(output.absolute().parent, output)


def _require_folder(folder: Path, output: Path | None = None) -> None:
    """Raise `ConfigurationError` unless ``folder`` is one or can be made, naming ``output`` (else the folder)."""
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        where = folder if output is None else output
        raise ConfigurationError(f"{where} cannot be written", found=f"{above} is a file", expected="a folder there")


def _serve(settings: Settings, port: int, host: str) -> None:
    from neuralpile_dagster.catalog.load import load_catalog
    from neuralpile_dagster.checks.registry import require_known_checks
    from neuralpile_dagster.orchestration.serving import serve

    for row in load_catalog(settings).values():  # fail here with one paragraph instead of a traceback in the UI
        require_known_checks(row)
    serve(settings, host, port, click.echo)


if __name__ == "__main__":
    main()
