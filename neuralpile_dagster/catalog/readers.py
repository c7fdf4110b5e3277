"""Readers as rows: what each reads, its version, and the function that does it.

What a catalog row may name, pages, the command line and `recordings.model` derive from these rows: another
reader is one module and one row. Rows of this package are in `BUILT_IN`; other packages add theirs through the entry
point group ``neuralpile.readers``. What a catalog row may state as ``reader_options`` is a reader's `Options`. How a
file is read belongs in the module that the row names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from neuralpile_dagster.errors import CatalogError, ConfigurationError, did_you_mean

ENTRY_POINTS = "neuralpile.readers"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


PathPattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_compiles)]
InFile = Annotated[str, Field(pattern=r"^(/[^/]+)+$", max_length=500)]
"""Absolute path of an object in an HDF5 file."""


class Options(BaseModel):
    """``reader_options`` of a catalog row; a reader without options has none of these fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def text(self) -> str:
        """All that differs from the defaults, as JSON; empty when nothing does."""
        stated = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(stated, sort_keys=True) if stated else ""


class UnitsOptions(Options):
    """Options of the reader ``units``: where in the file its units table is."""

    table: InFile = "/units"


class SeriesBins(Options):
    """Bins of a series: width in the file, in seconds, and how many of them are summed to one."""

    bin_width_s: float = Field(gt=0, le=3600, allow_inf_nan=False)
    sum_bins: int = Field(default=1, ge=1, le=1_000_000)


class SeriesOptions(SeriesBins):
    """Options of the reader ``binned_series``.

    ``path`` are groups of a time series, of which the first that a file has is read. A count is a value times
    ``scale``; without ``rounding`` it must be whole. ``per_subject`` states other bins for subjects in whose id a
    regular expression is found.
    """

    path: Annotated[
        tuple[InFile, ...], Field(min_length=1), BeforeValidator(lambda given: [given] if type(given) is str else given)
    ]
    scale: float = Field(default=1, gt=0, allow_inf_nan=False)
    rounding: Literal["none", "half_even"] = "none"
    per_subject: dict[PathPattern, SeriesBins] = Field(default_factory=dict)

    def bins_of(self, subject: str) -> SeriesBins:
        """The bins of a subject's sessions; the first of ``per_subject`` that is found in its id."""
        return next((bins for pattern, bins in self.per_subject.items() if re.search(pattern, subject)), self)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """How files of one form are read.

    Attributes
    ----------
    name : str
        As ``reader`` of a catalog row names it.
    version : str
        Changes whenever the same file would give another `Recording`: it is part of what stored spike trains are
        identified by.
    text : str
        What it reads, in Markdown; follows its name.
    reads : str
        The function, ``"module:function"``, imported when it is needed: an open file (`OpenFile`) -> `Recording`.
    several_files : bool
        Whether it takes a sequence of open files, those of one session, in place of one.
    options : type of Options
        What a catalog row may state; where that is anything, or there is a ``preset``, the function is called with an
        instance of it after the file.
    preset : Options or None
        Options that are the reader's own, in place of a row's.
    annotations : {"units", "intervals", ""}
        What else can be read from its files (`recordings.nwb.annotations`): tables of intervals of NWB files; with
        ``"units"`` also ``/units``, whose rows are the units that it reads, on a clock on which bin 0 begins at 0.
    """

    name: str
    version: str
    text: str
    reads: str
    several_files: bool = False
    options: type[Options] = Options
    preset: Options | None = None
    annotations: Literal["units", "intervals", ""] = ""

    def configured(self, given: Mapping[str, Any]) -> Options:
        """A row's ``reader_options``; raises `CatalogError`, naming the field, when they are invalid."""
        try:
            stated = self.options.model_validate(dict(given))
        except ValidationError as error:
            raise self._invalid_options(error) from error
        return stated if self.preset is None else self.preset

    def _invalid_options(self, error: ValidationError) -> CatalogError:
        """The first error in words; of missing options, after all others, each is named."""
        problems = error.errors()
        first = next((problem for problem in problems if problem["type"] != "missing"), None)
        if first is None:
            lacking = sorted(".".join(map(str, problem["loc"])) for problem in problems)
            return CatalogError(
                f"reader_options of the reader {self.name}: missing {' and '.join(lacking)}",
                remedy="add them to the row, or to --reader-options of `neuralpile bin`; docs/datasets/adding.md says "
                "what each is",
            )
        field, known = ".".join(map(str, first["loc"])), self.options.model_fields
        unknown, path = first["type"] == "extra_forbidden", first["type"] == "string_pattern_mismatch"
        message = "unknown option" if unknown else "not a path" if path else first["msg"].removeprefix("Value error, ")
        expected = (", ".join(known) or "no options") if unknown else "like /processing/ecephys/rasters" if path else ""
        return CatalogError(
            f"reader_options{f'.{field}' if field else ''} of the reader {self.name}: {message}",
            found=f"{first['input']!r:.80}",
            expected=expected,
            remedy=did_you_mean(field, known) if unknown else "",
        )

    def version_of(self, given: Mapping[str, Any]) -> str:
        """The version with a row's ``reader_options``: others would give another `Recording`."""
        return self.version if self.preset is not None else self.version + self.configured(given).text

    @property
    def markdown(self) -> str:
        """Name and text, for the UI and pages."""
        return f"`{self.name}`: {self.text}"


