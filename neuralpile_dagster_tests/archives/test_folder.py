"""The folder archive: `dandi download`'s layout on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import pytest

from neuralpile_dagster.archives import open_archive
from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.errors import ArchiveError, DamagedRecording
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster.settings import Settings
from neuralpile_dagster_tests.fixtures.archive_folders import SOURCE, listing, touch
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, remove, write_nwb_without_units, write_units_nwb


def paths(root: Path) -> list[str]:
    return [file.path for file in listing(root).files]


def test_units_means_that_the_file_has_spike_times(root: Path, folder: Path):
    trains = poisson_trains(2, 5)
    write_units_nwb(folder / "sub-1" / "a.nwb", trains)
    write_nwb_without_units(folder / "sub-1" / "b.nwb")
    remove(write_units_nwb(folder / "sub-1" / "c.nwb", trains), "units/spike_times", "units/spike_times_index")
    touch(folder / "sub-1" / "d.nwb", "not HDF5")
    touch(folder / "notes.txt")
    assert {file.path: file.variables for file in listing(root).files} == {
        "notes.txt": (),
        "sub-1/a.nwb": ("Units",),
        "sub-1/b.nwb": (),
        "sub-1/c.nwb": (),
        "sub-1/d.nwb": None,
    }


def test_a_file_whose_units_lie_outside_it_is_listed_and_fails_when_it_is_read(root: Path, folder: Path):
    touch(folder / "a.txt")
    with h5py.File(folder / "a.nwb", "w") as file:
        file["units"] = h5py.ExternalLink("secret.nwb", "/units")
    assert {file.path: file.variables for file in listing(root).files} == {"a.nwb": None, "a.txt": ()}


def test_the_real_recordings_are_listed_as_they_are(shared_data: Path):
    files = listing(shared_data / "recordings", Source(id="990001")).files
    assert [(file.path, file.variables) for file in files] == [
        ("sub-A0634/sub-A0634_ses-210127_ophys.nwb", ()),
        ("sub-A2929/sub-A2929_ses-200711_behavior+ecephys.nwb", ("Units",)),
        ("sub-A8604/sub-A8604_ses-211122_behavior+ecephys.nwb", ("Units",)),
    ]


def test_files_are_in_the_order_of_their_whole_paths(root: Path, folder: Path):
    names = ["sub-B/x.txt", "sub-A/y.txt", "sub-A+/z.txt", "sub-A/deep/er/w.txt", "top.txt", "sub-Ford Prefect/s.txt"]
    for name in names:
        touch(folder / name)
    assert paths(root) == sorted(names)


def test_hidden_partial_and_dandi_s_own_files_are_no_archive_files(root: Path, folder: Path):
    for name in (".git/objects/a", ".DS_Store", "a.nwb.dandidownload/file", "sub-1/.writing-x", "sub-1/real.txt"):
        touch(folder / name)
    touch(folder / "dandiset.yaml", "name: n\n")
    assert paths(root) == ["sub-1/real.txt"]


def test_files_are_told_apart_by_size_and_time_of_change(root: Path, folder: Path):
    path = touch(folder / "a.txt", "1234")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    (file,) = listing(root).files
    assert (file.size, file.modified, file.file_id) == (4, "2020-09-13T12:26:40+00:00", "a.txt")
    assert file.digests == {}
    os.utime(path, (1_600_000_001, 1_600_000_001))
    assert listing(root).files[0].modified != file.modified


def test_version_and_citation_are_those_of_dandiset_yaml(root: Path, folder: Path):
    touch(
        folder / "dandiset.yaml",
        """
