"""What an NWB file says about its session, apart from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import h5py

from neuralpile_dagster.hdf5_text import read_text
from neuralpile_dagster.recordings.model import SessionFacts

_WHERE = {
    "subject": "/general/subject/subject_id",
    "sex": "/general/subject/sex",
    "age": "/general/subject/age",
    "species": "/general/subject/species",
    "start_time": "/session_start_time",
    "reference_time": "/timestamps_reference_time",
    "description": "/session_description",
}


def read_facts(file: h5py.File, name: str) -> SessionFacts:
    """The session's facts as the file states them; empty text counts as not stated."""
    return SessionFacts(**{fact: read_text(file, path, name) for fact, path in _WHERE.items()})


def first_facts(facts: Sequence[SessionFacts]) -> SessionFacts:
    """The facts of a session of several files: each from the first file that states it."""
    stated = {
        field.name: next((value for one in facts if (value := getattr(one, field.name)) is not None), None)
        for field in fields(SessionFacts)
    }
    return SessionFacts(**stated)
