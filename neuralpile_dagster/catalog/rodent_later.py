"""The 7 datasets that were added to the rodent pile later. Facts only; the form of a row is in ``model.py``."""

from __future__ import annotations

from neuralpile_dagster.catalog.model import Dataset, SessionRule, Source
from neuralpile_dagster.catalog.rodent_first import HAS_UNITS

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
