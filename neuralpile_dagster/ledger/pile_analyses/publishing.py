"""Publish what is made of a pile: names of the repositories, what their cards say of the pile, and the upload.

What the repositories hold belongs in `publish`; which there are in `motifs` and `tokens`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuralpile_dagster.errors import HubError
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.due import published_components
from neuralpile_dagster.ledger.kinds import PILE_HUB_DATASET
from neuralpile_dagster.ledger.pile_analyses.model import Number, PileAnalysis, PileTask, PlannedPile
from neuralpile_dagster.publish.configs import config_path
from neuralpile_dagster.records import PublicationRecord, ShardRecord

if TYPE_CHECKING:
    from neuralpile_dagster.publish.motif_table import OfPile


def name_of(of: PlannedPile, ending: str) -> str:
    """Name of a repository that is made of a pile: the pile's own, and an ending."""
    return f"{piles.repository_name(of.pile, of.settings)}-{ending}"


def repository_of(of: PlannedPile, ending: str) -> str:
    """``namespace/name`` of a repository that is made of a pile."""
    return f"{of.settings.namespace}/{name_of(of, ending)}"


def hash_of(of: PlannedPile, ending: str, *parts: object) -> str:
    """Hash (sha256, hex) of the inputs of a publication: its place, the pile's, the plan, and ``parts``."""
    place = [of.settings.hub, repository_of(of, ending)]
    content = [*place, piles.repository_name(of.pile, of.settings), of.plan.digest, *parts]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def publication(
    kind: str,
    ending: str,
    *,
    text: str,
    made_from: PileAnalysis,
    inputs: Callable[[PlannedPile, str], str | None],
    make: Callable[[PileTask], PublicationRecord],
) -> PileAnalysis:
    """Row of a repository: published after the pile that it is made of, and judged by the checks of its ``kind``."""
    return PileAnalysis(
        name=f"{kind}_{ending}",
        text=text,
        badges=frozenset({"huggingface", "parquet"}),
        version="1",
        pool="hub",
        upstream=(made_from, PILE_HUB_DATASET),
        record=PublicationRecord,
        inputs=inputs,
        make=make,
        waits=waits_for_pile,
        numbers=publication_numbers,
        says=says_where,
        checks=kind,
    )


def waits_for_pile(of: PlannedPile) -> str:
    """Why nothing can be published beside the pile: it is not published as it is planned now."""
    published = piles.read_published(of.store, of.pile, of.settings)
    current = published is not None and published.plan == of.plan.digest
    return "" if current else f"{of.pile.name} is not published as it is planned now ({of.pile.key}/hub_dataset)"


def publish(task: PileTask, ending: str, write: Callable[[Path, OfPile], Sequence[ShardRecord]]) -> PublicationRecord:
    """Let ``write`` make a folder, and publish it; raises as ``write`` and `Hub.publish` do.

    Raises `HubError` as well when the repository of that name holds rows of spike counts.
    """
    of, name = task.of, name_of(task.of, ending)
    hub, folder = task.open_hub(), documents.staging_folder(of.settings, name)
    if any(file.path == config_path("units") for file in hub.files(name)):
        raise HubError(
            f"the repository {name} holds spike counts of a dataset or pile",
            expected=f"none, or what is made of {of.pile.name}",
            remedy="give that dataset or pile another name",
        )
    shards = write(folder, _of_pile(task, repository_of(of, ending)))
    publication = hub.publish(name, folder, task.progress)
    return PublicationRecord(
        inputs=task.inputs,
        repository=publication.repository,
        plan=of.plan.digest,
        version=publication.version,
        url=publication.url,
        shards=tuple(shards),
    )


def _of_pile(task: PileTask, repository: str) -> OfPile:
    from neuralpile_dagster.publish.card_metadata import hub_licenses
    from neuralpile_dagster.publish.motif_table import OfPile

    of, hub = task.of, task.open_hub()
    published = published_components(of.store, of.datasets, of.settings)
    # a repository of another owner may have the name of one of ours
    ours = {
        source.name: published.get(source.name) if of.current.repositories.get(source.name) == source.name else None
        for source in of.plan.sources
    }
    licenses = [hub_licenses(record.license) if record else [] for record in ours.values()]
    return OfPile(
        repository=repository,
        pile=f"{of.settings.namespace}/{piles.repository_name(of.pile, of.settings)}",
        title=of.pile.title,
        plan=of.plan.digest,
        bin_width_s=of.settings.bin_width_s,
        synthetic=[name for name, record in ours.items() if record is not None and record.synthetic],
        licenses=sorted({name for some in licenses for name in some}) if all(licenses) else [],
        page=hub.page,
    )


def publication_numbers(record: PublicationRecord) -> dict[str, Number]:
    """Numbers of a publication for the UI."""
    return {
        "repository": record.repository,
        "rows": sum(shard.rows for shard in record.shards),
        "bytes_of_rows": sum(shard.bytes for shard in record.shards),
        "published_at": record.url,
        "version": record.version,
    }


def says_where(record: PublicationRecord) -> str:
    """What the command line says of a publication."""
    rows = sum(shard.rows for shard in record.shards)
    return f"{record.repository}: {rows:,} rows; in {record.url}"
