"""The test hub's validation of a card's YAML, as the Hub refuses cards that it is sent."""

from __future__ import annotations

from typing import Any

import yaml

_LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 "
    "gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl "
    "apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib "
    "pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 "
    "llama4 grok2-community gemma unknown other"
)
LICENSES = frozenset(_LICENSES.split())
"""All identifiers of https://huggingface.co/docs/hub/repositories-licenses (August 2026)."""
SIZES = (
    *("unknown", "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B"),
    *("1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T"),
)
"""datasets/utils/resources/size_categories.json of `datasets` 5.2, whose import would take seconds here."""
_TEXTS = ("pretty_name", "license_name", "license_link")
_TEXT_LISTS = ("tags", "size_categories", "task_categories", "source_datasets")


def card_errors(card: str) -> list[str]:
    """What the Hub says against a card's YAML; empty when it takes the card."""
    parts = card.split("---\n", 2)
    if not card.startswith("---\n") or len(parts) < 3:
        return []
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"]
    if not isinstance(found, dict):
        return ["YAML metadata must be an object"]
    return [*_license_errors(found), *_type_errors(found), *_size_errors(found)]


def _license_errors(found: dict[str, Any]) -> list[str]:
    stated = found.get("license", [])
    names = stated if isinstance(stated, list) else [stated]
    if not set(map(str, names)) <= LICENSES:
        # word for word as in https://github.com/huggingface/huggingface_hub/issues/4218
        return [f'"license" must be one of [{", ".join(sorted(LICENSES))}, array]']
    # "In case of `license: other` ... set a name for it in `license_name`": docs/hub/repositories-licenses
    return (
        ['"license_name" is required for license "other"'] if "other" in names and "license_name" not in found else []
    )


def _type_errors(found: dict[str, Any]) -> list[str]:
    """The types of ``ApiDatasetMetadata`` in huggingface.js, in the words of ostris/ai-toolkit issue 260."""
    errors = [f'"{name}" must be a string' for name in _TEXTS if not isinstance(found.get(name, ""), str)]
    for name in _TEXT_LISTS:
        value = found.get(name, [])
        if not isinstance(value, list):
            errors.append(f'"{name}" must be an array')
        errors += [f'"{name}[{k}]" must be a string' for k, each in enumerate(value) if not isinstance(each, str)]
    return errors


def _size_errors(found: dict[str, Any]) -> list[str]:
    sizes = found.get("size_categories", [])
    return [f'"size_categories" must be of {", ".join(SIZES)}'] if not set(map(str, sizes)) <= set(SIZES) else []
