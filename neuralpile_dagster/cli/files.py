"""Commands that write one file or folder, without Dagster: ``bin``, ``raster``, ``export``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from neuralpile_dagster.cli.common import plain_errors
from neuralpile_dagster.errors import ConfigurationError
from neuralpile_dagster.markdown import plural
from neuralpile_dagster.settings import DEFAULT_BIN_WIDTH_S, DEFAULT_MAX_TOKENS, Settings


def _known_reader(context: click.Context, parameter: click.Parameter, name: str) -> str:
    """Refuse an unknown reader as click refuses a choice; other packages' readers are looked up only here."""
    from neuralpile_dagster.catalog.readers import get_reader

    try:
        return get_reader(name).name
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _reader_options(context: click.Context, parameter: click.Parameter, text: str | None) -> dict[str, Any]:
    """Parse options that are given as a YAML mapping."""
    if not text:
        return {}
    from neuralpile_dagster.catalog.load import parse_yaml

    try:
        given = parse_yaml(text, "--reader-options")
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    if not isinstance(given, dict):
        raise click.BadParameter("it is a mapping, '{name: value, ...}'.", context, parameter)
    return given


@click.command("bin")
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
@plain_errors
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
        f"{output}: {plural(stats.n_units, 'unit')} x {plural(stats.n_bins, 'bin')} of {stats.bin_width_s:g} s = "
        f"{plural(stats.tokens, 'token')} in {plural(len(record.rows), 'row')}; "
        f"{plural(stats.spikes_kept, 'spike')} kept, {lost:,} dropped"
    )
    for name, check in PLAUSIBILITY.items():
        if not (verdict := check(stats)).passed:
            click.echo(f"Warning ({name}): {verdict.found}; what to do: {verdict.remedy}", err=True)


@click.command()
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option("--all", "every", is_flag=True, help="Draw every row, a PNG each, into the folder -o.")
@click.option("-n", "rows", default=6, show_default=True, type=click.IntRange(1, 50), help="Number of rows to draw.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same rows.")
@plain_errors
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
        click.echo(f"{output}: all {plural(number, 'row')} of {source}")
        return
    _require_target(output, ".png")
    samples = random_rows(Settings.from_environment(), source, rows, seed)
    write_bytes(output, raster_png(samples))
    click.echo(f"{output}: {plural(len(samples), 'row')} of {source}")


@click.command()
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
@plain_errors
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
    click.echo(f"{folder}: {plural(meta['rows'], 'row')}, {plural(meta['tokens'], 'token')}, {layout}")


def _require_recordings(files: tuple[Path, ...]) -> None:
    """Raise `ConfigurationError` unless all are files, and different ones; a Zarr folder is named."""
    from neuralpile_dagster.hdf5.opened import is_zarr, zarr_folder

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
