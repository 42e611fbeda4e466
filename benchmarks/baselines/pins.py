"""The commits at which baselines were first measured: later runs use the same weights, whatever the hub then has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from steersearch.core.errors import OutputError

FILE = Path(__file__).with_name("pins.json")


def read_pins(file: Path = FILE) -> dict[str, str]:
    """Repository of the hub -> commit."""
    pins: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return pins


def pin(repo: str | None, weights_hash: str | None, file: Path = FILE) -> str | None:
    """Keep the commit of "REPO@COMMIT", unless the repository has a pin; the commit if it is new.

    Weights that are not the repository's, such as a file of the user's, pin nothing. Raises OutputError.
    """
    pins = read_pins(file)
    found = re.fullmatch(rf"{re.escape(repo or '')}@([0-9a-f]{{40}})", weights_hash or "")
    if repo is None or repo in pins or found is None:
        return None
    text = json.dumps(pins | {repo: found[1]}, indent=1, sort_keys=True) + "\n"
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:  # an installed package may not be writable
        raise OutputError(file, error.strerror or str(error)) from error
    return found[1]
