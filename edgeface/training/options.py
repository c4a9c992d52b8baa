"""Options of a training run, and the recipes of the published networks.

Each field's docstring is its --help text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from edgeface.errors import OptionError
from edgeface.options import MAX_SEED, Range, check_ranges

if TYPE_CHECKING:
    from edgeface.architecture.architecture import Architecture
    from edgeface.decode import HeadLayout


OPTIMIZERS = ("adamw", "muon", "sgd")
ASSIGNERS = ("dynamic", "atss", "compensated", "overlap")
LOSSES = ("quality", "multibox", "drmc")
PRECISIONS = ("auto", "bf16", "fp32")
MAX_SIZE_PX = 4096
SHARE = Range(0, 1)
MOST = 10**10
"""largest number of crops or steps of a run"""
LOG_EVERY = 25
"""steps per line in the log of a run"""
OWN = {"distance": ("dynamic", "quality"), "ssd": ("compensated", "multibox")}
"""default assigner and loss of networks with each box coding"""


@dataclass(frozen=True)
class AugmentOptions:
    """What the random crop and the colour change draw from.

    Raises OptionError for a value out of range, such as a scale that would leave crops empty.
    """

    ranges: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("scale_low", "scale_high"), Range(0, 64, open=True)),
        "large_scale": Range(0, 10**6, open=True),
        "face_low_px": Range(0, MAX_SIZE_PX, open=True),
        **dict.fromkeys(("face_high", "large_low", "large_high"), Range(0, 16, open=True)),
        "min_face_px": Range(0, MAX_SIZE_PX),
        "brightness": Range(0, 255),
        "contrast": Range(0, 1),
        "saturation": Range(0, 1),
        "hue_degrees": Range(0, 180),
        "roll_degrees": Range(0, 180),
        "stretch": Range(1, 4),
        "shear": Range(0, 1),
    }

    crop: str = "zoom"
    """zoom (from scale_low to scale_high, or by the size of a face), or s3fd (data-anchor sampling,
    or square parts that hold a face; scales and face sizes below are not used)"""
    scale_low: float = 0.45
    """smallest output px per source px"""
    scale_high: float = 2.0
    """largest output px per source px"""
    anchor_share: float = 0.35
    """share of samples whose scale brings the chosen face to a random size (data-anchor
    sampling)"""
    face_low_px: float = 10.0
    """smallest face size that data-anchor sampling asks for"""
    face_high: float = 0.9
    """largest face size that data-anchor sampling asks for, as a share of the output side"""
    min_face_px: float = 4.0
    """faces smaller than this after the crop are neither learned nor counted as background"""
    blur_share: float = 0.1
    """share of samples taken one pyramid level too coarse"""
    colour_share: float = 1.0
    """share of samples that each of brightness, contrast, saturation and hue is changed in"""
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue_degrees: float = 18.0
    grey_share: float = 0.05
    large_share: float = 0.1
    """share of samples in which the image's largest face takes large_low to large_high of the
    crop's side"""
    large_low: float = 0.6
    large_high: float = 1.4
    """above 1 the face reaches beyond the crop"""
    large_scale: float = 4.0
    """faces that would have to be enlarged more than this are not"""
    roll_share: float = 0.25
    """share of samples that are turned"""
    roll_degrees: float = 90.0
    """largest turn to either side; small ones are likelier"""
    occlusion_share: float = 0.1
    """share of samples in which a part of one face is covered"""
    light_share: float = 0.12
    """share of samples with low, harsh or one-sided light"""
    noise_share: float = 0.08
    """share of samples with sensor noise"""
    compression_share: float = 0.08
    """share of samples with blocks as of strong JPEG compression"""
    motion_share: float = 0.06
    """share of samples blurred along a line"""
    paste_share: float = 0.0
    """share of samples into which a part of another is pasted: for long trainings on few photos"""
    stretch_share: float = 0.0
    """share of samples that are stretched and sheared: for long trainings on few photos"""
    stretch: float = 1.2
    """largest factor in one direction; the other is shrunk as much"""
    shear: float = 0.15
    """largest shear, in px per px"""

    def __post_init__(self) -> None:
        shares = dict.fromkeys((f.name for f in fields(self) if f.name.endswith("_share")), SHARE)
        for name, accepted in (self.ranges | shares).items():
            if (value := getattr(self, name)) not in accepted:
                raise OptionError(f"{name} must be {accepted}, got {value}")
        for kind in ("scale", "large"):
            low, high = (getattr(self, f"{kind}_{end}") for end in ("low", "high"))
            if low > high:
                raise OptionError(f"{kind}_low is above {kind}_high: {low} and {high}")
        if self.crop not in ("zoom", "s3fd"):
            raise OptionError(f"crop {self.crop!r} is not one of: zoom, s3fd")


