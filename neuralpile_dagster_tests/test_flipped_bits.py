"""Random bits flipped in every file of a small built home: each is refused, repaired or harmless; none is published.

Store, staging and local hub are flipped as a disk does it: sizes and times of files stay. After each flip everything
that publishes runs again, one part after the other, and the published files are compared with those of before.
*Refused*: a part ended in an error that names what is wrong. *Repaired*: the damaged file is whole again. *Harmless*:
the damaged file is not published, and nothing that is made from it differs.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from neuralpile_dagster.archives.folder import FolderArchive
from neuralpile_dagster.catalog.model import Dataset, Source
from neuralpile_dagster.catalog.piles import NEURAL_PILE
from neuralpile_dagster.errors import NeuralPileError
from neuralpile_dagster.hub.local import LocalHub
from neuralpile_dagster.ledger import documents, piles
from neuralpile_dagster.ledger.due import current_sessions, publishable_records
from neuralpile_dagster.ledger.publishing import publish_pile
from neuralpile_dagster.merge.plan import load_plan, plan_pile, save_plan
from neuralpile_dagster.merge.shards import build_shard
from neuralpile_dagster.publish.component import publishable, write_component
from neuralpile_dagster.recordings.manifest import choose_sessions
from neuralpile_dagster.recordings.model import read_session
from neuralpile_dagster.session import build
from neuralpile_dagster.settings import Settings
from neuralpile_dagster.store import LocalStore, write_record
from neuralpile_dagster_tests.fixtures.hub_folders import silent
from neuralpile_dagster_tests.fixtures.once import quick_folder
from neuralpile_dagster_tests.servers.nwb_files import poisson_trains, write_units_nwb

FLIPS = {"store": 2, "staging": 1, "hub": 1}
"""How many bits are flipped in each file: what is made is made from the store, and the other two are only repaired."""
pytestmark = pytest.mark.slow_first
MICE = Dataset(name="mice", title="Synthetic mice", source=Source(id="990100", version="draft"), species="mouse")
NAME = "mice"
File = tuple[bytes, int]
"""What a file holds, and when it was written (ns since 1970)."""


class Home:
    """A home with one published dataset of two sessions and its pile, and the parts of a build as functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "home"
        archive = folder / "archive"
        self.settings = Settings(home=self.folder, store=str(self.folder / "store"), archive=str(archive))
        self.store = LocalStore(self.folder / "store")
        self.hub = LocalHub(self.folder / "hub", "local")
        for number, name in enumerate(("sub-A/sub-A_ses-1.nwb", "sub-B/sub-B_ses-2.nwb")):
            write_units_nwb(archive / MICE.source.folder / name, poisson_trains(4 + number, 6.0, seed=number))
        opened = FolderArchive(archive)
        self.manifest = choose_sessions(MICE, opened.list_files(MICE.source))
        write_record(self.store, documents.manifest_path(MICE), self.manifest)
        for session in self.manifest.sessions:
            with ExitStack() as stack:
                files = [stack.enter_context(opened.open(MICE.source, file)) for file in session.files]
                inputs = build.trains_inputs(session, MICE.reader)
                place = documents.trains_folder(MICE, self.settings)
                recording = read_session(MICE.reader, files)
                build.store_recording(self.store, place, session, recording, "draft", inputs)
        self.count(documents.counts_folder(MICE, self.settings))
        self.publish()
        self.merge(NEURAL_PILE.key)
        publish_pile(self.store, NEURAL_PILE, self.settings, self.hub, {NAME: MICE}, silent)

    def count(self, folder: str) -> None:
        """Bin the stored spike trains into another folder of the store."""
        for session in self.manifest.sessions:
            trains = documents.read_trains_record(self.store, MICE, self.settings, session.key)
            assert trains is not None
            build.build_spike_counts(self.store, folder, session.key, None, trains, self.settings)

    def publish(self) -> None:
        """Publish the component, as its asset does."""
        manifest = documents.read_manifest(self.store, MICE)
        current_sessions(self.store, MICE, self.settings, manifest.sessions)
        records, reasons = publishable_records(self.store, MICE, self.settings, manifest)
        missing = publishable(manifest, list(records), reasons, 1.0)
        folder = documents.staging_folder(self.settings, NAME)
        component = write_component(
            folder, self.store, MICE, manifest, records, missing=missing, repository=f"local/{NAME}", progress=silent
        )
        self.hub.publish(NAME, folder, silent)
        write_record(self.store, documents.published_path(MICE, self.settings), component)

    def merge(self, place: str) -> None:
        """Plan the pile, as its asset does, and make its shards in a folder of the store."""
        chosen = piles.choose_components(
            [MICE], self.store, self.hub, self.settings, components=[], extra_repositories=[], merge_from="store"
        )
        plan = plan_pile(chosen.sources, seed=0, split_by="rows", test_size=0.5)
        record = save_plan(self.store, piles.plan_path(NEURAL_PILE, self.settings, plan.record.plan_id), plan)
        current = piles.CurrentPlan(
            plan_id=record.plan_id,
            inputs="inputs",
            repositories=chosen.repositories,
            left_out=chosen.left_out,
            synthetic=chosen.synthetic,
            choices={},
        )
        write_record(self.store, piles.current_path(NEURAL_PILE, self.settings), current)
        loaded = load_plan(self.store, piles.plan_path(NEURAL_PILE, self.settings, record.plan_id))
        folder = piles.shards_folder(NEURAL_PILE, self.settings, record.plan_id).replace(NEURAL_PILE.key, place, 1)
        opener, digests = piles.file_opener(self.store, self.hub), piles.file_digests(self.store, self.hub)
        for shard in record.shards:
            build_shard(self.store, folder, loaded, shard.name, opener, digests)

    def parts(self, path: Path) -> list[Callable[[], object]]:
        """All that reads a file or publishes, in an order in which files are read before what they are made from.

        Binning reads only spike trains and their records, so for other files it is left out; in the same way the
        copying of rows, which only a new plan repeats. What no part makes again, the last one reads as it is.
        """
        place = path.relative_to(self.folder).as_posix()

        def pile() -> object:
            return publish_pile(self.store, NEURAL_PILE, self.settings, self.hub, {NAME: MICE}, silent)

        again: list[Callable[[], object]] = []
        if "/spike_trains/" in place:
            again.append(lambda: self.count("again"))
        if "/spike_counts/" in place or "/neural_pile/" in place:
            again.append(lambda: self.merge("again"))
        first = [] if "/spike_" in place else [pile]
        return [*first, *again, self.publish, lambda: self.merge(NEURAL_PILE.key), pile]

    def files(self) -> dict[Path, File]:
        """Every file of the home."""
        paths = (Path(root) / name for root, _, names in os.walk(self.folder) for name in names)
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths if not path.is_symlink()}


