"""``overview/datasets``: where every dataset stands, as a table in the UI; materialize it to look again."""

from collections.abc import Sequence

import dagster as dg

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.orchestration.describe import OWNERS
from neuralpile_dagster.orchestration.metadata import table
from neuralpile_dagster.orchestration.names import OVERVIEW
from neuralpile_dagster.orchestration.resources import InstanceResource
from neuralpile_dagster.orchestration.status import dataset_status


def overview_asset(datasets: Sequence[Dataset]) -> dg.AssetsDefinition:
    """The asset that reads every dataset's standing from the store; `neuralpile status` shows the same."""

    @dg.asset(
        key=OVERVIEW,
        group_name="overview",
        owners=OWNERS,
        kinds={"table"},
        tags={"layer": "overview"},
        description="Sessions known, done and failed, and tokens, of every dataset. Reads records only: materialize it "
        "whenever you want to see where things stand. Token totals plot over time.",
    )
    def overview(instance: InstanceResource) -> dg.MaterializeResult:
        store, settings = instance.open_store(), instance.settings
        statuses = [dataset_status(store, dataset, settings) for dataset in datasets]
        return dg.MaterializeResult(
            metadata={
                "tokens": sum(status.tokens for status in statuses),
                "sessions_done": sum(status.done for status in statuses),
                "sessions_failed": sum(len(status.failed) for status in statuses),
                "datasets": table(
                    [
                        {
                            "dataset": status.dataset.name,
                            "source": status.dataset.source.label,
                            "sessions known": status.known or 0,
                            "done": status.done,
                            "failed": len(status.failed),
                            "to do": status.to_do,
                            "tokens": status.tokens,
                            "published by us": status.published_tokens or 0,
                            "reference": status.dataset.tokens_published or 0,
                        }
                        for status in statuses
                    ]
                ),
            }
        )

    return overview
