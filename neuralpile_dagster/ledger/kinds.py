"""The kinds of asset as rows: description, code version, and place of its records in the store.

Keys, descriptions, store paths, `neuralpile status`, `neuralpile build` and automation derive from these rows. What is
stored beside a record, and how it is made, belongs in `session`, `publish` and `merge`; a per-session asset that
somebody adds is a row of its own kind (`ledger.analyses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.piles import Pile
from neuralpile_dagster.session.build import BINNING_VERSION, TRAINS_VERSION
from neuralpile_dagster.settings import Settings

Pool = Literal["archive", "sessions", "hub"]


@dataclass(frozen=True)
class AssetKind:
    """One kind of asset; every dataset has one asset of each of `DATASET_KINDS`, a pile of each of `PILE_KINDS`.

    Attributes
    ----------
    name : str
        Last part of the asset key, and folder or file in the store.
    text : str
        Markdown description in the UI.
    badges : frozenset of str
        What Dagster's UI shows as icons ("kinds").
    version : str
        Code version of the results, not of this row. A new one makes everything of the kind out of date.
    of_settings : bool
        Whether it depends on bin width and segment size, so that each setting has a folder of its own.
    pool : {"archive", "sessions", "hub"} or None
        Pool that limits concurrent steps (`orchestration.describe`).
    """

    name: str
    text: str
    badges: frozenset[str]
    version: str
    of_settings: bool = True
    pool: Pool | None = None

    def folder(self, owner: Dataset | Pile, settings: Settings) -> str:
        """Store prefix of the kind's files, of a dataset or of a pile."""
        return self.folder_of(owner.key, settings)

    def folder_of(self, owner_key: str, settings: Settings) -> str:
        """Store prefix of the kind's files, of the dataset or pile with that key."""
        return f"{owner_key}/{self.name}{settings.variant if self.of_settings else ''}"


MANIFEST = AssetKind(
    name="manifest",
    text=(
        "Which recording sessions there are, and the archive files that each is made of. **Start here**: it "
        "asks the archive for its list of files (nothing is downloaded), chooses sessions by the catalog's "
        "rule, and makes one partition per session for the assets that follow."
    ),
    badges=frozenset({"json"}),
    version="1",
    of_settings=False,
    pool="archive",
)
SPIKE_TRAINS = AssetKind(
    name="spike_trains",
    text=(
        "The spike times of every sorted unit, in seconds, and the table of units. One partition is one "
        "recording session. Only spike times and small columns of the unit table are read from a recording. "
        "Materialize it together with `spike_counts`; a failed session does not stop the others."
    ),
    badges=frozenset({"parquet", "hdf5"}),
    version=TRAINS_VERSION,
    of_settings=False,
    pool="sessions",
)
SPIKE_COUNTS = AssetKind(
    name="spike_counts",
    text=(
        "How many spikes each unit fired in each time bin (uint8; 20 ms unless set otherwise). One partition "
        "is one recording session, cut into segments of about 10 million tokens; a token is one unit in one "
        "bin. To build what is missing: *Materialize*, then *Failed and missing*. Sessions that are up to date are"
        " skipped."
    ),
    badges=frozenset({"parquet", "numpy"}),
    version=BINNING_VERSION,
    pool="sessions",
)
HUB_DATASET = AssetKind(
    name="hub_dataset",
    text=(
        "All finished sessions, published as one Hugging Face dataset: rows of spike counts, a table of "
        "units, a table of sessions, and a card. It refuses while sessions are missing, unless "
        "`min_session_share` in the launchpad allows it; the card then names them."
    ),
    badges=frozenset({"huggingface", "parquet"}),
    version="1",
    pool="hub",
)
PILE_MANIFEST = AssetKind(
    name="manifest",
    text=(
        "The plan of the pile\n\nWhich components it has, the order of all their rows (shuffled by `seed`), "
        "which rows are train and which test, and how they are cut into shards. Shift-click *Materialize* to "
        "set seed, split and components. Datasets that are not published yet are left out and listed; Dagster"
        " asks *Are you sure?* about them."
    ),
    badges=frozenset({"parquet", "json"}),
    version="1",
)
PILE_SHARDS = AssetKind(
    name="shards",
    text=(
        "The Parquet files of the pile\n\nRows of the components in the plan's order, copied as they are "
        "encoded. One partition is one shard, named after its plan; shards of older plans can be left alone."
    ),
    badges=frozenset({"parquet"}),
    version="1",
)
PILE_HUB_DATASET = AssetKind(
    name="hub_dataset",
    text=(
        "The merged pile\n\nAll components merged, shuffled, split into train and test, and published as one "
        "Hugging Face dataset. `source_dataset` says which component a row comes from."
    ),
    badges=frozenset({"huggingface", "parquet"}),
    version="1",
    pool="hub",
)

DATASET_KINDS = (MANIFEST, SPIKE_TRAINS, SPIKE_COUNTS, HUB_DATASET)
PILE_KINDS = (PILE_MANIFEST, PILE_SHARDS, PILE_HUB_DATASET)