NEAR_LOW, NEAR_HIGH = 0.85, 1.2
NEAR_SHARES = {
    "anchor_share": 0.04,
    "blur_share": 0.05,
    "colour_share": 0.3,
    "grey_share": 0.02,
    "large_share": 0.06,
    "roll_share": 0.12,
    "occlusion_share": 0.03,
    "light_share": 0.03,
    "noise_share": 0.01,
    "compression_share": 0.02,
    "motion_share": 0.01,
}
"""largest values of these shares in :func:`near`"""


def near(augment: AugmentOptions) -> AugmentOptions:
    """A mild version of ``augment``, close to how photos are detected.

    Scales are limited to NEAR_LOW and NEAR_HIGH, shares to NEAR_SHARES. Crops of the S3FD family
    stay unchanged.
    """
    if augment.crop != "zoom":
        return augment
    shares = {name: min(getattr(augment, name), most) for name, most in NEAR_SHARES.items()}
    high = min(augment.scale_high, max(augment.scale_low, NEAR_HIGH))
    low = max(augment.scale_low, min(NEAR_LOW, high))
    return replace(augment, scale_low=low, scale_high=high, **shares)


@dataclass(frozen=True)
class TrainOptions:
    """What a run depends on, apart from the network and the data."""

    ranges: ClassVar[dict[str, Range]] = {
        "samples": Range(1, MOST),
        "batch": Range(1, 65_536),
        "late_share": Range(0, 1),
        "lr": Range(0, 10, open=True),
        "weight_decay": Range(0, 1),
        "warmup": Range(0, MOST),
        "warmup_lr": Range(0, 10),
        "decay_share": Range(0, 1),
        "ema": Range(0, 1),
        "box_weight": Range(0, 1000),
        "landmark_weight": Range(0, 1000),
        "margin": Range(0, 1000),
        "margin_scale": Range(0, 1000, open=True),
        "seed": Range(0, MAX_SEED),
        "checkpoint_every": Range(1, MOST),
        "snapshot_every": Range(1, MOST),
    }

    samples: int = 300_000
    """images (random crops) seen in the whole run"""
    batch: int = 32
    """images per optimiser step, over all processes"""
    size: int = 320
    """side of the square crops, px: a multiple of 32 from 64 to 4096"""
    late_size: int = 448
    """side of the crops in the last phase, px: a multiple of 32 from 64 to 4096"""
    late_share: float = 0.15
    """share of the samples that make up the last phase"""
    late_near: bool = True
    """use mild augmentation in the last phase: scales of .85 to 1.2, and less rescaling,
    rotation, occlusion, colour change and noise"""
    optimizer: str = "muon"
    """adamw, muon (orthogonalised updates for the convolutions) or sgd (momentum .9)"""
    lr: float = 3e-3
    """peak learning rate"""
    weight_decay: float = 0.02
    """decoupled weight decay of the convolutions; with sgd, L2 decay of all parameters"""
    warmup: int = 300
    """length of the linear warm-up, in optimiser steps"""
    warmup_lr: float = 0.0
    """learning rate at the start of the warm-up"""
    decay_share: float = 0.35
    """final share of the run over which the learning rate falls linearly to 0; before, it is
    constant. With 0 it never falls: extend such a run with a larger --samples, and get final
    weights from it with --from"""
    drops: str = ""
    """shares of the run after which the learning rate is divided by 10, such as 0.5,0.75;
    replaces --decay-share"""
    ema: float = 0.998
    """decay per step of the moving average of the weights"""
    box_weight: float = 2.0
    """weight of the box loss"""
    landmark_weight: float = 0.1
    """weight of the landmark loss, for networks with landmarks"""
    assigner: str = ""
    """how faces are assigned to cells: dynamic (cost-based), atss, compensated (S3FD) or overlap
    (IoU of .4, ASFD). Default: dynamic; compensated for networks with prior boxes"""
    loss: str = ""
    """quality (quality focal and distance IoU), multibox (SSD) or drmc (ASFD). Default: quality;
    multibox for networks with prior boxes"""
    margin: float = 0.2
    """subtracted from the logit of the correct class, with drmc"""
    margin_scale: float = 1.0
    """factor of the logits, with drmc"""
    precision: str = "auto"
    """auto, fp32 or bf16 (autocast); auto: bf16 where the processor computes it faster (AMX,
    AVX-512 BF16, GPUs), else fp32. A resumed run keeps its precision"""
    compile: bool = True
    """compile the pixel normalisation and, in runs of 2,000 steps or more, backbone and head; on a
    GPU the sampling of crops instead. Faster, but needs a C++ compiler"""
    seed: int = 0
    """seed of the initial weights, the order of the images and the crops"""
    checkpoint_every: int = 250
    """optimiser steps between checkpoints"""
    snapshot_every: int = 1000
    """optimiser steps between snapshots of the averaged weights"""
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        choices = {
            "optimizer": OPTIMIZERS,
            "assigner": ("", *ASSIGNERS),
            "loss": ("", *LOSSES),
            "precision": PRECISIONS,
        }
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                known = ", ".join(filter(None, accepted))
                raise OptionError(f"--{name} {getattr(self, name)!r} is not one of: {known}")
        check_ranges(self)
        for name in ("size", "late_size"):
            side = getattr(self, name)
            if side % 32 or not 64 <= side <= MAX_SIZE_PX:
                raise OptionError(
                    f"{_flag(name)} must be a multiple of 32 from 64 to {MAX_SIZE_PX}, not {side}"
                )
        if not all(a < b for a, b in pairwise((0.0, *self.drop_shares, 1.0))):
            raise OptionError(
                f"--drops {self.drops!r} is not a list of increasing shares between 0 and 1"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return -(-self.samples // self.batch)

    def size_at(self, step: int) -> int:
        """Crop side at a step."""
        return self.late_size if self._late(step) else self.size

    def augment_at(self, step: int) -> AugmentOptions:
        """Augmentation options at a step."""
        return near(self.augment) if self.late_near and self._late(step) else self.augment

    def _late(self, step: int) -> bool:
        return step >= self.steps * (1 - self.late_share)

    @property
    def drop_shares(self) -> tuple[float, ...]:
        """:attr:`drops` as numbers. Raises OptionError."""
        try:
            return tuple(float(share) for share in self.drops.split(",") if self.drops)
        except ValueError:
            raise OptionError(
                f"--drops {self.drops!r} is not a list of numbers such as 0.5,0.75"
            ) from None

    def lr_at(self, step: int) -> float:
        """Learning rate at a step.

        Linear warm-up, then constant, then linear to 0, or a tenth after each drop.
        """
        done = step if self.warmup_lr else step + 1  # a first step with a rate of 0 would be wasted
        risen = min(1.0, done / self.warmup) if self.warmup else 1.0
        rate = self.warmup_lr + (self.lr - self.warmup_lr) * risen
        if self.drops:
            return rate * 0.1 ** sum(step >= self.steps * share for share in self.drop_shares)
        return min(rate, self.lr * ((self.steps - step) / max(1.0, self.steps * self.decay_share)))

    def values(self) -> dict[str, object]:
        """All options by name, including those of ``augment``."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "augment"}
        return own | asdict(self.augment)

    def completed(self, layout: HeadLayout) -> TrainOptions:
        """Fill in an empty assigner or loss with the default for a network with ``layout``.

        Raises OptionError for a loss that the network cannot have.
        """
        if self.loss == "multibox" and layout.coding != "ssd":
            raise OptionError(
                "--loss multibox is for networks with prior boxes (extd, eresfd, asfd): pass"
                " quality or drmc"
            )
        assigner, loss = OWN[layout.coding]
        return replace(self, assigner=self.assigner or assigner, loss=self.loss or loss)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_S3FD = TrainOptions(
    samples=480_000 * 16,
    batch=16,
    size=640,
    late_size=640,
    late_share=0.0,
    optimizer="sgd",
    lr=1e-3,
    weight_decay=5e-4,
    warmup=0,
    drops="0.5,0.75",
    ema=0.0,
    box_weight=1.0,
    augment=AugmentOptions(
        crop="s3fd",
        anchor_share=0.5,
        min_face_px=6.0,
        blur_share=0.0,
        colour_share=0.5,
        grey_share=0.0,
        large_share=0.0,
        roll_share=0.0,
        occlusion_share=0.0,
        light_share=0.0,
        noise_share=0.0,
        compression_share=0.0,
        motion_share=0.0,
    ),
)

RECIPES: dict[str, TrainOptions] = {
    "edgeface": TrainOptions(),
    "extd": _S3FD,
    # Steps, drops and crops are published. Optimiser and learning rate are not: EXTD's are used.
    "eresfd": replace(_S3FD, samples=280_000 * 16, drops="0.536,0.643,0.714"),
    # Optimiser, schedule and epochs are published. Crops are not: those of its base, DSFD.
    "asfd": replace(
        _S3FD,
        samples=50 * 12_880,
        batch=48,
        lr=0.015,
        warmup=500,
        warmup_lr=1e-6,
        drops="0.5,0.8",
        assigner="overlap",
        loss="drmc",
        augment=replace(_S3FD.augment, anchor_share=0.4),
    ),
}
"""How the authors of each family trained it, as far as they say; ``edgeface`` is for all other
networks"""


def get_recipe(name: str | None, architecture: Architecture) -> TrainOptions:
    """The recipe called ``name``, or by default that of the network's family.

    Raises OptionError that lists the known names.
    """
    if name is None:
        name = architecture.backbone.kind if architecture.backbone.kind in RECIPES else "edgeface"
    if name not in RECIPES:
        raise OptionError(f"--recipe {name!r} is not one of: {', '.join(RECIPES)}")
    return RECIPES[name]
