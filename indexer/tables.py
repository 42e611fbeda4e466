"""The tables of a library as things to be looked after, whatever is in them; `store` is for their rows."""

from __future__ import annotations

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
