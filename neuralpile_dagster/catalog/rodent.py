"""The 25 datasets of the rodent pile, in catalog order (which is the order of the merged pile)."""

from __future__ import annotations

from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.catalog.papers import with_paper

HAS_UNITS = SessionRule(requires=("Units",))
ALLEN = {"allen": "isi_violations < 0.5 and amplitude_cutoff < 0.1 and presence_ratio > 0.95"}
"""The default filter of the Allen Institute's tools, for the dandisets whose units were seen to have these metrics."""
NO_LICENSE = "The dandiset records no licence."
SILENCE = "Units have obs_intervals: silence outside of them is not 'no spikes'."

FIRST_18: tuple[Dataset, ...] = (
    Dataset(
        name="vbn",
        title="Allen Visual Behavior Neuropixels",
        source=Source(id="000713"),
        sessions=SessionRule(include=(r"_ses-\d{8}T\d{6}\.nwb$",)),
        species="mouse",
        description="The files with nothing after the session; the _image and _probe-N_ecephys files are left out.",
        tokens_published=153_877_057_200,
        sessions_published=153,
        subjects_published=81,
        notes=(
            "The published pile was made from an S3 copy of these files; the latest published version is used here.",
        ),
    ),
    Dataset(
        name="ibl",
        title="IBL Brain Wide Map",
        source=Source(id="000409", version="draft"),
        # the dandiset is being converted from the first form of file to the second
        sessions=SessionRule(
            include=(r"-processed-only_behavior\.nwb$", r"_desc-processed_behavior\+ecephys\.nwb$"),
            same_session=r"(?:^|/)(sub-[^/]+)/[^/]*_ses-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[^/]*$",
            several="prefer",
        ),
        species="mouse",
        description="One processed file per session, in either of the two forms that the dandiset has; never both.",
        tokens_published=69_147_814_139,
        sessions_published=347,
        subjects_published=115,
        notes=(
            "The dandiset is being converted to *_desc-processed_behavior+ecephys.nwb; "
            "a session that is already known keeps its id when its file changes form.",
        ),
    ),
    Dataset(
        name="shield",
        title="SHIELD implant, visual change detection",
        source=Source(id="001051", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=61_890_305_241,
        sessions_published=99,
        subjects_published=27,
        good_units=ALLEN,
    ),
    Dataset(
        name="vcn",
        title="Allen Visual Coding Neuropixels",
        source=Source(id="000021", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=36_681_686_005,
        sessions_published=32,
        subjects_published=32,
        notes=(NO_LICENSE,),
        good_units=ALLEN,
    ),
    Dataset(
        name="vcn-2",
        title="Allen Visual Coding Neuropixels",
        source=Source(id="000022", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=30_600_253_445,
        sessions_published=26,
        subjects_published=26,
        notes=(NO_LICENSE,),
        good_units=ALLEN,
    ),
    Dataset(
        name="v2h",
        title="Allen Institute Openscope - Vision2Hippocampus project",
        source=Source(id="000690", version="0.250326.0015"),
        sessions=SessionRule(requires=("Units",), exclude=(r"_image\.nwb$",)),
        species="mouse",
        doi="10.48324/dandi.000690/0.250326.0015",
        description="Every session exists twice; the _image twin has the same units and is left out.",
        tokens_published=24_600_171_007,
        sessions_published=25,
        subjects_published=25,
        good_units=ALLEN,
    ),
    Dataset(
        name="petersen",
        title="Cooling of Medial Septum Reveals Theta Phase Lag Coordination of Hippocampal Cell Assemblies",
        source=Source(id="000059", version="0.230907.2101"),
        sessions=HAS_UNITS,
        species="rat",
        doi="10.48324/dandi.000059/0.230907.2101",
        description="Of 50 processed files only 24 have units, which their paths do not tell.",
        tokens_published=15_510_368_376,
        sessions_published=24,
        subjects_published=5,
    ),
    Dataset(
        name="oddball",
        title="Allen Institute Openscope - Global/Local Oddball project",
        source=Source(id="000253", version="0.240923.1441"),
        sessions=SessionRule(requires=("Units",), exclude=(r"_probe-",)),
        species="mouse",
        doi="10.48324/dandi.000253/0.240923.1441",
        tokens_published=14_653_641_118,
        sessions_published=14,
        subjects_published=14,
        good_units=ALLEN,
    ),
    Dataset(
        name="illusion",
        title="Allen Institute Openscope - Illusion project",
        source=Source(id="000248", version="0.240502.2344"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000248/0.240502.2344",
        tokens_published=13_246_412_456,
        sessions_published=12,
        subjects_published=12,
        good_units=ALLEN,
    ),
    Dataset(
        name="huszar",
        title=("Preconfigured dynamics in the hippocampus are guided by embryonic birthdate and rate of neurogenesis"),
        source=Source(id="000552", version="0.230630.2304"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000552/0.230630.2304",
        tokens_published=8_812_474_629,
        sessions_published=65,
        subjects_published=17,
        notes=("The published subjects are those of the whole dandiset; the sessions used here have 11.",),
    ),
    Dataset(
        name="steinmetz",
        title="Distributed coding of choice, action and engagement across the mouse brain",
        source=Source(id="000017", version="0.240329.1926"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000017/0.240329.1926",
        tokens_published=7_881_422_592,
        sessions_published=39,
        subjects_published=10,
    ),
    Dataset(
        name="finkelstein",
        title="Attractor dynamics gate cortical information flow during decision-making",
        source=Source(id="000060", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=1_313_786_316,
        sessions_published=98,
        subjects_published=9,
        notes=(NO_LICENSE, SILENCE),
    ),
    Dataset(
        name="giocomo",
        title="Recordings from medial entorhinal cortex during linear track and open exploration",
        source=Source(id="000053", version="0.210819.0345"),
        sessions=SessionRule(requires=("Units",), exclude=(r"(?:^|/)sub-np[^/]*_behavior\.nwb$",)),
        species="mouse",
        doi="10.48324/dandi.000053/0.210819.0345",
        description=(
            "The 10 sub-np* files that end in _behavior.nwb repeat a +ecephys file of the same mouse and day "
            "and are left out."
        ),
        tokens_published=1_083_328_404,
        sessions_published=349,
        subjects_published=34,
        notes=("29 paths hold a space; partition keys have _ instead.",),
    ),
    Dataset(
        name="steinmetz-2",
        title="Eight-probe Neuropixels recordings during spontaneous behaviors",
        source=Source(archive="figshare", id="7739750"),
        sessions=SessionRule(
            include=(r"(?:^|/)spks(?:Krebs|Waksman|Robbins)_Feb18\.mat$",),
            same_session=r"(?:^|/)spks(?P<subject>Krebs|Waksman|Robbins)_Feb18\.mat$",
        ),
        reader="eight_probe_mat",
        species="mouse",
        paper_doi="10.1126/science.aav7893",
        description="One MATLAB file per mouse, recognized by its base name whatever folder it lies in.",
        tokens_published=684_731_334,
        sessions_published=3,
        subjects_published=3,
        notes=("Another page of the authors gives 1,830,825,994 tokens; which number is right is not settled.",),
    ),
    Dataset(
        name="mehrotra",
        title="Freely moving mouse retrosplenial cortex",
        source=Source(id="000987", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=465_402_824,
        sessions_published=14,
        subjects_published=3,
    ),
    Dataset(
        name="iurilli",
        title=(
            "A mechanosensory feedback that uncouples external and self-generated sensory responses "
            "in the olfactory cortex"
        ),
        source=Source(id="000931", version="0.240305.0945"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000931/0.240305.0945",
        tokens_published=388_791_426,
        sessions_published=1,
        subjects_published=1,
    ),
    Dataset(
        name="gonzalez",
        title="Gonzalez & Giocomo, parahippocampal neurons",
        source=Source(id="000405", version="draft"),
        reader="firing_rates",
        species="rat",
        description="The files hold firing rates in 20 ms bins instead of spike times.",
        tokens_published=366_962_209,
        sessions_published=276,
        subjects_published=5,
    ),
    Dataset(
        name="li",
        title="A motor cortex circuit for motor planning and movement",
        source=Source(id="000010", version="0.220126.1905"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000010/0.220126.1905",
        tokens_published=260_807_325,
        sessions_published=99,
        subjects_published=23,
        notes=("The published subjects are those of the whole dandiset; the sessions used here have 19.", SILENCE),
    ),
)


# (subject folder, first _-part of the file name after the subject, without its probe number)
PROBES_OF_ONE_SESSION = SessionRule(
    same_session=(
        r"(?:^|/)(?P<subject>[^/]+)/(?:(?P=subject)|[^_/]+)_(?P<session>[^_/]+?)"
        r"(?:[-_]probe\d+)?(?:_[^/]*)?\.nwb$"
    ),
    several="stack",
)

LATER_7: tuple[Dataset, ...] = (
    Dataset(
        name="lemerre",
        title="A Prefrontal Cortex Map based on Single Neuron Activity",
        source=Source(id="001260", version="0.250911.0744"),
        sessions=PROBES_OF_ONE_SESSION,
        species="mouse",
        doi="10.48324/dandi.001260/0.250911.0744",
        description="The files of one session's probes are stacked: 74 files, 50 sessions.",
        tokens_published=3_903_005_243,
        sessions_published=74,
        sessions_expected=50,
        subjects_published=41,
        notes=(
            "The published 74 sessions are files; grouped by session they are 50 (23 groups of 2 or 3 probes).",
            "41 animals lie in 43 subject folders: 518804-1/-2 and 560171-1/-2 are split.",
        ),
        same_subject=r"^sub-(?P<subject>\d+)-\d$",
    ),
    Dataset(
        name="peyrache",
        title="Internally organized mechanisms of the head direction sense",
        source=Source(id="000056", version="0.250624.0430"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000056/0.250624.0430",
        tokens_published=2_198_184_372,
        sessions_published=40,
        subjects_published=7,
    ),
    Dataset(
        name="prince",
        title="New information triggers prospective codes to adapt for flexible navigation",
        source=Source(id="001371", version="draft"),
        sessions=HAS_UNITS,
        species="mouse",
        tokens_published=1_921_336_974,
        sessions_published=66,
        subjects_published=7,
        notes=("Files are 83 to 138 GB each, of which spikes are a thousandth.",),
    ),
    Dataset(
        name="senzai",
        title=(
            "Layer-Specific Physiological Features and Interlaminar Interactions "
            "in the Primary Visual Cortex of the Mouse"
        ),
        source=Source(id="000166", version="0.250624.0434"),
        sessions=HAS_UNITS,
        species="mouse",
        doi="10.48324/dandi.000166/0.250624.0434",
        tokens_published=1_433_511_102,
        sessions_published=19,
        subjects_published=19,
    ),
    Dataset(
        name="grosmark",
        title="Diversity in neural firing dynamics supports both rigid and learned hippocampal sequences",
        source=Source(id="000044", version="0.250624.0426"),
        sessions=HAS_UNITS,
        species="rat",
        doi="10.48324/dandi.000044/0.250624.0426",
        tokens_published=1_158_299_763,
        sessions_published=8,
        subjects_published=4,
    ),
    Dataset(
        name="jaramillo",
        title="Auditory cortex Neuropixels and pupil",
        source=Source(id="000986", version="draft"),
        sessions=SessionRule(include=(r"(?:^|/)sub-[^/]*_ses-[^/]*_behavior\.nwb$",)),
        species="mouse",
        tokens_published=581_535_289,
        sessions_published=15,
        subjects_published=5,
    ),
    Dataset(
        name="fujisawa",
        title="Behavior-dependent short-term assembly dynamics in the medial prefrontal cortex",
        source=Source(id="000067", version="0.250624.0419"),
        sessions=SessionRule(include=(r"_behavior\+ecephys\.nwb$",)),
        species="rat",
        doi="10.48324/dandi.000067/0.250624.0419",
        description="10 more files, *_ecephys.nwb, have units too and are not used.",
        tokens_published=132_563_010,
        sessions_published=10,
        subjects_published=3,
    ),
)


RODENT: tuple[Dataset, ...] = tuple(
    with_paper(row.model_copy(update={"tags": ("rodent",)})) for row in FIRST_18 + LATER_7
)

PUBLISHED_BIN_WIDTH_S = 0.02
PUBLISHED_TOKEN_SHARES = (0.918506301, 0.0689463825, 0.0099332821, 0.00193299945, 0.000459155663)
"""Share of the values 0 to 4 among the 448,210,497,249 train tokens of the published pile of these 25 datasets.

From ``helpers/rodent_token_probabilities.npy`` of github.com/eminorhan/neural-pile-rodent, which has all 256.
"""
