"""Losses over assigned cells: :func:`detection_loss` serves all networks, assigners and losses.

    loss       class outputs                               box outputs
    quality    quality focal loss on every cell            distance IoU, weighted by the score
    multibox   cross entropy on positive and hard cells    smooth L1 on the coded offsets
                                                           (SSD, S3FD)
    drmc       the same with a margin                      distance IoU (ASFD: regression, margin
                                                           classification)

In all of them, cells under an ignored face (invalid, cut by the crop, tiny) are neither positive
nor negative. The authors of the S3FD family instead treat invalid faces as faces and the others as
background.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeface.decode import HeadLayout
from edgeface.models.s3fd import VARIANCES
from edgeface.training.assign import (
    Cells,
    atss,
    boxes_to_offsets,
    dynamic,
    flatten,
    ignored_cells,
    pair_iou,
    to_boxes,
)
from edgeface.training.batch import Batch
from edgeface.training.matching import compensated, overlap
from edgeface.training.options import OWN, TrainOptions

LANDMARK_BETA = 1 / 9
"""error in strides up to which the landmark loss is quadratic"""
NEGATIVES = 3
"""Hard negatives for each positive cell of an image (SSD, S3FD)"""


@dataclass(frozen=True)
class Loss:
    """Sums over one batch on one process, to be divided by normalisers shared by all processes.

    cls / positives, box / weight and landmarks / weight are the loss terms.
    """

    cls: Tensor
    box: Tensor
    landmarks: Tensor
    positives: Tensor
    weight: Tensor


def quality_focal_loss(logits: Tensor, target: Tensor, beta: float = 2.0) -> Tensor:
    """|target - sigmoid(logit)|^beta * BCE, per element (Li et al., NeurIPS 2020, equation 4)."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - logits.sigmoid()).abs().pow(beta) * bce


