"""The complete configuration of a training run, and its presets.

A run has exactly one `Recipe`. `settings.py` changes it by "section.key=value" and writes it as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from steersearch.core.steervit import Fusion
from steersearch.core.vectors import Aggregation
from steersearch.training.data.orientation import Frame
from steersearch.training.text_store import TokenType
from steersearch.training.world.ingredients import Ingredient
from steersearch.training.world.world import WorldConfig

HYBRID = "hybrid"  # the backbone that a run pretrains


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The data to train and validate on.

    train, validation: data sets that `sources.open_source` opens, or "world", the generated one. Without
        `validation`, the split `validation_split` of the training sets is used, or if they have none, every
        hundredth picture is held back.
    format, images, masks: as for `train check`, for all sets alike.  split: of the training sets, "" is all
    validation_rows: at most this many of each set, evenly spread; 0 is all
    frame: pictures and masks as they are shown, turned by EXIF, and expressions with single spaces; or as they are
        stored, pixels and white space alike, which is how the released code reads them
    empty_masks: skip such rows, or keep them: they count with a loss of 0, as in the released code
    text_tokens: number type in which the frozen text encoder's output is stored
    cache_pictures: keep pictures decoded, at the training size, on disk; the world is then composed before training
    cache: folder of data prepared once (pictures, text tokens), which runs may share; "": in the run's own
    without: parts of a world on photographs that the steering does not see, see `world.ingredients`; earlier stages do
    workers: processes that read and augment;  strict: stop at the first row that cannot be used
    """

    train: tuple[str, ...] = ("world",)
    validation: tuple[str, ...] = ()
    format: str = "auto"
    images: str = ""
    masks: str = ""
    split: str = "train"
    validation_split: str = "val"
    validation_rows: int = 2000
    frame: Frame = "shown"
    empty_masks: Literal["skip", "keep"] = "skip"
    text_tokens: TokenType = "float16"
    cache_pictures: bool = False
    cache: str = ""
    without: tuple[Ingredient, ...] = ()
    augment: Literal["release", "light", "none"] = "release"
    workers: int = 4
    strict: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is trained: see `SteerViTConfig` for the parts.

    trunk: the backbone: a name of timm, a file of ours, "mini" for the bundled one's, or "hybrid": blocks above
        EfficientNet-Lite2, trained first, by the sections `distillation` and, for the words, `alignment`
    start: a model whose trained parts initialise this one's, "" for random ones.  gate: initial value, before the tanh
    resolution: side of the pictures in training.  test_resolution: of those that the finished model takes, 0: the same
    text_layers: how many of the text encoder's layers are used, 0 is its word embeddings alone, -1 all
    """

    trunk: str = "vit_base_patch14_dinov2.lvd142m"
    start: str = ""
    resolution: int = 336
    test_resolution: int = 0
    aggregation: Aggregation = "cls"
    cross_attn_layers: tuple[int, ...] = tuple(range(1, 26, 2))
    fusion: Fusion = "early"
    num_heads: int = 16
    head_dim: int = 72
    tanh_gate: bool = True
    gate: float = 0.0
    ffn: bool = False
    connector: Literal["mlp", "linear"] = "mlp"
    connector_hidden: int = 1024
    text_encoder: str = "roberta-large"
    text_layers: int = -1


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """The objective.

    kind: soft cross-entropy to the mask's share of each patch (Eq. 3), or to a Gaussian around the centre of its
        box, `sigma` patches wide (the paper's pointing objective, Table 9)
    alone_cls, alone_mean, alone_focus: weight of the object-alone distillation (ours) of each aggregation
    distillation: contrastive (nearest to its own object's embedding among others) or cosine (near to it)
    views: for things of the world, number of jittered pictures of a thing alone whose mean is its key
    queue: for other data, number of earlier keys that a batch is compared with, besides its own
    alignment: weight, beside the rest, of the alignment of words and patches, for a hybrid backbone
    absent: for the world, share of expressions that fit nothing in the picture; in the distillation they are
        drawn to the key of a plain grey picture
    """

    kind: Literal["segmentation", "pointing"] = "segmentation"
    sigma: float = 1.1
    alone_cls: float = 0.0
    alone_mean: float = 0.0
    alone_focus: float = 0.0
    distillation: Literal["contrastive", "cosine"] = "contrastive"
    temperature: float = 0.1
    views: int = 4
    queue: int = 1024
    alignment: float = 0.0
    absent: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """AdamW and its schedule: linear warm-up to `lr`, cosine to `final_lr` at `decay_steps`, then constant.

    batch: pictures in a step, over all processes.  gate_lr: factor on the learning rate of the gates
    matrix_lr: of Muon, which then trains the matrices of connector and cross-attention on the same schedule; 0: AdamW
        trains all, as published
    aligned_lr: factor on Muon's rate for parts that an alignment has trained: connector, queries, keys with values
    decay_connector, decay_rest: weight decay of the connector, and of cross-attention and head
    decay_vectors: whether it reaches gates, biases and norms too, as in the released code
    clip: greatest norm of the gradient, 0 for none
    """

    steps: int = 500_000
    batch: int = 12
    lr: float = 3e-4
    final_lr: float = 3e-5
    warmup: int = 5000
    decay_steps: int = 40_000
    gate_lr: float = 1.0
    matrix_lr: float = 0.0
    aligned_lr: float = 1.0
    decay_connector: float = 0.01
    decay_rest: float = 0.1
    decay_vectors: bool = False
    clip: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Settings that the stages before the steering share.

    batch: pictures in a step.  lr: of AdamW.  matrix_lr: of Muon, which then trains the matrices; 0: AdamW trains all
    warmup: steps up to the full rates, which then fall along a cosine to 1 %.  weight_decay: of matrices, not vectors
    """

    steps: int
    batch: int = 32
    lr: float = 1.2e-3
    matrix_lr: float = 0.02
    warmup: int = 100
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 250

    @property
    def optimiser(self) -> OptimiserSettings:
        """The same in full."""
        return OptimiserSettings(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            final_lr=0.01 * self.lr,
            warmup=self.warmup,
            decay_steps=self.steps,
            matrix_lr=self.matrix_lr,
            decay_connector=self.weight_decay,
            decay_rest=self.weight_decay,
        )

    def learnt(self) -> dict[str, Any]:
        """The settings that determine the result."""
        return {name: value for name, value in asdict(self).items() if name != "save_every"}


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(StageSettings):
    """Pretraining of a hybrid backbone. patches: drawn from each picture in a step;  the weights are of the losses."""

    steps: int = 2000
    weight_decay: float = 0.02
    patches: int = 40
    words_weight: float = 1.0
    things_weight: float = 1.0
    picture_weight: float = 1.0
    salient_weight: float = 0.5
    likeness_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AlignmentSettings(StageSettings):
    """Alignment of words and patches. steps: 0 leaves it out;  patches: drawn from each picture in a step

    classes, wide, names: how many words of each kind a step has at most, see `WordBank.draw`
    strength, head: how values and head are initialised afterwards, see `begin_values`
    """

    steps: int = 800
    lr: float = 2e-3
    warmup: int = 50
    patches: int = 20
    classes: int = 160
    wide: int = 80
    names: int = 100
    strength: float = 0.35
    head: float = 0.6


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Conduct of the run: precision, intervals, logging.

    precision: of the forward pass; auto is bfloat16 on GPUs that compute with it.  compile: torch.compile
    validate_every, save_every, log_every: in steps.  wandb: project at Weights & Biases, "" for none
    """

    seed: int = 42
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    validate_every: int = 3600
    save_every: int = 1000
    log_every: int = 25
    tensorboard: bool = True
    wandb: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All sections. `world` counts only if the data is the generated world, `distillation` and `alignment` only if the
    backbone is hybrid."""

    data: DataSettings = field(default_factory=DataSettings)
    world: WorldConfig = field(default_factory=WorldConfig)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    run: RunSettings = field(default_factory=RunSettings)


# The paper's text (section 4.7); clipping, which it does not mention, is that of the released code.
PAPER = Recipe()

# The released code and what its checkpoints were trained with: 12 pictures on each of 4 GPUs, twice the learning
# rate without warm-up, a shorter cosine, float32, and weight decay on everything (facts B4). Rows are read as there,
# and all of the split that it validates on.
RELEASE = replace(
    PAPER,
    data=replace(PAPER.data, validation_rows=0, frame="stored", empty_masks="keep", text_tokens="float32"),
    optimiser=replace(
        PAPER.optimiser, batch=48, lr=6e-4, final_lr=6e-5, warmup=0, decay_steps=25_000, decay_vectors=True
    ),
    run=replace(PAPER.run, precision="float32"),
)

# The bundled model, from scratch, on two processor cores: photographs from packages beside the drawn world. The run
# makes the folder of photographs unless world.photographs names one.
MINI = Recipe(
    data=DataSettings(cache_pictures=True, validation=("world",), validation_rows=1000),
    world=WorldConfig(photos=24_000, size=224, drawn_per_kind=40, plates=60, wordnet=True),
    model=ModelSettings(
        trunk="hybrid",
        resolution=224,
        test_resolution=320,
        aggregation="focus",
        cross_attn_layers=(1, 2, 3),
        num_heads=4,
        head_dim=64,
        gate=1.0,
        text_encoder="minilm",
        connector_hidden=384,
    ),
    objective=ObjectiveSettings(alone_cls=1.0, alone_focus=0.5, alignment=0.6, absent=0.12),
    optimiser=OptimiserSettings(
        steps=2000,
        batch=32,
        lr=1.2e-3,
        final_lr=1.2e-5,
        warmup=100,
        decay_steps=2000,
        gate_lr=5.0,
        matrix_lr=0.01,
        aligned_lr=0.1,
        decay_connector=0.05,
        decay_rest=0.05,
    ),
    run=RunSettings(seed=1, validate_every=500, save_every=250),
)

PRESETS: dict[str, Recipe] = {"paper": PAPER, "release": RELEASE, "mini": MINI}
