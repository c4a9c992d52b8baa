"""Quality focal loss and distance-IoU loss over assigned cells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeface.decode import HeadLayout
from edgeface.training.assign import (
    Cells,
    atss,
    distances_to_boxes,
    dynamic,
    flatten,
    ignored_cells,
    pair_iou,
)
from edgeface.training.augment import Batch


@dataclass(frozen=True)
class Loss:
    """Sums over one batch on one process, to be divided by normalisers shared by all processes.

    cls / positives and box / weight are the two loss terms.
    """

    cls: Tensor
    box: Tensor
    positives: Tensor
    weight: Tensor


def quality_focal_loss(logits: Tensor, target: Tensor, beta: float = 2.0) -> Tensor:
    """|target - sigmoid(logit)|^beta * BCE, per element (Li et al., NeurIPS 2020, equation 4)."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - logits.sigmoid()).abs().pow(beta) * bce


def diou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + d^2 / c^2 per pair of boxes [..., 4] (Zheng et al., AAAI 2020, equation 7)."""
    centres = ((predicted[..., :2] + predicted[..., 2:]) - (target[..., :2] + target[..., 2:])) / 2
    hull = torch.maximum(predicted[..., 2:], target[..., 2:]) - torch.minimum(predicted[..., :2], target[..., :2])
    return 1 - pair_iou(predicted, target) + centres.pow(2).sum(-1) / hull.pow(2).sum(-1).clamp(min=1e-6)


def detection_loss(outputs: tuple[Tensor, ...], batch: Batch, cells: Cells, layout: HeadLayout,
                   assigner: str = "dynamic") -> Loss:
    """Loss sums of one batch; assigner is ``dynamic`` or ``atss``."""
    logits, distances = flatten(outputs)
    predicted = distances_to_boxes(cells, distances)
    learned = ~batch.ignore
    boxes, image = batch.boxes[learned], batch.image[learned]
    if assigner == "atss":
        face, cell = atss(cells, boxes, image)
    else:
        face, cell = dynamic(cells, boxes, image, logits.detach(), predicted.detach(), layout)
    at = (image[face], cell)
    target_box, chosen = boxes[face], predicted[at]
    target = torch.zeros_like(logits)
    target[at] = pair_iou(chosen.detach(), target_box)
    keep = ~ignored_cells(cells, batch.boxes[batch.ignore], batch.image[batch.ignore], len(logits))
    keep[at] = True
    weight = logits[at].detach().sigmoid()
    return Loss(
        cls=(quality_focal_loss(logits, target) * keep).sum(),
        box=(diou_loss(chosen, target_box) * weight).sum(),
        positives=torch.tensor(float(len(face)), device=logits.device),
        weight=weight.sum(),
    )
