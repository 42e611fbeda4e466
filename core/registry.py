"""The models that can be asked for by name. Plain data: reading it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model that can be asked for by name. `size` in bytes; `sha256`, `size` None where not published.

    repo None: the file is bundled with this package.
    """

    name: str
    repo: str | None
    revision: str | None
    file: str
    size: int | None
    sha256: str | None
    licence: str
    trunk: str
    note: str

    @property
    def research_only(self) -> bool:
        return "non-commercial" in self.licence


_AUTHORS = "JonaRuthardt/SteerViT"
_COMMERCIAL = (
    "cubert-gmbh/steervit-commercial"  # the authors' commercial files, mirrored with their permission
)
_RESEARCH = "research only, non-commercial"

MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="mini",
            repo=None,
            revision=None,
            file="mini.safetensors",
            size=5_002_514,
            sha256="d8a442065a9c9cff62a2912ac7e657b81f2c4f0374832855c77161e87ef6236f",
            licence="Apache-2.0; see its model card for the data",
            trunk="tiny",
            note="bundled; our own small model, trained on generated pictures: for trying things out",
        ),
        ModelCard(
            name="dinov2-small",
            repo=_COMMERCIAL,
            revision="main",
            file="steervit_dinov2_commercial_small.pth",
            size=48_284_373,
            sha256="6c23756039ebddb01c262710cb2f9ea774e905a6e134946b3176dbcc96c969ee",
            licence="Apache-2.0",
            trunk="vit_small_patch14_dinov2.lvd142m",
            note="the authors' small model",
        ),
        ModelCard(
            name="dinov2-base",
            repo=_COMMERCIAL,
            revision="main",
            file="steervit_dinov2_commercial_base.pth",
            size=92_345_957,
            sha256="f863021d5aaedbfd4b11d5be639936f56cfe3111ab90db6b8f9c60e40ee64833",
            licence="Apache-2.0",
            trunk="vit_base_patch14_dinov2.lvd142m",
            note="the authors' standard model",
        ),
        ModelCard(
            name="dinov2-large",
            repo=_COMMERCIAL,
            revision="main",
            file="steervit_dinov2_commercial_large.pth",
            size=235_029_421,
            sha256="6c7702a5b194db96c4211f3445eacaf3693a86638e45250603fbcd3bbbb69bb6",
            licence="Apache-2.0",
            trunk="vit_large_patch14_dinov2.lvd142m",
            note="the authors' large model",
        ),
        ModelCard(
            name="dinov2-base-research",
            repo=_AUTHORS,
            revision="4468b69138d397fd329df00e80093387c26c77b2",
            file="steervit_dinov2_base.pth",
            size=92_849_183,
            sha256="3ee74e5fba5cdbcbbdc35042b59fc44d54a68864724186c0ba4f5e2174892e3a",
            licence=_RESEARCH,
            trunk="vit_base_patch14_dinov2.lvd142m",
            note="the model of the paper's tables",
        ),
        *(
            ModelCard(
                name=f"{family}-base-research",
                repo=_AUTHORS,
                revision="main",
                file=f"steervit_{family}_base.pth",
                size=None,
                sha256=None,
                licence=_RESEARCH,
                trunk=trunk,
                note=f"the paper's {label} variant; its sha256 is not published, so it cannot be checked",
            )
            for family, label, trunk in (
                ("mae", "MAE", "vit_base_patch16_224.mae"),
                ("siglip", "SigLIP", "a SigLIP-B/16, named in the file"),
                ("siglip2", "SigLIP 2", "a SigLIP2-B/16, named in the file"),
            )
        ),
    )
}


def known_models() -> tuple[ModelCard, ...]:
    """The models that can be asked for by name, the bundled one first."""
    return tuple(MODELS.values())
