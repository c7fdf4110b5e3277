"""The synthetic sample: one small dataset per kind of reader, made by ``archives/synthetic``.

Nothing here was recorded from an animal. These rows are shown only with
``NEURALPILE_ARCHIVE=sample``, and never together with the real datasets.
"""

from __future__ import annotations

from neuralpile_dagster.catalog.model import HAS_UNITS, PROBES_OF_ONE_SESSION, Dataset, SessionRule, Source
from neuralpile_dagster.catalog.rodent import ALLEN

SYNTHETIC_SPECIES = "synthetic"

SAMPLE: tuple[Dataset, ...] = (
    Dataset(
        name="sample-units",
        title="SYNTHETIC sample: units tables like the Allen Institute's",
        source=Source(archive="sample", id="sample-units"),
        sessions=HAS_UNITS,
        species=SYNTHETIC_SPECIES,
        description=(
            "SYNTHETIC recordings, made by a program: NWB files with extra unit columns and several index types, "
            "4 sessions of 2 subjects, and one file without units, which is left out."
        ),
        sessions_expected=4,
        good_units=ALLEN,
        synthetic=True,
    ),
    Dataset(
        name="sample-probes",
        title="SYNTHETIC sample: sessions of several probes, one file each",
        source=Source(archive="sample", id="sample-probes"),
        sessions=PROBES_OF_ONE_SESSION,
        species=SYNTHETIC_SPECIES,
        description="SYNTHETIC recordings, made by a program: 2 sessions whose 2 or 3 probe files are stacked.",
        sessions_expected=2,
        synthetic=True,
    ),
    Dataset(
        name="sample-rates",
        title="SYNTHETIC sample: firing rates instead of spike times",
        source=Source(archive="sample", id="sample-rates"),
        reader="firing_rates",
        species=SYNTHETIC_SPECIES,
        description="SYNTHETIC recordings, made by a program: 2 sessions of firing rates in 20 ms bins.",
        sessions_expected=2,
        synthetic=True,
    ),
    Dataset(
        name="sample-eight-probe",
        title="SYNTHETIC sample: an eight-probe MATLAB file",
        source=Source(archive="sample", id="sample-eight-probe"),
        sessions=SessionRule(
            include=(r"(?:^|/)spksSample[A-Z]_Feb18\.mat$",),
            same_session=r"(?:^|/)spks(?P<subject>Sample[A-Z])_Feb18\.mat$",
        ),
        reader="eight_probe_mat",
        species=SYNTHETIC_SPECIES,
        description="SYNTHETIC recordings, made by a program: 2 MATLAB files of eight probes, one session each.",
        sessions_expected=2,
        synthetic=True,
    ),
)
