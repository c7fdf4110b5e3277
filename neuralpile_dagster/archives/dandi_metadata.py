"""DANDI's documents as ours: entries of a listing, versions, and the metadata of a dandiset, read field by field.

An invalid field costs that field and leaves a note; the rest of the document is read. The forms are those of
`dandischema.models` (Asset, Dandiset), schema 0.4.4 to 0.8.0, and of the archive's serializers (dandi-archive,
``dandiapi/api/views/serializers.py``). The classes of dandischema are not used: they reject a whole document for a
field that is not read here, and licenses that this machine is not set up for. Requests do not belong here.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from neuralpile_dagster.archives.model import ArchiveFile
from neuralpile_dagster.records import Citation

T = TypeVar("T")

_AUTHOR_ROLE = "dcite:Author"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_LIST: TypeAdapter[list[Any]] = TypeAdapter(list[Any])
_SHORT = reprlib.Repr()  # values of any size in a few words
_SHORT.maxstring = _SHORT.maxother = 120


class FieldReader:
    """Reads fields of documents, and notes those that are invalid.

    Where a method takes a ``form``, that is a `pydantic.TypeAdapter` which accepts None if the field may be
    missing; ``where`` is the name of the document, for the note.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}  # by field: the first such document, and what it has there
        self._documents: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence per field that is invalid somewhere."""
        notes = []
        for field, (where, found) in sorted(self._first.items()):
            others = f" (and {self._documents[field] - 1:,} more)" if self._documents[field] > 1 else ""
            notes.append(f"invalid {field} of {where}{others}, not used: {found}")
        return tuple(notes)

    def read(self, form: TypeAdapter[T], document: Mapping[str, Any], field: str, where: str) -> T | None:
        """The value of a field; None, with a note, when it is invalid."""
        try:
            return form.validate_python(document.get(field), strict=True)
        except ValidationError as error:
            self._note(field, where, error)
            return None

    def read_items(self, form: TypeAdapter[T], document: Mapping[str, Any], field: str, where: str) -> list[T]:
        """The valid items of a field that is a list; see `read`."""
        items: list[T] = []
        first: ValidationError | None = None
        for item in self.read(_LIST, document, field, where) or ():
            try:
                items.append(form.validate_python(item, strict=True))
            except ValidationError as error:
                first = first or error
        if first is not None:
            self._note(field, where, first)
        return items

    def note(self, field: str, where: str, found: object, expected: str) -> None:
        """Note that a field of a document is invalid."""
        self._first.setdefault(field, (where, f"found {_SHORT.repr(found)}, expected {expected}"))
        self._documents[field] += 1

    def _note(self, field: str, where: str, error: ValidationError) -> None:
        first = error.errors(include_url=False, include_context=False)[0]
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        place = ".".join(map(str, first["loc"]))
        self.note(field, where, first["input"], f"{expected} (at {place})" if place else expected)


def _valid(form: TypeAdapter[T], value: object) -> T | None:
    """The value where it has that form, else None."""
    try:
        return form.validate_python(value, strict=True)
    except ValidationError:
        return None


def _storable(text: str) -> str:
    text.encode()  # JSON can hold lone surrogates, a stored record cannot; UnicodeEncodeError is a ValueError
    return text


def _time(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a time in ISO form")
    return datetime.fromisoformat(value).isoformat()


_Text = Annotated[str, AfterValidator(_storable)]
_Url = Annotated[_Text, StringConstraints(pattern=r"^https?://\S+$")]
_Size = Annotated[int, Field(ge=0, lt=2**63)]


class _PropertyValue(TypedDict):
    """What dandischema calls so; one of ``variableMeasured``, whose values are names of NWB types."""

    schemaKey: NotRequired[Literal["PropertyValue"]]
    value: _Text | list[_Text]


class _Contributor(TypedDict):
    """A Person or an Organization."""

    schemaKey: NotRequired[Literal["Person", "Organization", "Contributor"]]
    name: NotRequired[_Text | None]
    roleName: NotRequired[list[_Text] | None]
    includeInCitation: NotRequired[bool | None]


class _Dandiset(TypedDict):
    """A dandiset; of which form its versions are, is looked at where they are needed."""

    most_recent_published_version: Any
    draft_version: Any


class _Page(TypedDict):
    """A page of a listing; its entries are read one by one."""

    next: _Url | None
    results: list[Any]


class _Version(TypedDict):
    """A published version, as the document of its dandiset has it."""

    version: Annotated[str, StringConstraints(pattern=r"^[0-9.]+$")]


OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
DANDISET: TypeAdapter[_Dandiset] = TypeAdapter(_Dandiset)
VERSION: TypeAdapter[_Version | None] = TypeAdapter(_Version | None)
PAGE: TypeAdapter[_Page] = TypeAdapter(_Page)
TIME: TypeAdapter[str] = TypeAdapter(Annotated[str, PlainValidator(_time)])
COUNT: TypeAdapter[int] = TypeAdapter(_Size)
_PATH: TypeAdapter[str] = TypeAdapter(Annotated[str, StringConstraints(min_length=1)])
_ID: TypeAdapter[str] = TypeAdapter(Annotated[str, StringConstraints(pattern=f"^{_UUID}$")])
_TEXT: TypeAdapter[str] = TypeAdapter(_Text)
_OPTIONAL_TEXT: TypeAdapter[str | None] = TypeAdapter(_Text | None)
_URL: TypeAdapter[str] = TypeAdapter(_Url)
_OPTIONAL_URL: TypeAdapter[str | None] = TypeAdapter(_Url | None)
_VARIABLES: TypeAdapter[list[_PropertyValue] | None] = TypeAdapter(list[_PropertyValue] | None)
_CONTRIBUTOR: TypeAdapter[_Contributor] = TypeAdapter(_Contributor)


def _hex(pattern: str) -> TypeAdapter[str | None]:
    return TypeAdapter(Annotated[str, StringConstraints(pattern=f"^{pattern}$")] | None)


# the archive computes a sha256 some time after an upload, and the checksum of a Zarr folder may be null until then
_DIGESTS = {
    "dandi:sha2-256": ("sha256", _hex("[0-9a-f]{64}")),
    "dandi:dandi-etag": ("dandi-etag", _hex(r"[0-9a-f]{32}-\d{1,5}")),
    "dandi:dandi-zarr-checksum": ("zarr-checksum", _hex(r"[0-9a-f]{32}-\d+--\d+")),
}


def archive_file(entry: object, fields: FieldReader) -> ArchiveFile | None:
    """An entry of a listing (DANDI: "asset") as an archive file.

    Path, size and id stand in the entry and again in its metadata; None, with a note, for an entry
    that states one of them in neither place. ``variables`` is None where the metadata are invalid.
    """
    if not isinstance(entry, dict):
        fields.note("entry", "the listing", entry, "an object")
        return None
    where = _SHORT.repr(entry.get("path"))
    metadata = fields.read(OBJECT, entry, "metadata", where)
    again = metadata or {}
    path = _first(fields.read(_PATH, entry, "path", where), _valid(_PATH, again.get("path")))
    size = _first(fields.read(COUNT, entry, "size", where), _valid(COUNT, again.get("contentSize")))
    file_id = _first(fields.read(_ID, entry, "asset_id", where), _valid(_ID, again.get("identifier")))
    modified = fields.read(TIME, entry, "modified", where)
    if path is None or size is None or file_id is None:
        fields.note("entry", where, {"path": path, "size": size, "id": file_id}, "all of these; the file is not listed")
        return None
    if metadata is None:
        return ArchiveFile(path=path, size=size, file_id=file_id, variables=None, modified=modified)
    return ArchiveFile(
        path=path,
        size=size,
        file_id=file_id,
        digests=_digests(metadata, fields, where),
        variables=_variables(metadata, fields, where),
        modified=modified,
        url=_content_url(metadata, fields, where),
    )


def _first(value: T | None, other: T | None) -> T | None:
    return other if value is None else value


def _digests(metadata: Mapping[str, Any], fields: FieldReader, where: str) -> dict[str, str]:
    listed = fields.read(OBJECT, metadata, "digest", where)
    if listed is None:
        return {}
    if not listed.keys() & _DIGESTS.keys():
        fields.note("digest", where, listed, f"one of {', '.join(_DIGESTS)}")
    named = ((ours, fields.read(form, listed, theirs, where)) for theirs, (ours, form) in _DIGESTS.items())
    return {name: value for name, value in named if value}


def _variables(metadata: Mapping[str, Any], fields: FieldReader, where: str) -> tuple[str, ...] | None:
    """The names in ``variableMeasured``; none where the field is missing, null or empty, None where it is invalid."""
    measured = fields.read(_VARIABLES, metadata, "variableMeasured", where)
    if measured is None:
        return () if metadata.get("variableMeasured") is None else None
    values = (each["value"] for each in measured)
    return tuple(name for value in values for name in ([value] if isinstance(value, str) else value))


def _content_url(metadata: Mapping[str, Any], fields: FieldReader, where: str) -> str | None:
    """Where the bytes are, without the API's own URL, which redirects there."""
    urls = fields.read_items(_URL, metadata, "contentUrl", where)
    return next((url for url in urls if not url.rstrip("/").endswith("/download")), None)


