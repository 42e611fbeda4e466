"""Photos that an older version did not ask where their date comes from are asked once; no model is needed for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from os import cpu_count
from pathlib import Path

from steersearch.core.errors import ImageError
from steersearch.core.images.dates import CaptureDate
from steersearch.core.images.reader import read_date
from steersearch.indexer.loader import read_ahead
from steersearch.indexer.store import Store, chunks

logger = logging.getLogger(__name__)
_COMMIT = 1024  # photos


def ask_dates(root: Path, store: Store, paths: Sequence[str]) -> None:
    """Set the dates of the photos at these relative paths; one that cannot be read now is left for the next run."""
    if not paths:
        return
    logger.info(
        "reading the dates of %s photos: this version knows more forms and sources of them", f"{len(paths):,}"
    )

    def ask(path: str) -> tuple[str, CaptureDate | None] | None:
        try:
            return path, read_date(root / path)
        except ImageError:
            return None

    threads = max(2, min(8, cpu_count() or 2))
    with closing(read_ahead(paths, ask, threads=threads, look_ahead=8 * threads)) as asked:
        for some in chunks(asked, _COMMIT):
            store.write_dates(dict(one for one in some if one is not None))
