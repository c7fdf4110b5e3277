"""Records: small JSON documents in the store that describe stored files.

A record is written after its file, so a file counts as made only once its
record exists and names its size and digest. Dagster's metadata, the
publishing step, the pile's plan and ``neuralpile status`` all read records.
"""

from neuralpile_dagster.records.form import (
    AnyModel,
    Model,
    document,
    json_hash,
    read_document,
)
from neuralpile_dagster.records.publications import (
    AnnotationTotals,
    ComponentCitation,
    ComponentRecord,
    ComponentSession,
    HeldOutGoTo,
    Order,
    PileRecord,
    PublicationRecord,
    PublishedTotals,
    ShardRecord,
    SpikesRecord,
    SplitBy,
    SplitFacts,
    SplitRule,
    SplitRules,
    TokenCounts,
    UnitOrderTotals,
)
from neuralpile_dagster.records.sessions import (
    AnalysisRecord,
    Citation,
    ClockRecord,
    CountsRecord,
    CountsStats,
    FactsRecord,
    RowRecord,
    StoredFile,
    TrainsRecord,
    UnitOrderRecord,
)

__all__ = [
    "AnalysisRecord",
    "AnnotationTotals",
    "AnyModel",
    "Citation",
    "ClockRecord",
    "ComponentCitation",
    "ComponentRecord",
    "ComponentSession",
    "CountsRecord",
    "CountsStats",
    "FactsRecord",
    "HeldOutGoTo",
    "Model",
    "Order",
    "PileRecord",
    "PublicationRecord",
    "PublishedTotals",
    "RowRecord",
    "ShardRecord",
    "SpikesRecord",
    "SplitBy",
    "SplitFacts",
    "SplitRule",
    "SplitRules",
    "StoredFile",
    "TokenCounts",
    "TrainsRecord",
    "UnitOrderRecord",
    "UnitOrderTotals",
    "document",
    "json_hash",
    "read_document",
]
