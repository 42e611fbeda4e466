"""The baselines by name: what each computes, from which weights, under which licence. Plain data.

`row` is the name in the paper's tables, or our name of a baseline that the paper lacks. A revision is "main" until the
first saved record pins the commit that it was measured at (`pins`). Licences are those of the weights' publishers at
the time of writing; check them before use.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from steersearch.benchmarks.baselines.pins import read_pins
from steersearch.core.errors import BenchmarkError

_NO_ATTENTION = "only the plain backbones (dinov2, mae) and SteerViT are measured"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One baseline.

    family: its module in this package; None for one that cannot be run (`cannot` says why).
    repo, revision, file: on the model hub; file None: a whole repository.  url: another source of the weights.
    computes: how it processes a picture and a prompt.  aggregation: how tokens become one vector.
    needs_prompt: why it needs a prompt; empty if it does not.
    lacks: missing outputs ("vectors", "patches", "maps", "attention") -> why.
    gallery_takes_prompt: False if only the query is seen under the prompt, the gallery under None.
    prompt_is_object: whether the prompt is the bare name of an object, from which the method builds its sentences.
    settings: for the family's `load`.  extra: the extra that it needs.
    bundled: our model that it runs on.  why: the reason for one that the paper lacks.
    """

    name: str
    row: str
    family: str | None = None
    repo: str | None = None
    revision: str = "main"
    file: str | None = None
    url: str | None = None
    licence: str
    computes: str
    aggregation: str
    takes_prompt: bool = True
    needs_prompt: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    gallery_takes_prompt: bool = True
    prompt_is_object: bool = False
    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    extra: str | None = None
    bundled: str | None = None
    why: str = ""
    cannot: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether `revision` is a commit, which fixes the weights."""
        return len(self.revision) == 40

    @property
    def weights(self) -> str:
        """The source of the weights, and whether it is pinned."""
        if self.cannot is not None:
            return ""
        if self.bundled is not None:
            return f"{self.bundled}, bundled"
        if self.repo is None:
            return "a file of yours" if self.url is None else f"{self.url} ({self.file}), downloaded by hand"
        return f"{self.repo} at {self.revision[:8]}" + ("" if self.pinned else ", not pinned")

    @property
    def gives(self) -> tuple[str, ...]:
        """Its outputs, of "vectors", "patches", "maps", "attention"."""
        if self.cannot is not None:
            return ()
        return tuple(part for part in ("vectors", "patches", "maps", "attention") if part not in self.lacks)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, `gives` and `pinned` included."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {
            "lacks": dict(self.lacks),
            "settings": dict(self.settings),
            "gives": self.gives,
            "pinned": self.pinned,
        }


def _trunks() -> list[Card]:
    no_maps = {"maps": "it takes no text"}
    return [
        Card(
            name="dinov2",
            row="DINOv2",
            family="trunks",
            repo="timm/vit_base_patch14_dinov2.lvd142m",
            revision="4685c99dabffe5affac90bd99dbffd25801ae58d",
            file="model.safetensors",
            licence="Apache-2.0",
            computes="ViT-B/14 at 336 px, the backbone of SteerViT",
            aggregation="CLS token after the final norm",
            takes_prompt=False,
            lacks=no_maps,
            settings={"trunk": "vit_base_patch14_dinov2.lvd142m", "aggregation": "cls"},
        ),
        *(
            Card(
                name=name,
                row="MAE",
                family="trunks",
                repo="timm/vit_base_patch16_224.mae",
                file="model.safetensors",
                licence="CC-BY-NC-4.0 (non-commercial)",
                computes="ViT-B/16 at 336 px; the paper does not say which of CLS and mean it takes",
                aggregation=f"{said} after the final norm",
                takes_prompt=False,
                lacks=no_maps,
                settings={"trunk": "vit_base_patch16_224.mae", "aggregation": aggregation},
            )
            for name, said, aggregation in (
                ("mae", "CLS token", "cls"),
                ("mae-mean", "mean of the patch tokens", "mean"),
            )
        ),
    ]


def _clips() -> list[Card]:
    cards = []
    for name, row, repo, licence, size in (
        ("clip", "CLIP", "openai/clip-vit-base-patch16", "MIT", "ViT-B/16"),
        ("clip-large", "CLIP", "openai/clip-vit-large-patch14-336", "MIT", "ViT-L/14"),
        ("siglip", "SigLIP", "google/siglip-base-patch16-384", "Apache-2.0", "ViT-B/16"),
        ("siglip2", "SigLIP 2", "google/siglip2-base-patch16-384", "Apache-2.0", "ViT-B/16"),
    ):
        for add_text in (False, True):
            cards.append(
                Card(
                    name=f"{name}-text" if add_text else name,
                    row=f"{row} + text" if add_text else row,
                    family="clip",
                    repo=repo,
                    licence=licence,
                    computes=f"{size} at 336 px (which size the paper took is not stated)"
                    + ("; embeddings of picture and prompt added, each of unit length" if add_text else ""),
                    aggregation="the model's own image embedding"
                    + (" + its text embedding" if add_text else ""),
                    takes_prompt=add_text,
                    lacks={
                        "maps": "it compares whole pictures with texts; maskclip is its dense form",
                        "attention": _NO_ATTENTION,
                    },
                    settings={"add_text": add_text},
                )
            )
    return cards


def _chat_models() -> list[Card]:
    return [
        Card(
            name=name,
            row=row,
            family="chat",
            repo=repo,
            licence=licence,
            computes=f"prompt, picture ({side} × {side} px, squashed), then the instruction to summarise in one word",
            aggregation="last hidden state of the last token (after the language model's final norm)",
            lacks={"maps": "it answers in words", "attention": _NO_ATTENTION},
            settings={"kind": kind, "side": side},
        )
        for name, row, repo, licence, kind, side in (
            ("internvl3-1b", "InternVL3-1B", "OpenGVLab/InternVL3-1B-hf", "Apache-2.0", "internvl", 448),
            ("internvl3-2b", "InternVL3-2B", "OpenGVLab/InternVL3-2B-hf", "Apache-2.0", "internvl", 448),
            ("qwen3-vl-2b", "Qwen3-VL-2B", "Qwen/Qwen3-VL-2B-Instruct", "Apache-2.0", "qwen3_vl", 352),
            (
                "lfm2.5-vl-1.6b",
                "LFM2.5-VL-1.6B",
                "LiquidAI/LFM2.5-VL-1.6B",
                "LFM Open License v1.0",
                "lfm2_vl",
                352,
            ),
        )
    ]


def _of_2026() -> list[Card]:
    """Methods that the paper does not compare with and a reviewer of 2026 would; `why` gives the reason for each."""
    whole = {"patches": "it embeds crops", "maps": "it finds a box", "attention": _NO_ATTENTION}
    fixed = {
        "patches": "it maps whole pictures",
        "maps": "it maps whole pictures",
        "attention": _NO_ATTENTION,
    }
    return [
        Card(
            name="qwen3-vl-embedding",
            row="Qwen3-VL-Embedding-2B",
            family="chat",
            repo="Qwen/Qwen3-VL-Embedding-2B",
            licence="Apache-2.0",
            why="a chat model trained to embed under an instruction, unlike the paper's chat models",
            computes="the prompt as the system's instruction, the picture (352 × 352 px, squashed) as the user's turn",
            aggregation="last hidden state of the last token (after the language model's final norm)",
            lacks={"maps": "it answers with a vector", "attention": _NO_ATTENTION},
            settings={
                "kind": "qwen3_vl",
                "side": 352,
                "instruction": "Represent the image by what it shows of: {}",
            },
        ),
        Card(
            name="tipsv2",
            row="TIPSv2",
            family="tipsv2",
            repo="google/tipsv2-b14",
            licence="Apache-2.0",
            why="a ViT-B/14 trained so that patches agree with texts: text alignment without steering",
            computes="ViT-B/14 at 336 px; heatmap: cosine of patch and prompt over the model's temperature",
            aggregation="softmax of its heatmap over its patches; without a prompt its image embedding",
            lacks={"attention": _NO_ATTENTION},
        ),
        Card(
            name="detect-crop",
            row="GroundingDINO, crop, DINOv2",
            family="detect_crop",
            repo="IDEA-Research/grounding-dino-tiny",
            licence="Apache-2.0",
            why="the obvious way to look at one thing with a frozen encoder, which the paper leaves out",
            computes="the most confident box of GroundingDINO at 336 px, cut out with a margin, then DINOv2 at 336 px",
            aggregation="CLS of the crop; without a prompt of the picture",
            lacks=whole,
            settings={"detector": "grounding-dino"},
        ),
        Card(
            name="heatmap-crop",
            row="heatmap, crop, unsteered",
            family="detect_crop",
            bundled="mini",
            licence="that of the model",
            why="the same with our own heatmap as the detector: what steering adds to knowing where",
            computes="the box around the strongest patch of the heatmap, cut out, through the same model unsteered",
            aggregation="CLS of the crop; without a prompt of the picture",
            lacks=whole,
            settings={"detector": "heatmap"},
        ),
        Card(
            name="clip-subspace",
            row="text subspace over CLIP",
            family="text_subspace",
            repo="openai/clip-vit-base-patch16",
            licence="MIT",
            why="conditional similarity without training or re-embedding, after CLAY's abstract",
            computes="CLIP's image embeddings in the subspace of the prompt and its nearest words",
            aggregation="the part in that subspace; without a prompt the embedding",
            lacks=fixed,
        ),
        Card(
            name="text-subspace",
            row="text subspace over our backbone",
            family="text_subspace",
            bundled="mini",
            licence="that of the model",
            why="the same over our unsteered vectors: what steering adds to picking directions",
            computes="unsteered vectors in the subspace of the cross-attention's keys for the prompt's words",
            aggregation="the part in that subspace; without a prompt the vector",
            lacks=fixed,
        ),
        Card(
            name="learned-map",
            row="learned map",
            family="learned_map",
            licence="that of your file",
            why="a linear map of fixed vectors, made by the text, after QuARI: steering after the fact, but trained",
            computes="unsteered vectors of the bundled model through a map of rank 16 that the prompt makes; "
            "`bench build learned-map` fits one: learned-map=FILE",
            aggregation="the mapped vector; without a prompt the vector",
            lacks=fixed,
        ),
    ]


def _segmenters() -> list[Card]:
    return [
        Card(
            name="sam3",
            row="SAM3",
            family="sam3",
            repo="facebook/sam3",
            licence="SAM License (gated: access must be requested, and is sometimes refused)",
            computes="outputs of the fusion encoder (detr_encoder) at 1008 px; heatmap: the logits of the semantic "
            "segmentation (which output the paper took as its anomaly map is not stated)",
            aggregation="mean of the patch outputs",
            needs_prompt="it finds what a text names",
            lacks={"attention": _NO_ATTENTION},
        ),
        Card(
            name="grounding-dino",
            row="GroundingDINO",
            family="grounding_dino",
            repo="IDEA-Research/grounding-dino-tiny",
            licence="Apache-2.0",
            computes="vision outputs of the feature enhancer, every scale resampled to 24 × 24 and averaged; "
            "pictures squashed to 336 px, the paper's size for what takes it",
            aggregation="mean of the dense features",
            needs_prompt="it finds what a text names",
            lacks={"maps": "it scores boxes, not patches", "attention": _NO_ATTENTION},
        ),
        Card(
            name="clipseg",
            row="CLIPSeg",
            family="clipseg",
            repo="CIDAS/clipseg-rd64-refined",
            licence="Apache-2.0",
            computes="mask logits of the prompt at 352 px",
            aggregation="none",
            needs_prompt="it segments what a text names",
            lacks={
                "vectors": "its output is a mask",
                "patches": "its output is a mask",
                "attention": _NO_ATTENTION,
            },
        ),
    ]


def _anomaly_methods() -> list[Card]:
    maps_only = {
        "vectors": "it scores patches against texts",
        "patches": "it scores patches against texts",
        "attention": _NO_ATTENTION,
    }
    return [
        Card(
            name="maskclip",
            row="MaskCLIP",
            family="maskclip",
            repo="openai/clip-vit-base-patch16",
            licence="MIT",
            computes="our own: CLIP's patches through the values of its last attention, cosine with the prompt (the "
            "paper copies MaskCLIP's figures from another paper)",
            aggregation="none",
            needs_prompt="it scores patches against a text",
            lacks=maps_only,
        ),
        Card(
            name="winclip",
            row="WinCLIP",
            family="winclip",
            repo="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
            file="open_clip_model.safetensors",
            licence="MIT",
            computes="our own zero-shot WinCLIP on OpenCLIP's ViT-B-16-plus-240: windows of 2 × 2 and 3 × 3 patches "
            "and the whole picture against ensembles of sentences, normal and damaged; harmonic means (the paper "
            "copies WinCLIP's figures from its paper)",
            aggregation="none",
            needs_prompt="the name of the object whose anomalies are looked for",
            lacks=maps_only,
            prompt_is_object=True,
            extra="baselines",
        ),
        Card(
            name="fade",
            row="FADE",
            licence="MIT (code), MIT (CLIP's weights)",
            computes="CLIP patches of three sizes against prompt ensembles, and a memory of the query's own patches",
            aggregation="none",
            cannot="it has no weights of its own: what makes it is code that no package carries, on top of GEM's "
            "modified CLIP, and five files of sentences that a language model wrote; the settings of its figures "
            "without reference pictures are not stated there. The paper copies FADE's figures from its paper; see "
            "github.com/BMVC-FADE/BMVC-FADE",
        ),
        Card(
            name="divad",
            row="DIVAD",
            licence="not stated",
            computes="difference between a picture and its reconstruction by an inverted diffusion model",
            aggregation="none",
            cannot="it has no weights of its own but code around Stable Diffusion, which is not on the package "
            "index, and each picture takes dozens of passes of a diffusion model. The paper copies DIVAD's "
            "figures from its paper; see github.com/giddyyupp/DIVAD",
        ),
    ]


def _others() -> list[Card]:
    return [
        Card(
            name="late-fusion",
            row="Late fusion",
            family="late_fusion",
            licence="of the checkpoint's backbone",
            computes='a SteerViT trained with fusion="late": its cross-attention follows the last block of the '
            "backbone. The authors released none, so name your own file: late-fusion=FILE",
            aggregation="as the checkpoint says",
        ),
        Card(
            name="flair",
            row="FLAIR",
            family="flair",
            repo="xiaorui638/flair",
            file="flair-merged30m.pt",
            licence="none stated in its repository",
            computes="ViT-B/16 at 224 px; the text's embedding queries the local image tokens by attention "
            "pooling (our own code for the published weights)",
            aggregation="text-conditioned attention pooling; without a prompt the global image token",
            lacks={
                "maps": "its pooling weights are not scores",
                "attention": _NO_ATTENTION,
            },
            extra="baselines",
        ),
        Card(
            name="genecis-combiner",
            row="GeneCIS combiner",
            family="combiner",
            url="https://dl.fbaipublicfiles.com/genecis/",
            file="vitb16_backbone.pt and vitb16_combiner_head.pt",
            licence="CC-BY-NC-4.0 (non-commercial)",
            computes="CLIP ViT-B/16, fine-tuned with a combiner of picture and text; only queries have a prompt",
            aggregation="the combiner's output; without a prompt the image embedding",
            lacks={
                "patches": "the combiner takes whole pictures",
                "maps": "the combiner takes whole pictures",
                "attention": _NO_ATTENTION,
            },
            gallery_takes_prompt=False,
            extra="baselines",
        ),
    ]


_FAMILIES = (_trunks, _clips, _others, _chat_models, _segmenters, _anomaly_methods, _of_2026)
_PINS = read_pins()


def _pinned(card: Card) -> Card:
    return card if card.pinned or card.repo not in _PINS else replace(card, revision=_PINS[card.repo])


CARDS: dict[str, Card] = {card.name: _pinned(card) for family in _FAMILIES for card in family()}
NAMES = tuple(CARDS)


def known_card(name: str) -> Card:
    """The card of the baseline `name`, runnable or not. Raises BenchmarkError for an unknown one."""
    card = CARDS.get(name)
    if card is None:
        nearest = next(iter(difflib.get_close_matches(name, NAMES, 1)), None)
        meant = "" if nearest is None else f', did you mean "{nearest}"?'
        raise BenchmarkError(f'no baseline "{name}"{meant}; known: {", ".join(NAMES)}')
    return card


def card_of(name: str) -> Card:
    """As `known_card`; also raises BenchmarkError for one that cannot be run."""
    card = known_card(name)
    if card.cannot is not None:
        raise BenchmarkError(f"{name} cannot be run: {card.cannot}")
    return card