class Snapshot:
    """What a home holds, hard and symbolic links among it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.files = home.files()
        self.links = {path: path.readlink() for path in home.folder.rglob("*") if path.is_symlink()}
        groups = defaultdict(list)
        for path in self.files:
            groups[path.stat().st_ino].append(path)
        self.groups = list(groups.values())

    def is_repaired(self, damaged: Path) -> bool:
        """Whether the damaged file is whole or gone, and all others but the hub's are as they were."""
        hub, now = self.home.folder / "hub", self.home.files()
        before, after = (
            {path: content for path, (content, _) in files.items() if path == damaged or hub not in path.parents}
            for files in (self.files, now)
        )
        return before == after | ({} if damaged in now else {damaged: before[damaged]})

    def restore(self) -> None:
        """Make the home what it was."""
        for link, target in self.links.items():
            if link.readlink() != target:
                link.unlink()
                link.symlink_to(target)
        now = self.home.files()
        for path in now.keys() - self.files.keys():
            path.unlink()
        for first, *others in self.groups:
            content, written = self.files[first]
            same = all(now.get(path) == (content, written) for path in (first, *others))
            if same and all(path.samefile(first) for path in others):
                continue
            for path in (first, *others):
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
            first.write_bytes(content)
            os.utime(first, ns=(written, written))
            for path in others:
                path.hardlink_to(first)


@pytest.fixture
def home() -> Iterator[Home]:
    with quick_folder() as folder:
        made = Home(folder)
        for part in made.parts(made.folder / "store" / NAME):  # what they leave beside is there before the first flip
            part()
        yield made


def published(home: Home) -> dict[str, bytes]:
    """Every file that readers of the hub see."""
    found = {}
    for name in (NAME, "neural-pile"):
        root = home.hub.path(name)
        found |= {f"{name}/{p.relative_to(root).as_posix()}": p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return found


def kind_of(path: Path, home: Home) -> str:
    """The place of a file, for the table of outcomes."""
    parts = path.relative_to(home.folder).parts
    return f"{parts[0]}{' records' if path.suffix == '.json' else ''}"


def outcome_of(before: Snapshot, path: Path, bit: int, right: dict[str, bytes]) -> str:
    """Flip a bit and run everything again; fails when it is published, or ends in an error that is not ours.

    Once the home is what it was, there is no damage that later parts could find.
    """
    home = before.home
    content, status = bytearray(path.read_bytes()), path.stat()
    content[bit // 8] ^= 1 << bit % 8
    with path.open("r+b") as file:  # in place: a disk does not break hard links
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    damaged, refusals = published(home), []
    for number, part in enumerate(home.parts(path)):
        try:
            part()
        except NeuralPileError as refusal:
            assert refusal.what
            refusals.append(refusal)
        for name, found in published(home).items():
            assert found == right.get(name) or found == damaged.get(name), f"{path} bit {bit}: {name}, part {number}"
        if not refusals and published(home) == right and before.is_repaired(path):
            return "repaired"
    if refusals:
        return "refused"
    assert published(home) == right, f"{path} bit {bit} was neither refused nor repaired"
    again = path.read_bytes() if path.exists() else b""
    return "harmless" if again == bytes(content) else "repaired"


def test_no_flipped_bit_is_published(home: Home) -> None:
    before, right = Snapshot(home), published(home)
    chance = random.Random(0)
    outcomes: Counter[tuple[str, str]] = Counter()
    for path in sorted(path for path, (content, _) in before.files.items() if content):
        for _ in range(FLIPS[path.relative_to(home.folder).parts[0]]):
            outcome = outcome_of(before, path, chance.randrange(8 * len(before.files[path][0])), right)
            outcomes[kind_of(path, home), outcome] += 1
            before.restore()
    for (place, outcome), count in sorted(outcomes.items()):
        print(f"{place}: {outcome} {count}")  # with pytest -s
    assert home.files() == before.files
