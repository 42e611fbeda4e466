"""Writer of small Qt resource archives, from the description of their format."""

from __future__ import annotations

import struct
import zlib

FOLDER, COMPRESSED = 2, 1


def small_rcc(files: dict[str, bytes], version: int = 1, packed: bool = False) -> bytes:
    """An archive with `files` by their full names."""
    tree: dict[str, object] = {}
    for name, content in files.items():
        *parents, last = name.split("/")
        here = tree
        for parent in parents:
            here = here.setdefault(parent, {})  # type: ignore[assignment]
        here[last] = content
    entries, names, data = [("", tree)], b"", b""
    for _, value in entries:  # which grows: the children of a folder follow one another
        entries += list(value.items()) if isinstance(value, dict) else []
    rows, first = b"", 1
    for name, value in entries:
        rows += struct.pack(">I", len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(value, dict):
            rows += struct.pack(">HII", FOLDER, len(value), first)
            first += len(value)
        else:
            body = struct.pack(">I", len(value)) + zlib.compress(value) if packed else value
            rows += struct.pack(">HHHI", COMPRESSED * packed, 0, 0, len(data))
            data += struct.pack(">I", len(body)) + body
        rows += struct.pack(">Q", 0) if version > 1 else b""
    head = 20 + 4 * (version > 2)
    start = struct.pack(">4s4I", b"qres", version, head, head + len(rows), head + len(rows) + len(data))
    return start + b"\0" * (head - 20) + rows + data + names
