"""What choosing sessions again does to those that are known already."""

from __future__ import annotations

import pytest

from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.errors import ArchiveError
from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions, partition_key
from neuralpile_dagster_tests.servers.listings import listing_of

IBL = next(dataset for dataset in RODENT if dataset.name == "ibl")
UUIDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(4)]


def first_form(number: int, mouse: str = "CSH-ZAD-001") -> str:
    return f"sub-{mouse}/sub-{mouse}_ses-{UUIDS[number]}-processed-only_behavior.nwb"


def second_form(number: int, mouse: str = "CSH-ZAD-001") -> str:
    return f"sub-{mouse}/sub-{mouse}_ses-{UUIDS[number]}_desc-processed_behavior+ecephys.nwb"


def plain(**fields: object) -> Dataset:
    return Dataset(name="mine", title="Mine", source=Source(id="000000"), **fields)  # type: ignore[arg-type]


def test_either_form_of_an_ibl_session_will_do_and_the_first_is_preferred():
    listing = listing_of(first_form(0), second_form(0), first_form(1), second_form(2))
    manifest = choose_sessions(IBL, listing, None)
    assert [session.files[0].path for session in manifest.sessions] == [first_form(0), first_form(1), second_form(2)]
    assert manifest.dropped == {"another file of the same session is preferred": 1}


def test_the_same_uuid_of_two_mice_is_two_sessions():
    manifest = choose_sessions(IBL, listing_of(first_form(0), second_form(0, "other")), None)
    assert [session.subject_id for session in manifest.sessions] == ["sub-CSH-ZAD-001", "sub-other"]


def test_a_raw_file_of_an_ibl_session_is_not_one_of_its_forms():
    raw = f"sub-A/sub-A_ses-{UUIDS[0]}-chunking-13653-384_behavior+ecephys.nwb"
    manifest = choose_sessions(IBL, listing_of(raw, second_form(0, "A")), None)
    assert [session.files[0].path for session in manifest.sessions] == [second_form(0, "A")]


def test_a_session_keeps_its_key_through_every_change_of_form():
    old = choose_sessions(IBL, listing_of(first_form(0)), None)
    ids = [(session.key, session.session_id) for session in old.sessions]
    for paths in ([first_form(0), second_form(0)], [second_form(0)], [second_form(0)], [first_form(0)]):
        old = choose_sessions(IBL, listing_of(*paths), old)
        assert [(session.key, session.session_id) for session in old.sessions] == ids
        assert old.sessions[0].files[0].path == paths[0]
        assert not old.vanished


def test_a_session_known_by_its_second_form_keeps_that_key_when_the_first_appears():
    old = choose_sessions(IBL, listing_of(second_form(0)), None)
    new = choose_sessions(IBL, listing_of(first_form(0), second_form(0)), old)
    assert new.sessions[0].key == old.sessions[0].key
    assert new.sessions[0].files[0].path == first_form(0)


def test_a_session_that_vanished_keeps_its_place_and_loses_the_mark_when_it_comes_back():
    paths = [f"sub-1/sub-1_ses-{number}.nwb" for number in range(3)]
    everything = choose_sessions(plain(), listing_of(*paths), None)
    fewer = choose_sessions(plain(), listing_of(paths[0], paths[2]), everything)
    assert [(session.session_id, session.vanished) for session in fewer.sessions] == [
        ("sub-1_ses-0", False),
        ("sub-1_ses-1", True),
        ("sub-1_ses-2", False),
    ]
    assert (fewer.considered, fewer.chosen, len(fewer.vanished)) == (2, 2, 1)
    still = choose_sessions(plain(), listing_of(paths[0], paths[2]), fewer)
    assert still == fewer
    assert choose_sessions(plain(), listing_of(*paths), still) == everything


def test_an_ibl_session_that_vanished_comes_back_in_its_other_form_under_its_old_key():
    old = choose_sessions(IBL, listing_of(first_form(0), first_form(1)), None)
    gone = choose_sessions(IBL, listing_of(first_form(1)), old)
    assert [session.vanished for session in gone.sessions] == [True, False]
    back = choose_sessions(IBL, listing_of(second_form(0), first_form(1)), gone)
    assert [session.key for session in back.sessions] == [session.key for session in old.sessions]
    assert not back.vanished


