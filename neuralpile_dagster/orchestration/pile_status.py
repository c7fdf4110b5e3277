"""Where the merged pile stands, in words: below the datasets in the terminal and in the UI's overview."""

from __future__ import annotations

from collections.abc import Sequence

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration import pile_store
from neuralpile_dagster.orchestration.due import PileDue, pile_due
from neuralpile_dagster.records import PileRecord
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import Store


def pile_status(store: Store, datasets: Sequence[Dataset], settings: Settings) -> str:
    """What of the pile is published, and what it lacks."""
    published = pile_store.read_published(store, settings)
    due = pile_due(store, datasets, settings)
    name = pile_store.repository_name(settings)
    if published is None and due is None:
        return f"{name}: no component is published yet"
    return f"{name}: {_published(published)}; {_lacking(due)}"


def _published(record: PileRecord | None) -> str:
    if record is None:
        return "not published yet"
    return f"{pile_store.contents(record)} published (components: {', '.join(record.components)})"


def _lacking(due: PileDue | None) -> str:
    if due is None:
        return "up to date"
    if due.plan:
        return "to be planned (neural_pile/manifest)"
    if due.shards:
        return f"{len(due.shards):,} shards to make (neural_pile/shards)"
    return "to be published (neural_pile/hub_dataset)"
