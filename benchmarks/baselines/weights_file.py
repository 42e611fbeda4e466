"""The one file that holds a baseline's weights: the user's own, or that of its card on the hub."""

from __future__ import annotations

from pathlib import Path

from steersearch.benchmarks.baselines.cards import Card
from steersearch.core import hub
from steersearch.core.files import remembered_sha256
from steersearch.core.registry import HubFile


def weights_file(card: Card, own: Path | None, published: HubFile | None = None) -> tuple[Path, str]:
    """Where it lies, and what identifies it: sha256 of the user's file, "repo@commit" of the hub's.

    published: what is known of the file beyond its card.  Raises HubError.
    """
    if own is not None:
        return own, remembered_sha256(own)
    if published is None:
        assert card.repo is not None
        assert card.file is not None
        published = HubFile(repo=card.repo, file=card.file, revision=card.revision)
    path = hub.fetch(published)
    return path, f"{published.repo}@{path.parent.name}"