def test_a_session_whose_file_lost_its_units_upstream_has_vanished():
    rule = SessionRule(requires=("Units",))
    old = choose_sessions(plain(sessions=rule), listing_of("sub-1/a.nwb"), None)
    new = choose_sessions(plain(sessions=rule), listing_of("sub-1/a.nwb", variables=()), old)
    assert [session.key for session in new.vanished] == ["a"]
    assert (new.considered, new.chosen, new.dropped) == (1, 0, {"metadata has no Units": 1})


def test_a_session_that_the_rule_no_longer_chooses_is_dropped_by_that():
    old = choose_sessions(plain(), listing_of("sub-1/a.nwb", "sub-1/b.nwb"), None)
    rule = SessionRule(exclude=("/b",))
    assert [s.key for s in choose_sessions(plain(sessions=rule), listing_of("sub-1/a.nwb"), old).sessions] == ["a"]


def test_a_file_renamed_to_the_same_key_is_the_same_session():
    old = known(choose_sessions(plain(), listing_of("sub-Ford Prefect/a b.nwb"), None), key="a_b")
    new = choose_sessions(plain(), listing_of("sub-Ford_Prefect/a_b.nwb"), old)
    assert [(s.key, s.session_id, s.vanished) for s in new.sessions] == [("a_b", "a_b", False)]
    assert new.replaced == ()


def test_a_session_whose_key_another_one_has_now_is_kept_apart_until_it_comes_back():
    old = choose_sessions(plain(), listing_of("sub-1/ses-1.nwb", "sub-1/ses-2.nwb"), None)
    new = choose_sessions(plain(), listing_of("sub-2/ses-1.nwb", "sub-1/ses-2.nwb"), old)
    assert [(s.key, s.subject_id, s.vanished) for s in new.sessions] == [
        ("ses-2", "sub-1", False),
        ("ses-1", "sub-2", False),
    ]
    assert [(s.key, s.subject_id, s.vanished) for s in new.replaced] == [("ses-1", "sub-1", True)]
    still = choose_sessions(plain(), listing_of("sub-2/ses-1.nwb", "sub-1/ses-2.nwb"), new)
    assert still == new
    back = choose_sessions(plain(), listing_of("sub-1/ses-1.nwb", "sub-1/ses-2.nwb"), still)
    assert [(s.subject_id, s.vanished) for s in back.sessions] == [("sub-1", False), ("sub-1", False)]
    assert [(s.key, s.subject_id) for s in back.replaced] == [("ses-1", "sub-2")]


def test_a_session_whose_subject_was_renamed_is_known_by_its_bytes():
    old = choose_sessions(plain(), listing_of("sub-1/ses-1.nwb"), None)
    (file,) = listing_of("sub-01/ses-1.nwb").files
    same = file.model_copy(update={"digests": old.sessions[0].files[0].digests})
    listing = listing_of("sub-01/ses-1.nwb").model_copy(update={"files": (same,)})
    new = choose_sessions(plain(), listing, old)
    assert [(s.key, s.subject_id) for s in new.sessions] == [("ses-1", "sub-01")]
    assert not new.replaced


def test_a_manifest_of_another_source_is_not_carried_over():
    old = choose_sessions(plain(), listing_of("sub-1/a.nwb", source_id="000001"), None)
    assert [session.key for session in choose_sessions(plain(), listing_of("sub-1/b.nwb"), old).sessions] == ["b"]


def test_a_new_probe_joins_its_session_and_a_lost_one_leaves_it():
    rule = SessionRule(same_session=r"(?P<session>ses-\d+)", several="stack")
    one, two = "sub-1/ses-1-probe0.nwb", "sub-1/ses-1-probe1.nwb"
    old = choose_sessions(plain(sessions=rule), listing_of(one), None)
    both = choose_sessions(plain(sessions=rule), listing_of(one, two), old)
    assert [(s.key, [f.path for f in s.files]) for s in both.sessions] == [("ses-1", [one, two])]
    last = choose_sessions(plain(sessions=rule), listing_of(two), both)
    assert [(s.key, s.vanished, [f.path for f in s.files]) for s in last.sessions] == [("ses-1", False, [two])]


@pytest.mark.parametrize("several", ["refuse", "prefer"])
def test_two_equally_good_files_of_one_session_are_refused_by_name(several: str):
    rule = SessionRule(same_session=r"(ses-\d+)", several=several)  # type: ignore[arg-type]
    with pytest.raises(ArchiveError, match=r"sub-1/ses-1-a\.nwb and sub-1/ses-1-b\.nwb"):
        choose_sessions(plain(sessions=rule), listing_of("sub-1/ses-1-b.nwb", "sub-1/ses-1-a.nwb"), None)


