"""The hubs that take folders of files as published datasets; what such a folder holds belongs in `publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralpile_dagster.settings import Settings

if TYPE_CHECKING:
    from neuralpile_dagster.hub.model import LoadableHub


def open_hub(settings: Settings) -> LoadableHub:
    """The instance's hub: a folder ``hub`` in its home, or the Hugging Face Hub."""
    if settings.hub == "hf":
        from neuralpile_dagster.hub.huggingface.hub import HuggingFaceHub

        return HuggingFaceHub.from_environment(settings.namespace)
    from neuralpile_dagster.hub.local import LocalHub

    return LocalHub(settings.home / "hub", settings.namespace)
