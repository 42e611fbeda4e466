"""The tables of a library as things to be looked after; `store` is for their rows in daily use.

What changes or deletes files here is for those who are `alone` with the library, see `writers`.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path

from steersearch.indexer.store import FOLDER, PRESENCE, table_names


class Tables:
    """The tables below `place`. Not safe after a fork: LanceDB is not."""

    def __init__(self, place: Path) -> None:
        import lancedb

        self._place = place
        self._database = lancedb.connect(str(place / FOLDER))

    def names(self, prefix: str = "") -> list[str]:
        """The tables whose name begins so, sorted."""
        return [name for name in table_names(self._place) if name.startswith(prefix)]

    def add_presence(self, name: str) -> None:
        """Give a prompt table of schema 1 its column `presence`, without values, unless it has it."""
        import pyarrow as pa

        table = self._database.open_table(name)
        if PRESENCE not in table.schema.names:
            table.add_columns(pa.field(PRESENCE, pa.float32()))

    def compact(self, name: str) -> None:
        """Put the rows of a table into few files, drop all older versions and what killed writers left.

        Readers that had the table open have to open it again, as `store.read_latest` does. LanceDB warns of
        that, in vain: nobody else writes, and we do read so.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._database.open_table(name).optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    def drop(self, name: str) -> None:
        """Delete a table, if it is there."""
        self._database.drop_table(name, ignore_missing=True)
