"""Session rules, partition keys, and listings that mean harm."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.recordings.manifest import choose_sessions, partition_key
from neuralpile_dagster.store import check_key
from neuralpile_dagster_tests.servers.listings import listing_of, made_up_file, make_listing

KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.=+-]{0,199}\Z")
ANY_TEXT = st.text(max_size=300) | st.text(alphabet="ab./\\ _-é\n", max_size=300)


def dataset(**rule: object) -> Dataset:
    return Dataset(name="mine", title="Mine", source=Source(id="000000"), sessions=SessionRule(**rule))  # type: ignore[arg-type]


def keys(*paths: str, **rule: object) -> list[str]:
    return [session.key for session in choose_sessions(dataset(**rule), listing_of(*paths), None).sessions]


@given(ANY_TEXT)
def test_every_id_gives_a_key_that_partitions_and_the_store_accept(session_id: str):
    key = partition_key(session_id)
    assert KEY.match(key)
    assert ".." not in key
    assert check_key(f"mine/spike_counts/{key}.parquet")
    assert partition_key(key) == key == partition_key(session_id)


@given(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.=+-]{0,199}\Z"))
def test_an_id_that_is_a_key_already_stays_as_it_is(session_id: str):
    assume(".." not in session_id and not session_id.endswith("."))
    assert partition_key(session_id) == session_id


@pytest.mark.parametrize(
    ("session_id", "key"),
    [
        ("sub-Ford Prefect_ses-1", "sub-Ford_Prefect_ses-1"),
        ("a..b...c", "a._b.__c"),
        ("../../etc", "x.__.__etc"),
        ("a.", "a_"),
        (".", "x_"),
        ("_a", "x_a"),
        ("-", "x-"),
        ("a\n", "a_"),
        ("é1", "x_1"),
        ("a,b[c]\"d'", "a_b_c__d_"),
    ],
)
def test_other_characters_become_underscores_and_a_digest_follows(session_id: str, key: str):
    digest = hashlib.sha256(session_id.encode()).hexdigest()[:16]
    assert partition_key(session_id) == f"{key}-{digest}"


def test_subjects_that_differ_only_in_letters_a_key_cannot_hold_have_keys_of_their_own():
    assert len({partition_key(name) for name in ("sub-小鼠", "sub-大鼠", "sub-__", "sub- _", "sub-é_")}) == 5
    assert len(keys("sub-小鼠/sub-小鼠.nwb", "sub-大鼠/sub-大鼠.nwb", "sub-a/a b.nwb", "sub-a/a_b.nwb")) == 4


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("sub-01/ses-A/ecephys/x.nwb", "sub-01"),
        ("sub-01/x.nwb", "sub-01"),
        ("rawdata/sub-01/sub-01-left/ses-A/x.nwb", "sub-01-left"),
        ("Krebs/ecephys/x.nwb", "ecephys"),
        ("sub-03.nwb", "sub-03"),
    ],
)
def test_the_subject_is_the_nearest_sub_folder_else_the_parent_folder(path: str, subject: str):
    (session,) = choose_sessions(dataset(), listing_of(path), None).sessions
    assert session.subject_id == subject


def test_over_long_ids_are_cut_and_stay_different():
    one, other = partition_key("a" * 240 + "1"), partition_key("a" * 240 + "2")
    assert len(one) == len(other) == 200
    assert one != other
    assert partition_key("a" * 200) == "a" * 200


def test_sessions_with_the_same_key_are_refused_and_both_are_named():
    with pytest.raises(ArchiveError) as caught:
        keys("sub-1/a b.nwb", "sub-2/a b.nwb")
    assert "'a b' (sub-1/a b.nwb) and 'a b' (sub-2/a b.nwb)" in str(caught.value)


def test_files_of_the_same_name_in_two_folders_are_refused_and_both_are_named():
    with pytest.raises(ArchiveError, match=r"raw/a\.nwb.*sorted/a\.nwb"):
        keys("raw/a.nwb", "sorted/a.nwb")


def test_a_session_group_tells_files_of_the_same_name_apart():
    assert keys("raw/a.nwb", "sorted/a.nwb", same_session="^(?P<session>.*)[.]nwb$") == [
        partition_key("raw/a"),
        partition_key("sorted/a"),
    ]


def test_a_path_that_is_listed_twice_is_refused():
    with pytest.raises(ArchiveError, match="twice"):
        keys("sub-1/a.nwb", "sub-1/a.nwb")


def test_sessions_are_in_the_order_of_their_full_paths():
    assert keys("sub-b/1.nwb", "sub-a/3.nwb", "sub-B/2.nwb") == ["2", "3", "1"]


def test_a_file_that_same_session_does_not_match_is_a_session_of_its_own():
    rule = {"same_session": r"(?P<subject>[^/]+)/.*(?P<session>ses-\d+)", "several": "stack"}
    manifest = choose_sessions(dataset(**rule), listing_of("m1/x-ses-1.nwb", "m1/y-ses-1.nwb", "m2/z.nwb"), None)
    assert [(s.subject_id, s.session_id, len(s.files)) for s in manifest.sessions] == [
        ("m1", "ses-1", 2),
        ("m2", "z", 1),
    ]


def test_the_subject_of_a_file_in_no_folder_is_its_session_id():
    (session,) = choose_sessions(dataset(), listing_of("alone.nwb"), None).sessions
    assert (session.subject_id, session.session_id) == ("alone", "alone")


def test_everything_that_is_required_must_be_in_the_metadata():
    manifest = choose_sessions(dataset(requires=("Units", "LFP")), listing_of("a/a.nwb", variables=("Units",)), None)
    assert manifest.dropped == {"metadata has no LFP": 1}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd.nwb",
        "../../secrets.nwb",
        "sub-1/../../a.nwb",
        "sub-1//a.nwb",
        "./a.nwb",
        "C:/Windows/a.nwb",
        "c:a.nwb",
        "sub-1\\..\\a.nwb",
        "sub-1/a\n.nwb",
        "sub-1/a\x00.nwb",
        "sub-1/\u202ebwn.nwb",
        "sub-1/\ud800.nwb",
        f"sub-1/{'a' * 256}.nwb",
        f"{'a/' * 600}a.nwb",
        "",
    ],
)
def test_a_hostile_path_is_left_out_and_counted(path: str):
    hostile, good = made_up_file(path), made_up_file("sub-1/good.nwb")
    manifest = choose_sessions(dataset(), make_listing([hostile, good]), None)
    assert [session.key for session in manifest.sessions] == ["good"]
    ((reason, count),) = manifest.dropped.items()
    assert reason.startswith("unsafe path: ")
    assert count == 1
    assert path == "" or path not in reason


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/etc/a.nwb", "absolute, or with"), ("", "empty or too long"), ("a//b.nwb", "empty parts")],
)
def test_the_reason_says_what_is_unsafe_about_a_path(path: str, reason: str):
    (found,) = choose_sessions(dataset(), make_listing([made_up_file(path)]), None).dropped
    assert found.startswith(f"unsafe path: {reason}")


@given(st.lists(st.text(max_size=40), unique=True, max_size=20))
def test_every_file_is_chosen_or_counted(names: list[str]):
    files = [made_up_file(f"{name}.nwb") for name in names]
    try:
        manifest = choose_sessions(dataset(), make_listing(files), None)
    except ArchiveError as error:
        assert "same partition key" in str(error)
        return
    assert manifest.considered == len(files) == manifest.chosen + sum(manifest.dropped.values())


def test_what_the_archive_said_is_in_the_manifest():
    listing = listing_of("a/a.nwb").model_copy(update={"version": "0.1.2", "frozen": True, "version_note": "newer"})
    manifest = choose_sessions(dataset(), listing, None)
    assert (manifest.dataset, manifest.source_id, manifest.version, manifest.version_note, manifest.frozen) == (
        "mine",
        "000000",
        "0.1.2",
        "newer",
        True,
    )
    assert manifest.session("a").size == listing.files[0].size
    with pytest.raises(KeyError):
        manifest.session("b")


def test_the_manifest_survives_being_stored():
    manifest = choose_sessions(dataset(), listing_of("a/a.nwb"), None)
    assert type(manifest).model_validate_json(manifest.model_dump_json()) == manifest


def test_a_suffix_in_capitals_is_the_same_suffix():
    assert keys("sub-1/a.NWB", "sub-1/b.Nwb", "sub-1/c.txt") == ["a", "b"]
    assert keys("sub-1/a_image.NWB", "sub-1/a.NWB", exclude=[r"_image\.nwb$"]) == ["a"]
    assert keys("sub-1/a.NWB", include=[r"\.NWB$"]) == ["a"]
    both = choose_sessions(
        dataset(same_session=r"(sub-\d)_probe\d\.nwb$", several="stack"),
        listing_of("sub-1_probe1.NWB", "sub-1_probe2.nwb"),
    )
    assert [len(session.files) for session in both.sessions] == [2]