identifier: DANDI:000017
name: Distributed coding
version: 0.240329.1926
license: ["spdx:CC-BY-4.0"]
citation: Steinmetz (2024) Distributed coding
doi: 10.48324/dandi.000017/0.240329.1926
url: https://dandiarchive.org/dandiset/000017/0.240329.1926
contributor:
- {name: "Steinmetz, Nick", schemaKey: Person, roleName: ["dcite:Author", "dcite:ContactPerson"]}
- {name: "Funder", schemaKey: Organization, roleName: ["dcite:Funder"]}
- {name: "Hidden, A", schemaKey: Person, roleName: ["dcite:Author"], includeInCitation: false}
""",
    )
    found = listing(root, Source(id="000017", version="0.240329.1926"))
    assert (found.version, found.version_note, found.frozen, found.synthetic) == ("0.240329.1926", None, False, False)
    citation = found.citation
    assert citation.title == "Distributed coding"
    assert citation.authors == ("Steinmetz, Nick",)
    assert citation.license == "CC-BY-4.0"
    assert citation.citation == "Steinmetz (2024) Distributed coding"
    assert citation.doi == "10.48324/dandi.000017/0.240329.1926"
    assert citation.url is not None and citation.url.startswith("https://dandiarchive.org/")
    other = listing(root, Source(id="000017", version="0.1"))
    assert other.version_note is not None and "0.240329.1926" in other.version_note and "0.1" in other.version_note


def test_a_folder_without_dandiset_yaml_says_that_its_version_is_unknown(root: Path):
    found = listing(root)
    assert (found.version, found.frozen, found.citation.license) == ("folder", False, None)
    assert found.version_note is not None and "dandiset.yaml" in found.version_note


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "license: CC0\ncontributor: 3\nname: [1]\n"])
def test_a_dandiset_yaml_of_another_form_states_nothing(root: Path, folder: Path, content: str):
    touch(folder / "dandiset.yaml", content)
    assert listing(root).version == "folder"
    assert listing(root).citation.title is None


@pytest.mark.parametrize("content", ["a: [", "!!python/object/apply:os.system ['true']"])
def test_a_broken_or_hostile_dandiset_yaml_is_refused(root: Path, folder: Path, content: str):
    touch(folder / "dandiset.yaml", content)
    with pytest.raises(ArchiveError, match=r"dandiset\.yaml cannot be read"):
        listing(root)


def test_a_missing_dandiset_names_what_is_there_and_how_to_get_it(root: Path, tmp_path: Path):
    with pytest.raises(ArchiveError, match=r"dandi 000018.*000017.*dandi download DANDI:000018"):
        listing(root, Source(id="000018"))
    with pytest.raises(ArchiveError, match="figshare-7739750"):
        listing(root, Source(archive="figshare", id="7739750"))
    with pytest.raises(ArchiveError, match="is not a folder"):
        listing(tmp_path / "nowhere")


def test_figshare_files_lie_in_a_folder_of_their_own(root: Path):
    touch(root / "figshare-7739750" / "spks" / "spksKrebs_Feb18.mat")
    (file,) = listing(root, Source(archive="figshare", id="7739750")).files
    assert (file.path, file.variables) == ("spks/spksKrebs_Feb18.mat", ())


def test_a_listed_file_opens_and_reads(root: Path, folder: Path):
    write_units_nwb(folder / "sub-1" / "a.nwb", poisson_trains(2, 5))
    archive = FolderArchive(root)
    (file,) = archive.list_files(SOURCE).files
    with archive.open(SOURCE, file) as opened, opened.hdf5() as hdf5:
        assert len(opened.read(hdf5["units/id"])) == 2
        assert opened.name == "sub-1/a.nwb"
        assert opened.cost.bytes_read == 16


def test_a_file_that_does_not_open_fails_when_it_is_read(root: Path, folder: Path):
    touch(folder / "a.nwb", "cut short")
    archive = FolderArchive(root)
    (file,) = archive.list_files(SOURCE).files
    with archive.open(SOURCE, file) as opened, pytest.raises(DamagedRecording, match=r"a\.nwb"):
        opened.hdf5()


def test_the_settings_choose_the_archive(root: Path, tmp_path: Path):
    folder = open_archive(Settings(home=tmp_path, store="", archive=str(root)), SOURCE)
    assert isinstance(folder, FolderArchive) and folder.root == root
    for archive, source in (("sample", SOURCE), ("dandi", Source(archive="sample", id="sample-units"))):
        sample = open_archive(Settings(home=tmp_path, store="", archive=archive), source)
        assert type(sample).__name__ == "SampleArchive"


def test_a_zarr_folder_is_listed_as_one_file_and_dropped_by_name(root: Path, folder: Path):
    touch(folder / "sub-1/a.nwb.zarr/.zgroup", "{}")
    touch(folder / "sub-1/a.nwb.zarr/units/spike_times/0", "12345678")
    touch(folder / "sub-2/b/zarr.json", "{}")
    assert paths(root) == ["sub-1/a.nwb.zarr", "sub-2/b"]
    found = listing(root)
    assert [file.size for file in found.files] == [10, 2]
    dataset = Dataset(name="mine", title="Mine", source=Source(id="000017"))
    assert choose_sessions(dataset, found).dropped["a Zarr folder, which is not read"] == 1


def test_a_zarr_folder_that_a_rule_chooses_fails_with_its_name(root: Path, folder: Path):
    touch(folder / "sub-1/a.nwb/.zgroup", "{}")
    found = listing(root)
    (session,) = choose_sessions(Dataset(name="mine", title="Mine", source=Source(id="000017")), found).sessions
    archive = FolderArchive(root)
    with (
        archive.open(Source(id="000017"), session.files[0]) as opened,
        pytest.raises(DamagedRecording, match=r"sub-1/a\.nwb is a Zarr folder"),
    ):
        opened.hdf5()
