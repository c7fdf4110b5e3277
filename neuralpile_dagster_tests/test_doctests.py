"""Examples in docs/binning.md and in docstrings of pure functions give what they show."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from neuralpile_dagster_tests.fixtures.documented import ROOT

MODULES = (
    "neuralpile_dagster.binning.source",
    "neuralpile_dagster.motifs.tokens",
    "neuralpile_dagster.recordings.manifest",
)


def test_the_binning_rule_is_as_its_page_shows() -> None:
    page = ROOT / "docs" / "binning.md"
    # Markdown's fences would be taken for output
    text = page.read_text("utf-8").replace("```", "\n")
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(example.examples) > 20
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module: str) -> None:
    result = doctest.testmod(import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