def citation_of(metadata: Mapping[str, Any], fields: FieldReader, where: str) -> Citation:
    """Title, authors, citation, license (SPDX names), DOI and URL, as far as a dandiset's metadata state them."""
    licenses = [name.removeprefix("spdx:") for name in fields.read_items(_TEXT, metadata, "license", where)]
    return Citation(
        title=_stripped(fields.read(_TEXT, metadata, "name", where)),
        authors=tuple(_authors(fields.read_items(_CONTRIBUTOR, metadata, "contributor", where))),
        citation=_stripped(fields.read(_TEXT, metadata, "citation", where)),
        license=", ".join(filter(None, licenses)) or None,
        doi=_stripped(fields.read(_OPTIONAL_TEXT, metadata, "doi", where)),
        url=fields.read(_OPTIONAL_URL, metadata, "url", where),
    )


def _authors(contributors: list[_Contributor]) -> list[str]:
    """Authors whom the citation names; where nobody has that role, as in many dandisets, all whom it names."""
    cited = [each for each in contributors if _is_cited(each)]
    authors = [each for each in cited if _AUTHOR_ROLE in (each.get("roleName") or ())] or cited
    return [name for each in authors if (name := _stripped(each.get("name")))]


def _is_cited(contributor: _Contributor) -> bool:
    included = contributor.get("includeInCitation")
    # dandischema's default is True for a Person and False for an Organization
    return contributor.get("schemaKey") != "Organization" if included is None else included


def _stripped(text: str | None) -> str | None:
    return (text or "").strip() or None