def diou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + d^2 / c^2 per pair of boxes [..., 4] (Zheng et al., AAAI 2020, equation 7)."""
    centres = ((predicted[..., :2] + predicted[..., 2:]) - (target[..., :2] + target[..., 2:])) / 2
    hull = torch.maximum(predicted[..., 2:], target[..., 2:]) - torch.minimum(
        predicted[..., :2], target[..., :2]
    )
    return (
        1
        - pair_iou(predicted, target)
        + centres.pow(2).sum(-1) / hull.pow(2).sum(-1).clamp(min=1e-6)
    )


def margin_loss(logits: Tensor, face: bool, margin: float, scale: float) -> Tensor:
    """Softmax cross entropy of (background, face) per element, with a margin for the target.

    The margin is subtracted from the target's output; both outputs are then multiplied by
    ``scale``. Only the difference face - background of the outputs matters, which is what
    ``logits`` are: with margin 0 and scale 1 this is binary cross entropy. Large margin cosine loss
    (Wang et al., CVPR 2018, equation 4) on plain logits.
    """
    return F.softplus(scale * (margin - logits if face else margin + logits))


def hard_negatives(logits: Tensor, positive: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The negative cells with the highest logits: image [K], cell [K].

    Candidates are cells that are ``keep`` and not ``positive`` (both bool [B, A]). Each image gives
    NEGATIVES for each of its positives (Liu et al., ECCV 2016, section 2.2), and so none where no
    face is learned.
    """
    candidates = keep & ~positive
    order = logits.masked_fill(~candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    wanted = torch.minimum(NEGATIVES * positive.sum(1), candidates.sum(1))
    image, rank = torch.nonzero(
        torch.arange(logits.shape[1], device=logits.device) < wanted[:, None], as_tuple=True
    )
    return image, order[image, rank]


def smooth_l1(coded: Tensor, cells: Cells, cell: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 between box outputs [K, 4] in SSD coding and target boxes [K, 4] px.

    The offsets are in units of the variances.
    """
    variances = coded.new_tensor(VARIANCES)
    wanted = boxes_to_offsets(cells.point[cell], cells.size[cell], target)
    return F.smooth_l1_loss(coded / variances, wanted / variances, reduction="none")


def landmark_loss(
    coded: Tensor, cells: Cells, cell: Tensor, target: Tensor, weight: Tensor
) -> Tensor:
    """Weighted sum of smooth L1 between landmark outputs [K, 10] and landmarks [K, 5, 2] px.

    Errors are in strides. Landmarks are NaN where there is nothing to learn; weight: [K]. Beta is
    1/9, as in the training of SCRFD's authors.
    """
    stride = cells.stride[cell, None, None]
    wanted = (target - cells.point[cell, None]) / stride
    known = wanted.isfinite()
    errors = F.smooth_l1_loss(
        coded.view_as(wanted), wanted.where(known, 0), reduction="none", beta=LANDMARK_BETA
    )
    return (errors * known).sum((1, 2)).mul(weight).sum()


def detection_loss(
    outputs: tuple[Tensor, ...],
    batch: Batch,
    cells: Cells,
    layout: HeadLayout,
    assigner: str = "",
    loss: str = "",
    margin: float = 0.2,
    scale: float = 1.0,
) -> Loss:
    """Loss sums of one batch. assigner, loss: see :class:`TrainOptions`; margin, scale: of drmc."""
    assigner, loss = assigner or OWN[layout.coding][0], loss or OWN[layout.coding][1]
    logits, coded, *points = flatten(outputs, layout)
    predicted = to_boxes(cells, coded, layout)
    face, cell = _assigned(assigner, batch, cells, layout, logits.detach(), predicted.detach())
    at = (batch.image[face], cell)
    keep = ~ignored_cells(cells, batch.boxes[batch.ignore], batch.image[batch.ignore], len(logits))
    keep[at] = True
    target = batch.boxes[face]
    positives = torch.tensor(float(len(face)), device=logits.device)
    weight = logits[at].detach().sigmoid() if loss == "quality" else torch.ones_like(logits[at])
    landmarks = (
        landmark_loss(points[0][at], cells, cell, batch.landmarks[face], weight)
        if points
        else 0 * positives
    )
    if loss == "quality":
        quality = torch.zeros_like(logits)
        quality[at] = pair_iou(predicted[at].detach(), target)
        return Loss(
            (quality_focal_loss(logits, quality) * keep).sum(),
            (diou_loss(predicted[at], target) * weight).sum(),
            landmarks,
            positives,
            weight.sum(),
        )
    positive = torch.zeros_like(keep)
    positive[at] = True
    hard = hard_negatives(logits.detach(), positive, keep)
    if loss == "multibox":
        margin, scale = 0.0, 1.0
        box = smooth_l1(coded[at], cells, cell, target)
    else:
        box = diou_loss(predicted[at], target)
    cls = (
        margin_loss(logits[at], True, margin, scale).sum()
        + margin_loss(logits[hard], False, margin, scale).sum()
    )
    return Loss(cls, box.sum(), landmarks, positives, positives)


def shot_losses(
    outputs: tuple[Tensor, ...],
    batch: Batch,
    cells: Cells,
    layout: HeadLayout,
    options: TrainOptions,
) -> list[Loss]:
    """The loss of the network's outputs, and that of its first shot if it has one.

    In training, a network with a first shot (ASFD; DSFD, Li et al., CVPR 2019, section 3.3) returns
    twice as many outputs. The first shot uses the maps before they are enhanced, with priors of
    half the size. Each shot has positives of its own.
    """
    count = len(layout.output_names)
    return [
        detection_loss(
            outputs[first : first + count],
            batch,
            replace(cells, size=cells.size / 2 ** (first // count)),
            layout,
            options.assigner,
            options.loss,
            options.margin,
            options.margin_scale,
        )
        for first in range(0, len(outputs), count)
    ]


def _assigned(
    name: str, batch: Batch, cells: Cells, layout: HeadLayout, logits: Tensor, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """(face [K], cell [K]) pairs, faces numbered as in the batch."""
    learned = torch.nonzero(~batch.ignore).squeeze(1)
    boxes, image = batch.boxes[learned], batch.image[learned]
    if name == "atss":
        face, cell = atss(cells, boxes, image)
    elif name == "dynamic":
        face, cell = dynamic(cells, boxes, image, logits, predicted, layout)
    elif name == "compensated":
        face, cell = compensated(cells, boxes, image, layout)
    else:
        face, cell = overlap(cells, boxes, image, layout)
    return learned[face], cell
