"""Which prompt indexes a run of `index` builds or brings up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steersearch.core.errors import PromptError
from steersearch.core.preprocess import view_of
from steersearch.core.prompts import as_prompt
from steersearch.indexer.embedder import Embedder, Identity, known_identity
from steersearch.indexer.manifest import PromptIndex, is_begun_by_query
from steersearch.indexer.prompt_indexes import PromptIndexes


def targets(
    place: Path, indexes: PromptIndexes, embedder: Embedder, prompts: Sequence[str], gate_scale: float
) -> list[PromptIndex]:
    """Those of `prompts` at `gate_scale`; without prompts all that this embedder made, at their own gate_scales, but
    for those that were never named and only begun by a query. The embedder is loaded only where nothing else can tell.

    Raises PromptError where there are none.
    """
    identity = known_identity(embedder)
    existing = [i for i in indexes.all() if identity.fits(i.weights_hash, i.preprocessing)]
    if not prompts:
        return _to_update(place, indexes, embedder, existing)
    found = []
    for prompt in prompts:
        same = [i for i in existing if (as_prompt(i.prompt), i.gate_scale) == (prompt, gate_scale)]
        if identity.weights_hash is not None and len(same) == 1:  # known without loading the model
            found.append(same[0])
        else:
            found.append(indexes.of(embedder, prompt, gate_scale))
    return found


def _to_update(
    place: Path, indexes: PromptIndexes, embedder: Embedder, existing: list[PromptIndex]
) -> list[PromptIndex]:
    identity = known_identity(embedder)
    existing = [index for index in existing if not is_begun_by_query(place, index)]
    if len({(i.weights_hash, repr(i.preprocessing)) for i in existing}) > 1:
        _ = embedder.dim  # loads it: only the model itself can tell which are its own
        identity = known_identity(embedder)
        existing = [i for i in existing if identity.fits(i.weights_hash, i.preprocessing)]
    if not existing:
        raise PromptError(_no_prompt(indexes, identity))
    return existing


def _no_prompt(indexes: PromptIndexes, identity: Identity) -> str:
    have = indexes.all()
    if not have:
        return f"no prompt given and none known; name one: {indexes.command('TEXT')}"
    names = ", ".join(map(str, have))
    view = view_of(identity.preprocessing or {})
    own = f"the model {identity.model_id}" + ("" if view is None else f" and the view {view}")
    return f"no prompt given, and none known for {own}; the library has: {names}"
