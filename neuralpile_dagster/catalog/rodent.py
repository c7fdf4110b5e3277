"""The 25 datasets of the rodent pile, in catalog order (which is the order of the merged pile)."""

from __future__ import annotations

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.rodent_first import FIRST_18
from neuralpile_dagster.catalog.rodent_later import LATER_7

RODENT: tuple[Dataset, ...] = FIRST_18 + LATER_7
