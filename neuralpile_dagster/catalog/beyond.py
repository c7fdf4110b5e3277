"""Further datasets of spikes on DANDI that no published pile has: shown when they are asked for (`load`).

Their numbers are those that their rules gave on real listings; tokens are not known before they are built.
"""

from __future__ import annotations

from neuralpile_dagster.catalog.model import HAS_UNITS, Dataset, Source
from neuralpile_dagster.catalog.rodent import SILENCE

BENCHMARK = (
    "A benchmark (Neural Latents): held out of the training rows of every pile. Files named desc-test are its test."
)

_ROWS: tuple[Dataset, ...] = (
    Dataset(
        name="mesoscale",
        title="Mesoscale Activity Map",
        source=Source(id="000363", version="draft"),
        species="mouse",
        sessions_expected=174,
        notes=(
            "65.7 TB of files, of which only ranges are read.",
            "Sessions with optogenetics have photostimulation in some trials.",
        ),
    ),
    Dataset(
        name="barcoding",
        title="Allen Institute Openscope - Barcoding",
        source=Source(id="000563", version="0.250311.2145"),
        species="mouse",
        sessions_expected=14,
    ),
    Dataset(
        name="ketamine",
        title="Brain-wide mouse electrophysiology during aversive stimuli and ketamine",
        source=Source(id="001326"),
        species="mouse",
        sessions_expected=13,
    ),
    Dataset(
        name="claar",
        title="EEG, electrophysiology and behavior under electrical stimulation and anesthesia",
        source=Source(id="000458"),
        species="mouse",
        sessions_expected=18,
    ),
    Dataset(
        name="habenula-states",
        title="Esr1+ hypothalamic-habenula neurons shape aversive states",
        source=Source(id="000473"),
        species="mouse",
        sessions_expected=25,
        notes=("The probe is part of the session's name.",),
    ),
    Dataset(
        name="postsubiculum",
        title="Large-scale recordings of head-direction cells in mouse postsubiculum",
        source=Source(id="000939"),
        species="mouse",
        sessions_expected=31,
        notes=("File names have no session.",),
    ),
    Dataset(
        name="habenula",
        title="Habenular neurophysiology",
        source=Source(id="000302", version="draft"),
        species="mouse",
        sessions_expected=32,
    ),
    Dataset(
        name="rat-s1",
        title="Awake rat somatosensory cortex under focused ultrasound stimulation",
        source=Source(id="000945", version="draft"),
        species="rat",
        sessions_expected=75,
    ),
    Dataset(
        name="icms",
        title="Spiking activity in response to electrical stimulation in visual cortex",
        source=Source(id="000774", version="draft"),
        species="mouse",
        sessions_expected=10,
    ),
    Dataset(
        name="girardeau",
        title="Reactivations of emotional memory in the hippocampus-amygdala system during sleep",
        source=Source(id="000061"),
        species="rat",
        paper_doi="10.1038/nn.4637",
        sessions_expected=33,
        notes=("7 files have no units and are left out.",),
    ),
    Dataset(
        name="w-track",
        title="Single day W-track learning",
        source=Source(id="000978"),
        species="rat",
        sessions_expected=9,
    ),
    Dataset(
        name="w-track-novel",
        title="Novel-familiar-novel W-track (CA1-PFC)",
        source=Source(id="000447"),
        species="rat",
        paper_doi="10.1016/j.celrep.2023.112246",
        sessions_expected=5,
    ),
    Dataset(
        name="tingley",
        title="Transformation of a spatial map across the hippocampal-lateral septal circuit",
        source=Source(id="000213"),
        species="rat",
        paper_doi="10.1016/j.neuron.2018.04.028",
        sessions_expected=66,
    ),
    Dataset(
        name="tingley-2",
        title="Routing of hippocampal ripples to subcortical structures via the lateral septum",
        source=Source(id="000218"),
        species="rat",
        paper_doi="10.1016/j.neuron.2019.10.012",
        sessions_expected=90,
    ),
    Dataset(
        name="alm-delay",
        title="Mouse anterior lateral motor cortex (ALM) in delay response task",
        source=Source(id="000006"),
        species="mouse",
        paper_doi="10.1038/s41586-018-0642-9",
        sessions_expected=53,
        notes=(SILENCE,),
    ),
    Dataset(
        name="alm-cerebellum",
        title="A cortico-cerebellar loop for motor planning",
        source=Source(id="000007"),
        species="mouse",
        paper_doi="10.1038/s41586-018-0633-x",
        sessions_expected=54,
        notes=(SILENCE,),
    ),
    Dataset(
        name="alm-thalamus",
        title="Maintenance of persistent activity in a frontal thalamocortical loop",
        source=Source(id="000009"),
        species="mouse",
        sessions_expected=137,
        notes=(SILENCE,),
    ),
    Dataset(
        name="alm-robust",
        title="Robust neuronal dynamics in premotor cortex during motor planning",
        source=Source(id="000011"),
        species="mouse",
        paper_doi="10.1038/nature17643",
        sessions_expected=91,
        notes=(SILENCE,),
    ),
    Dataset(
        name="mc-maze",
        title="MC_Maze: delayed reaching",
        source=Source(id="000128"),
        species="macaque",
        paper_doi="10.1038/nature11129",
        sessions_expected=2,
        notes=(BENCHMARK,),
        hold_out=True,
    ),
    Dataset(
        name="mc-rtt",
        title="MC_RTT: self-paced reaching",
        source=Source(id="000129"),
        species="macaque",
        paper_doi="10.1088/1741-2552/aa9e95",
        sessions_expected=2,
        notes=(BENCHMARK,),
        hold_out=True,
    ),
    Dataset(
        name="mc-maze-large",
        title="MC_Maze_Large: delayed reaching",
        source=Source(id="000138"),
        species="macaque",
        paper_doi="10.1038/nature11129",
        sessions_expected=2,
        notes=(BENCHMARK,),
        hold_out=True,
    ),
    Dataset(
        name="mc-maze-medium",
        title="MC_Maze_Medium: delayed reaching",
        source=Source(id="000139"),
        species="macaque",
        paper_doi="10.1038/nature11129",
        sessions_expected=2,
        notes=(BENCHMARK,),
        hold_out=True,
    ),
    Dataset(
        name="mc-maze-small",
        title="MC_Maze_Small: delayed reaching",
        source=Source(id="000140"),
        species="macaque",
        paper_doi="10.1038/nature11129",
        sessions_expected=2,
        notes=(BENCHMARK,),
        hold_out=True,
    ),
)

BEYOND: tuple[Dataset, ...] = tuple(
    row.model_copy(update={"tags": ("beyond",), "sessions": HAS_UNITS, "reader_checked": False}) for row in _ROWS
)
