from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from dandischema.models import LicenseType
from hypothesis import given
from hypothesis import strategies as st

from neuralpile_dagster.archives.dandi_metadata import FieldReader, citation_of
from neuralpile_dagster.markdown import code_block, link, one_line, public, table, text
from neuralpile_dagster.publish.card_parts import hub_licenses, size_category
from neuralpile_dagster.tables.schemas import ROW_SCHEMA
from neuralpile_dagster_tests.servers.hf_hub_card import LICENSES, SIZES


@given(st.text())
def test_escaped_words_are_one_line_without_live_markup(words: str):
    escaped = text(words)
    assert "\n" not in escaped and "<" not in escaped and ">" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*[`*_\[\]|~$^]", escaped)
    assert "\n" not in one_line(words) and len(one_line(words)) <= 500


@given(st.text(), st.text())
def test_a_table_has_as_many_cells_as_its_header_whatever_is_in_them(one: str, other: str):
    for line in table(["a", "b"], [[text(one), text(other)], ["x", 1_000]]):
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3


def test_a_code_block_ends_after_its_last_line():
    assert code_block("a ``` b\n````\nc", "text") == ["`````text", "a ``` b", "````", "c", "`````"]


@pytest.mark.parametrize("address", ["javascript:a(1)", "https://x.org/a b", "https://x.org/)", "ftp://x", None, ""])
def test_only_plain_web_addresses_become_links(address: str | None):
    assert link("words", address) == "words"
    assert link("words", "https://x.org/a?b=c#d") == "[words](https://x.org/a?b=c#d)"


def test_numbers_in_a_table_are_grouped_and_right_aligned():
    assert table(["what", "n"], [["a", 1234], ["b", 5]]) == ["| what | n |", "|---|---:|", "| a | 1,234 |", "| b | 5 |"]


def test_private_parts_of_an_error_are_left_out():
    assert public("/home/x/store/a.nwb broke") == "…/a.nwb broke"
    assert public("sub-1/a.nwb broke at https://h.org/p/q?sig=1") == "sub-1/a.nwb broke at https://h.org/p/q"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("spdx:CC-BY-4.0", "cc-by-4.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("spdx:CC0-1.0", "cc0-1.0"),
        ("CC0", "cc0-1.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "cc-by-nc-sa-4.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("MIT", "mit"),
        ("CC-BY-4.0, CC0-1.0", "cc-by-4.0 cc0-1.0"),
        ("CC-BY-4.0, all rights reserved", ""),
        ("spdx:CC-BY-9.9", ""),
        ("all rights reserved", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_licenses_become_the_hubs_identifiers_or_nothing(stated: str | None, expected: str):
    found = hub_licenses(stated)
    assert found == expected.split()
    assert set(found) <= LICENSES


# the public ones of https://api.figshare.com/v2/licenses
@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        *[
            (f"CC BY{terms} 4.0", f"cc-by{terms.lower()}-4.0")
            for terms in ("", "-SA", "-ND", "-NC", "-NC-SA", "-NC-ND")
        ],
        *[("CC0", "cc0-1.0"), ("MIT", "mit"), ("Apache 2.0", "apache-2.0")],
        *[("GPL", "gpl"), ("GPL 2.0+", "gpl-2.0"), ("GPL 3.0+", "gpl-3.0")],
    ],
)
def test_every_license_of_figshare_has_an_identifier_on_the_hub(stated: str, expected: str):
    assert hub_licenses(stated) == [expected]
    assert expected in LICENSES


def test_every_license_that_dandi_offers_or_a_real_dandiset_states_has_an_identifier_on_the_hub(shared_data: Path):
    stated = {license.value for license in LicenseType}
    for file in (shared_data / "dandi").glob("*.dandiset.yaml"):
        stated.add(citation_of(yaml.safe_load(file.read_text()), FieldReader(), file.name).license)
    assert len(stated) > 2  # with and without spdx:
    assert all(hub_licenses(each) for each in stated)


@pytest.mark.parametrize(("n", "name"), [(1, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (45_000, "10K<n<100K")])
def test_size_categories_are_those_of_the_hub(n: int, name: str):
    assert size_category(n) == name
    assert name in SIZES


def test_arrow_bytes_of_a_row_are_those_of_its_table():
    from neuralpile_dagster.publish.card_parts import row_arrow_bytes

    row = {"spike_counts": [[[1, 2, 3], [4, 5, 6]]], "subject_id": ["sub-é"], "session_id": ["s"], "segment_id": [""]}
    assert pa.table(row, schema=ROW_SCHEMA).nbytes == row_arrow_bytes(2, 3, ["sub-é", "s", ""])
