"""Paper, recorded areas and task of the package's rows, from the pages of the published datasets.

They are words on cards and pages: no stored hash depends on them (`hashed_row`), so that a better link or word makes
nothing due. What decides which files are read belongs in `rodent` and
`primate`.
"""

from __future__ import annotations

from typing import Any

from neuralpile_dagster.catalog.model import Dataset

CITED: dict[str, dict[str, Any]] = {
    "vbn": {
        "paper_url": "https://portal.brain-map.org/circuits-behavior/visual-behavior-neuropixels",
        "areas": ("VISp", "VISl", "VISal", "VISrl", "VISam", "VISpm", "LGd", "LP", "hippocampus", "midbrain"),
        "task": "visual change detection",
    },
    "ibl": {
        "paper_doi": "10.1101/2023.07.04.547681",
        "areas": ("brain-wide",),
        "task": "decision-making with sensory, motor, and cognitive components",
    },
    "shield": {
        "paper_url": "https://www.cell.com/neuron/abstract/S0896-6273(24)00450-1",
        "areas": ("multiple cortical and subcortical areas",),
        "task": "visual change detection, closely related to the VBN task",
    },
    "vcn": {
        "paper_url": "https://portal.brain-map.org/circuits-behavior/visual-coding-neuropixels",
        "areas": ("multiple cortical and subcortical areas",),
        "task": "a variety of visual stimuli",
    },
    "vcn-2": {
        "paper_url": "https://portal.brain-map.org/circuits-behavior/visual-coding-neuropixels",
        "areas": ("multiple cortical and subcortical areas",),
        "task": "a variety of visual stimuli",
    },
    "v2h": {
        "areas": ("multiple cortical and subcortical areas",),
        "task": "a variety of visual stimuli",
    },
    "petersen": {
        "paper_url": "https://www.cell.com/neuron/fulltext/S0896-6273(20)30392-5",
        "areas": ("hippocampus",),
        "task": "spatial navigation (includes recordings made when medial septum was cooled)",
    },
    "oddball": {
        "areas": ("multiple cortical areas",),
        "task": "simple visual stimuli",
    },
    "illusion": {
        "paper_doi": "10.1101/2023.06.05.543698",
        "areas": ("V1", "LM", "RL", "AL", "PM", "AM"),
        "task": "illusory contour stimuli",
    },
    "huszar": {
        "paper_doi": "10.1038/s41593-022-01138-x",
        "areas": ("CA1",),
        "task": "spatial alternation in a figure-eight maze",
    },
    "steinmetz": {
        "paper_doi": "10.1038/s41586-019-1787-x",
        "areas": ("brain-wide",),
        "task": "perceptual decision-making",
    },
    "finkelstein": {
        "paper_doi": "10.1038/s41593-021-00840-6",
        "areas": ("anterior lateral motor cortex", "vibrissal sensory cortex"),
        "task": "detect optogenetic stimulation of vibrissal sensory cortex",
    },
    "giocomo": {
        "paper_doi": "10.1038/s41467-021-20936-8",
        "areas": ("medial entorhinal cortex",),
        "task": "open field navigation (tetrode) and navigation down a virtual linear track (neuropixels)",
    },
    "steinmetz-2": {
        "areas": ("brain-wide",),
        "task": "spontaneous behaviors",
    },
    "mehrotra": {
        "paper_doi": "10.1016/j.cub.2024.05.048",
        "areas": ("retrosplenial cortex",),
        "task": "sleep and open field exploration",
    },
    "iurilli": {
        "paper_url": "https://www.cell.com/cell-reports/fulltext/S2211-1247(24)00341-3",
        "areas": ("piriform cortex",),
        "task": "odors under different inhalation speeds",
    },
    "gonzalez": {
        "paper_doi": "10.7554/eLife.85646",
        "areas": ("parahippocampal cortex",),
        "task": "memory-guided spatial navigation",
    },
    "li": {
        "paper_doi": "10.1038/nature14178",
        "areas": ("anterior lateral motor cortex (ALM)",),
        "task": "whisker-based object location discrimination",
    },
    "lemerre": {
        "paper_doi": "10.1101/2024.11.06.622308",
        "areas": ("brain-wide",),
        "task": "passive listening and auditory behavioral tasks (head-fixed)",
    },
    "peyrache": {
        "paper_doi": "10.1038/nn.3968",
        "areas": ("antero-dorsal thalamic nucleus", "post-subiculum"),
        "task": "various brain states",
    },
    "prince": {
        "paper_doi": "10.1038/s41467-025-60122-8",
        "areas": ("CA1", "medial prefrontal cortex"),
        "task": "virtual reality spatial navigation",
    },
    "senzai": {
        "paper_url": "https://www.sciencedirect.com/science/article/pii/S0896627318310857",
        "areas": ("primary visual cortex",),
        "task": "freely behaving",
    },
    "grosmark": {
        "paper_doi": "10.1126/science.aad1935",
        "areas": ("CA1",),
        "task": "exploration of novel mazes, during and after",
    },
    "jaramillo": {
        "paper_doi": "10.1101/2024.04.04.588209",
        "areas": ("auditory cortex",),
        "task": "passive tone presentation",
    },
    "fujisawa": {
        "paper_doi": "10.1038/nn.2134",
        "areas": ("medial prefrontal cortex",),
        "task": "working memory",
    },
    "xiao": {
        "paper_doi": "10.1038/s41593-024-01631-5",
        "areas": ("V1", "V2", "V4", "PIT", "CIT", "AIT"),
        "task": "thousands of natural images",
    },
    "neupane-ppc": {
        "paper_doi": "10.1038/s41586-024-07557-z",
        "areas": ("posterior parietal cortex",),
        "task": "mental navigation task",
    },
    "chen": {
        "paper_doi": "10.1101/2025.02.13.638172",
        "areas": ("anterior cingulate cortex (ACC)",),
        "task": "a two-player game with volatile hidden states",
    },
    "churchland": {
        "paper_doi": "10.1038/nature11129",
        "areas": ("motor cortex (M1)", "dorsal premotor cortex (PMd)"),
        "task": "reaching tasks with right hand",
    },
    "neupane-entorhinal": {
        "paper_doi": "10.1038/s41586-024-07557-z",
        "areas": ("entorhinal cortex",),
        "task": "mental navigation task",
    },
    "kim": {
        "paper_url": "https://www.jneurosci.org/content/45/5/e1893232024",
        "areas": ("V4",),
        "task": "shape and texture stimuli",
    },
    "even-chen": {
        "paper_doi": "10.1371/journal.pcbi.1006808",
        "areas": ("dorsal premotor cortex (PMd)",),
        "task": "cursor movement tasks",
    },
    "temmar": {
        "paper_doi": "10.1016/j.neuron.2021.08.009",
        "areas": ("motor cortex (M1)",),
        "task": "self-paced finger movement task",
    },
    "perich": {
        "paper_url": "https://www.cell.com/neuron/fulltext/S0896-6273(18)30832-8",
        "areas": ("motor cortex (M1)", "dorsal premotor cortex (PMd)"),
        "task": "reaching movements",
    },
    "h2": {
        "paper_url": "https://openreview.net/forum?id=STqaMqhtDi",
        "areas": ("dorsal motor cortex",),
        "task": "attempted handwriting trials",
    },
    "athalye": {
        "paper_url": "https://www.cell.com/current-biology/fulltext/S0960-9822(23)00778-9",
        "areas": ("premotor and motor cortex (PMd/M1)",),
        "task": "center-out reach and obstacle avoidance tasks",
    },
    "m1-a": {
        "paper_url": "https://journals.physiology.org/doi/full/10.1152/jn.00686.2015",
        "areas": ("motor cortex (M1)",),
        "task": "center-out reach task",
    },
    "m1-b": {
        "paper_url": "https://journals.physiology.org/doi/full/10.1152/jn.00686.2015",
        "areas": ("motor cortex (M1)",),
        "task": "center-out reach task",
    },
    "h1": {
        "paper_doi": "10.1088/1741-2560/12/1/016011",
        "areas": ("motor cortex",),
        "task": "attempted control of a prosthetic limb",
    },
    "moore": {
        "paper_doi": "10.1038/s41467-024-54343-6",
        "areas": ("primary motor",),
        "task": "naturalistic prey capture task",
    },
    "dmfc-rsg": {
        "paper_doi": "10.1016/j.neuron.2019.06.012",
        "areas": ("dorsomedial frontal cortex (DMFC)",),
        "task": "time-interval reproduction task",
    },
    "m2": {
        "paper_doi": "10.1016/j.neuron.2021.08.009",
        "areas": ("motor cortex (M1)",),
        "task": "finger movement task",
    },
    "area2-bump": {
        "paper_doi": "10.7554/eLife.48198",
        "areas": ("somatosensory area 2",),
        "task": "reaching task with perturbations",
    },
}
"""Fields by name of the row; ``paper_url`` is given only where no DOI is known."""


def with_paper(dataset: Dataset) -> Dataset:
    """The row with its fields of `CITED`."""
    return Dataset.model_validate({**dict(dataset), **CITED[dataset.name]})


def hashed_row(dataset: Dataset, exclude: set[str]) -> dict[str, Any]:
    """A row as JSON for hashes of inputs: without ``exclude``, and as if `CITED` did not exist.

    A user's row cannot have the name of one of ours, and is hashed with all that it states.
    """
    unset = {name: Dataset.model_fields[name].default for name in CITED.get(dataset.name, {})}
    return dataset.model_copy(update=unset).model_dump(mode="json", exclude=exclude)
