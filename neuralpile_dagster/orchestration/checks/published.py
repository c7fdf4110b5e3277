"""Checks of what lies on the hub, for components and the pile alike. One function is one check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import yaml

from neuralpile_dagster.hub.model import Hub
from neuralpile_dagster.orchestration.checks.verdict import Verdict, capped
from neuralpile_dagster.records import ShardRecord
from neuralpile_dagster.tables.footer import read_footer


def read_card(hub: Hub, name: str) -> dict[str, Any]:
    """The YAML block at the top of a published README."""
    with hub.open(name, "README.md") as file:
        text = file.read().decode()
    content = yaml.safe_load(text.split("---\n")[1])
    return content if isinstance(content, dict) else {}


def _splits_of(card: dict[str, Any]) -> dict[str, int]:
    info = card["dataset_info"]
    configs = info if isinstance(info, list) else [info]
    default = next(config for config in configs if config.get("config_name", "default") == "default")
    return {split["name"]: split["num_examples"] for split in default["splits"]}


def card_counts_equal_footers(hub: Hub, name: str) -> Verdict:
    """The card's number of rows per split is what the published files' footers say."""
    stated = _splits_of(read_card(hub, name))
    counted = dict.fromkeys(stated, 0)
    for file in hub.files(name):
        if file.path.startswith("data/"):
            split = file.path.removeprefix("data/").split("-")[0]
            with hub.open(name, file.path) as stream:
                counted[split] = counted.get(split, 0) + read_footer(pa.PythonFile(stream, "r"), file.path).n_rows
    return Verdict(
        passed=stated == counted,
        expected=", ".join(f"{split} {rows}" for split, rows in sorted(counted.items())),
        found=", ".join(f"{split} {rows}" for split, rows in sorted(stated.items())),
        remedy="materialize hub_dataset again; until then load_dataset fails for everybody",
    )


def hub_equals_record(hub: Hub, name: str, shards: Sequence[ShardRecord]) -> Verdict:
    """The hub holds exactly the shards that were recorded, with their digests."""
    found = {file.path: file.sha256 for file in hub.files(name) if file.path.startswith("data/")}
    due = {shard.path: shard.sha256 for shard in shards}
    wrong = sorted(path for path in found.keys() | due.keys() if found.get(path) != due.get(path))
    return Verdict(
        passed=not wrong,
        expected=f"{len(due)} shards as recorded",
        found=f"{len(found)} shards" + (f"; not as recorded: {capped(wrong, 5)}" if wrong else ", all as recorded"),
        remedy="materialize hub_dataset again; find out who else writes to the repository",
    )