FIRING_RATES = SeriesOptions(
    path=("/acquisition/firing_rates",), bin_width_s=1 / 50, scale=1 / 50, rounding="half_even"
)
"""Rates in Hz, in bins of 20 ms."""

_ROWS = (
    Reader(
        name="units",
        version="units-2",
        text="the spike times of the NWB file's units table (seconds), binned by the project",
        reads="neuralpile_dagster.recordings.nwb.units:read_nwb_units",
        several_files=True,
        options=UnitsOptions,
        annotations="units",
    ),
    Reader(
        name="binned_series",
        version="binned-series-1",
        text="spike counts (or rates) that the NWB file holds in bins already, summed to wider bins where the row says",
        reads="neuralpile_dagster.recordings.nwb.binned_series:read_binned_series",
        options=SeriesOptions,
        annotations="intervals",
    ),
    Reader(
        name="firing_rates",
        version="firing-rates-2",
        text=(
            "firing rates that the NWB file holds in bins already; "
            "the counts are the rates times the file's bin width, rounded"
        ),
        reads="neuralpile_dagster.recordings.nwb.binned_series:read_binned_series",
        preset=FIRING_RATES,
        annotations="intervals",
    ),
    Reader(
        name="eight_probe_mat",
        version="eight-probe-mat-1",
        text="spike times and cluster ids of the eight probes of a MATLAB file, from the first spike on",
        reads="neuralpile_dagster.recordings.mat:read_probes_mat",
    ),
)
BUILT_IN: Mapping[str, Reader] = {row.name: row for row in _ROWS}


@cache
def all_readers() -> Mapping[str, Reader]:
    """Every row by name; raises `CatalogError` when two have one name or version, or one cannot be loaded."""
    rows = [*_ROWS]
    for point in entry_points(group=ENTRY_POINTS):
        try:
            row = point.load()
        except (ImportError, AttributeError) as error:
            raise CatalogError(
                f"the reader {point.name} ({point.value}) cannot be loaded",
                found=str(error),
                remedy=_UNINSTALL,
            ) from error
        if not isinstance(row, Reader):
            raise CatalogError(
                f"the reader {point.name} ({point.value}) is invalid",
                found=f"a {type(row).__name__}",
                expected="a neuralpile_dagster.catalog.readers.Reader",
                remedy=_UNINSTALL,
            )
        rows.append(row)
    for field in ("name", "version"):
        values = [getattr(row, field) for row in rows]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise CatalogError(
                f"a reader's {field} is taken", found=f"two readers with {field} {twice[0]!r}", remedy=_UNINSTALL
            )
    return {row.name: row for row in rows}


_UNINSTALL = f"correct or uninstall the package that adds it to {ENTRY_POINTS}"


def get_reader(name: str) -> Reader:
    """The reader of that name; raises `ConfigurationError` with the closest name when there is none."""
    known = all_readers()
    if name not in known:
        raise ConfigurationError(
            f"there is no reader {name[:60]!r}",
            expected=f"one of {', '.join(map(repr, known))}",
            remedy=did_you_mean(name, known),
        )
    return known[name]
