"""The rules of the catalog on paths; `archives/test_dandi_raw.py` tests them on real listings."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralpile_dagster.catalog.model import Dataset
from neuralpile_dagster.catalog.primate import PRIMATE
from neuralpile_dagster.catalog.rodent import RODENT
from neuralpile_dagster.recordings.manifest import Manifest, choose_sessions, partition_key
from neuralpile_dagster_tests.servers.listings import listing_of, made_up_file, make_listing, real_paths

BY_NAME = {dataset.name: dataset for dataset in RODENT}


def chosen_paths(manifest: Manifest) -> list[str]:
    return [file.path for session in manifest.sessions for file in session.files]


def test_the_probe_files_of_lemerre_are_grouped_into_50_sessions(shared_data: Path):
    paths = real_paths(shared_data, "001260")
    manifest = choose_sessions(BY_NAME["lemerre"], listing_of(*paths), None)
    sizes = [len(session.files) for session in manifest.sessions]
    assert (len(sizes), sum(sizes), sum(size > 1 for size in sizes), max(sizes)) == (50, 74, 23, 3)
    assert len({session.subject_id for session in manifest.sessions}) == 43
    assert manifest.considered == len(paths) == manifest.chosen + sum(manifest.dropped.values())
    session = manifest.session("ses-PL062-20200420")
    assert session.subject_id == "sub-PL062"
    assert [file.path.split("-")[-1] for file in session.files] == [
        f"probe{probe}_behavior+ecephys.nwb" for probe in range(3)
    ]
    assert manifest.session("ses-518804-20220228").subject_id == "sub-518804-1"


@pytest.mark.parametrize(("name", "source_id", "considered"), [("xiao", "000628", 2_037), ("even-chen", "000121", 15)])
def test_rules_of_which_only_paths_are_known_choose_the_published_sessions(
    shared_data: Path, name: str, source_id: str, considered: int
):
    """Paths alone: what else the archive states of these files is in no test, so that the rows say untested."""
    dataset = next(row for row in PRIMATE if row.name == name)
    manifest = choose_sessions(dataset, listing_of(*real_paths(shared_data, source_id)), None)
    assert manifest.considered == considered
    assert len(manifest.sessions) == dataset.sessions_published
    assert len({session.subject_id for session in manifest.sessions}) == dataset.subjects_published
    assert not dataset.rule_checked


def test_vbn_takes_the_files_with_nothing_after_the_session():
    day = "sub-1/sub-1_ses-20200101T010203"
    manifest = choose_sessions(
        BY_NAME["vbn"],
        listing_of(f"{day}.nwb", f"{day}_image.nwb", f"{day}_probe-0_ecephys.nwb", "sub-2/sub-2_ses-1.nwb"),
        None,
    )
    assert chosen_paths(manifest) == [f"{day}.nwb"]


def test_giocomo_leaves_out_the_np_files_that_repeat_an_ecephys_file_and_keeps_spaces():
    paths = [
        "sub-Ford Prefect/sub-Ford Prefect_ses-1_behavior.nwb",
        "sub-npI1/sub-npI1_ses-20190413_behavior+ecephys.nwb",
        "sub-npI1/sub-npI1_ses-20190413_behavior.nwb",
        "sub-inp/sub-inp_ses-1_behavior.nwb",
    ]
    manifest = choose_sessions(BY_NAME["giocomo"], listing_of(*paths), None)
    assert chosen_paths(manifest) == [paths[0], paths[3], paths[1]]
    session = manifest.sessions[0]
    assert session.key == partition_key("sub-Ford Prefect_ses-1_behavior")
    assert session.key.startswith("sub-Ford_Prefect_ses-1_behavior-")
    assert (session.subject_id, session.session_id) == ("sub-Ford Prefect", "sub-Ford Prefect_ses-1_behavior")
    assert manifest.sessions[2].key == "sub-npI1_ses-20190413_behavior+ecephys"


@pytest.mark.parametrize("folder", ["", "Eight Probe/", "data.zip/a/b/"])
def test_the_mice_of_steinmetz_2_are_found_by_base_name(folder: str):
    names = [
        "dat_small.mat",
        "spksWaksman_Feb18.mat",
        "spksKrebs_Feb18.mat",
        "spksRobbins_Feb18.mat",
        "xspksKrebs_Feb18.mat",
    ]
    manifest = choose_sessions(
        BY_NAME["steinmetz-2"], listing_of(*(f"{folder}{name}" for name in names), variables=()), None
    )
    assert [(session.subject_id, session.session_id) for session in manifest.sessions] == [
        (mouse, f"spks{mouse}_Feb18") for mouse in ("Krebs", "Robbins", "Waksman")
    ]


@pytest.mark.parametrize(
    ("name", "taken", "left"),
    [
        ("oddball", "sub-1/sub-1_ses-2.nwb", "sub-1/sub-1_ses-2_probe-0_ecephys.nwb"),
        ("jaramillo", "sub-a/sub-a_ses-1_behavior.nwb", "sub-a/sub-a_ses-1_ecephys.nwb"),
        ("fujisawa", "sub-E/sub-E_ses-1_behavior+ecephys.nwb", "sub-E/sub-E_ses-1_ecephys.nwb"),
    ],
)
def test_the_rules_without_a_real_listing_take_and_leave_as_the_facts_say(name: str, taken: str, left: str):
    assert chosen_paths(choose_sessions(BY_NAME[name], listing_of(taken, left), None)) == [taken]


@pytest.mark.parametrize("dataset", [d for d in RODENT if "Units" in d.sessions.requires], ids=lambda d: d.name)
def test_a_file_without_units_is_no_session_but_one_of_unknown_content_is(dataset: Dataset):
    path = "sub-1/sub-1_ses-1_behavior+ecephys.nwb"
    without = choose_sessions(dataset, listing_of(path, variables=("LFP",)), None)
    assert without.sessions == ()
    assert without.dropped == {"metadata has no Units": 1}
    unknown = make_listing([made_up_file(path, None)])
    assert len(choose_sessions(dataset, unknown, None).sessions) == 1