def test_files_that_a_new_rule_makes_one_session_do_not_stay_behind_as_vanished_ones():
    paths = ["sub-1/ses-1-probe0.nwb", "sub-1/ses-1-probe1.nwb"]
    apart = choose_sessions(plain(), listing_of(*paths), None)
    assert [session.key for session in apart.sessions] == ["ses-1-probe0", "ses-1-probe1"]
    named = SessionRule(same_session=r"(?P<session>ses-\d+)", several="stack")
    (session,) = choose_sessions(plain(sessions=named), listing_of(*paths), apart).sessions
    assert (session.key, len(session.files)) == ("ses-1", 2)
    unnamed = SessionRule(same_session=r"(ses-\d+)", several="stack")
    (session,) = choose_sessions(plain(sessions=unnamed), listing_of(*paths), apart).sessions
    assert (session.key, len(session.files)) == ("ses-1-probe0", 2)


def test_a_manifest_is_synthetic_when_the_row_or_the_listing_says_so():
    listing = listing_of("sub-1/a.nwb")
    made_up = plain().model_copy(update={"name": "sample-mine", "synthetic": True})
    assert choose_sessions(made_up, listing, None).synthetic
    assert choose_sessions(plain(), listing.model_copy(update={"synthetic": True}), None).synthetic
    assert not choose_sessions(plain(), listing, None).synthetic


NESTED, CHINESE = "sub-01/ses-A/ecephys/x.nwb", ("sub-1/小鼠.nwb", "sub-1/y.nwb")


def known(manifest: Manifest, **ids: str) -> Manifest:
    """A manifest of before, whose first session has these ids."""
    first, *others = manifest.sessions
    return manifest.model_copy(update={"sessions": (first.model_copy(update=ids), *others)})


def ids_of(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(session.key, session.subject_id, session.session_id) for session in manifest.sessions]


def test_a_known_session_keeps_the_subject_and_the_key_that_it_was_given_before():
    old = known(choose_sessions(plain(), listing_of(NESTED)), subject_id="ecephys")
    new = choose_sessions(plain(), listing_of(NESTED, "sub-02/ses-A/ecephys/z.nwb"), old)
    assert ids_of(new) == [("x", "ecephys", "x"), ("z", "sub-02", "z")]
    assert choose_sessions(plain(), listing_of(NESTED), new).sessions[0] == new.sessions[0]

    old = known(choose_sessions(plain(), listing_of(*CHINESE)))
    chinese = next(session for session in old.sessions if session.session_id == "小鼠")
    assert chinese.key != "x__"
    before = old.model_copy(update={"sessions": (chinese.model_copy(update={"key": "x__"}),)})
    new = choose_sessions(plain(), listing_of(*CHINESE, "sub-1/大鼠.nwb"), before)
    assert {session.session_id: session.key for session in new.sessions} == {
        "小鼠": "x__",
        "y": "y",
        "大鼠": partition_key("大鼠"),
    }


def test_a_session_that_vanished_and_comes_back_keeps_its_key_of_before():
    old = choose_sessions(plain(), listing_of("sub-1/a b.nwb", "sub-1/c.nwb"))
    old = known(old, key="a_b")
    gone = choose_sessions(plain(), listing_of("sub-1/c.nwb"), old)
    back = choose_sessions(plain(), listing_of("sub-1/a b.nwb", "sub-1/c.nwb"), gone)
    assert back.sessions == old.sessions


def test_results_that_are_stored_keep_their_ids_when_the_manifest_was_lost():
    stored = {"a_b": ("ecephys", "a b"), "x": ("ecephys", "x"), "c_d": ("sub-9", "c,d")}
    paths = ("sub-01/ecephys/a b.nwb", "sub-01/ecephys/x.nwb", "sub-9/c d.nwb", "sub-9/e.nwb")
    found = choose_sessions(plain(), listing_of(*paths), None, stored.get)
    assert ids_of(found) == [
        ("a_b", "ecephys", "a b"),
        ("x", "ecephys", "x"),
        (partition_key("c d"), "sub-9", "c d"),
        ("e", "sub-9", "e"),
    ]
    asked: list[str] = []
    choose_sessions(plain(), listing_of(*paths), found, asked.append)
    assert asked == []
