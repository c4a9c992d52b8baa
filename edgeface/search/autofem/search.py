"""Differentiable search of an AutoFEM genotype (ASFD): weights and choices learn in turn, each on
half of the photos.

Run folder:
    genotype.json            the current :class:`~edgeface.architecture.genotype.Genotype`
    checkpoint.safetensors   everything that an exact resume needs
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from edgeface.architecture.genotype import Genotype, write_genotype
from edgeface.architecture.registry import get_architecture
from edgeface.decode import head_layout
from edgeface.errors import DataError, OptionError, TrainingError
from edgeface.files import LOCK, locked, refuse_others
from edgeface.search.autofem.options import AutoFEMOptions
from edgeface.search.autofem.supernet import build_supernet, choices_of, genotype_of
from edgeface.training.assign import make_cells
from edgeface.training.augment import make_batch
from edgeface.training.checkpoint import load_checkpoint, read_meta, save_checkpoint
from edgeface.training.dataset import Cache
from edgeface.training.losses import shot_losses
from edgeface.training.options import get_recipe
from edgeface.training.resume import agree
from edgeface.types import Progress, unseen

GENOTYPE, CHECKPOINT = "genotype.json", "checkpoint.safetensors"
WEIGHTS, CHOICES = 0, 1
"""what a step updates, and which half of the photos it sees"""
MAX_GRADIENT = 10.0
"""largest norm of the gradient, as in training"""


def search(
    options: AutoFEMOptions,
    cache: Cache,
    run: Path,
    device: str = "cpu",
    progress: Progress = unseen,
) -> Genotype:
    """Search on the photos in ``cache``; resume from the checkpoint in the run folder, if any.

    Raises OptionError if that has other options or photos, DataError for fewer than two photos,
    ModelError for a network without AutoFEM, TrainingError for a loss that is not finite.
    """
    with locked(run / LOCK, f"the search in {run}"):
        found = GenotypeSearch(options, cache, run, device)
        found.resume()
        return found.fit(progress)


def refuse_others_files(run: Path) -> None:
    """Raise OptionError if the folder holds a genotype but no search has begun in it."""
    if not (run / CHECKPOINT).exists():
        refuse_others(run, (GENOTYPE,), "a search")


class GenotypeSearch:
    """A supernet, the two optimisers, and the two halves of the photos."""

    def __init__(
        self, options: AutoFEMOptions, cache: Cache, run: Path, device: str = "cpu"
    ) -> None:
        if len(cache) < 2:
            raise DataError(
                f"{len(cache)} photo to search on, accepted: 2 or more, half of them for the"
                " choices"
            )
        self.options, self.run, self.device = options, run, torch.device(device)
        self.cache = cache if self.device.type == "cpu" else cache.to(self.device)
        self.halves = halves(self.cache, options.seed)
        self.net = build_supernet(
            get_architecture(options.model), options.channels, options.seed
        ).to(self.device)
        self.layout = head_layout(self.net.architecture)
        self.recipe = get_recipe(None, self.net.architecture).completed(self.layout)
        """recipe whose crops and loss the search uses"""
        self.cells = make_cells(self.layout, options.size, options.size, self.device)
        self.choices = choices_of(self.net)
        logits = [choice.logits for choice in self.choices]
        chosen = {id(parameter) for parameter in logits}
        weights = [p for p in self.net.parameters() if id(p) not in chosen]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(weights, lr=options.lr, weight_decay=options.weight_decay),
            torch.optim.Adam(logits, lr=options.choice_lr, weight_decay=options.weight_decay),
        ]
        self.step = 0
        self.data = self.cache.data

    def resume(self) -> None:
        """Continue from the run's checkpoint if it has one. Raises OptionError if its options or
        photos are others."""
        path = self.run / CHECKPOINT
        if not path.exists():
            return
        meta = read_meta(path)
        same = meta.get("options") == dataclasses.asdict(self.options)
        before = meta.get("data", {})
        if not same or meta.get("images") != len(self.cache) or not agree(before, self.data):
            raise OptionError(
                f"{self.run} was started with other options or photos: resume with the same ones or"
                " choose another --out folder"
            )
        load_checkpoint(path, self.net, None, self.optimizers)
        self.step = int(meta["step"])
        self.data = before | self.data

    def fit(self, progress: Progress) -> Genotype:
        """Search to the last step, writing the run folder as it goes."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        o = self.options
        self.net.train()
        while self.step < o.steps:
            if self.step >= o.warmup:
                self._optimise(CHOICES)
            loss = self._optimise(WEIGHTS)
            self.step += 1
            progress(f"searching, loss {loss:.2f}", self.step, o.steps)
            if self.step % o.checkpoint_every == 0 or self.step == o.steps:
                self._save()
        found = genotype_of(self.net)
        # A search stopped between its two last files, or whose genotype was deleted, lacks this.
        write_genotype(self.run / GENOTYPE, found)
        return found

    def _optimise(self, what: int) -> float:
        """One step of the weights or of the choices; returns the loss."""
        o = self.options
        # The seed is a function of the step, so that a resumed search draws the same numbers.
        generator = torch.Generator().manual_seed((o.seed << 32) + 2 * self.step + what)
        for choice in self.choices:
            choice.perturb(o.noise, generator)
        batch = make_batch(
            self.halves[what], self.recipe.augment, o.size, o.batch, self.step, o.seed
        )
        (found,) = shot_losses(self.net(batch.images), batch, self.cells, self.layout, self.recipe)
        loss = found.cls / found.positives.clamp(
            min=1
        ) + self.recipe.box_weight * found.box / found.weight.clamp(min=1e-3)
        if not loss.isfinite():
            raise TrainingError(
                f"the loss is not finite at step {self.step + 1}: search with a lower --lr; what"
                f" {self.run} holds is from before"
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT)
        self.optimizers[what].step()
        return float(loss.detach())

    def _save(self) -> None:
        save_checkpoint(
            self.run / CHECKPOINT,
            self.net,
            None,
            self.optimizers,
            {
                "step": self.step,
                "options": dataclasses.asdict(self.options),
                "images": len(self.cache),
                "data": self.data,
            },
        )
        write_genotype(self.run / GENOTYPE, genotype_of(self.net))


def halves(cache: Cache, seed: int) -> tuple[Cache, Cache]:
    """The photos of ``cache`` in two random halves, which share its pixels and boxes."""
    order = torch.randperm(len(cache), generator=torch.Generator().manual_seed(seed)).to(
        cache.count.device
    )
    middle = (len(order) + 1) // 2
    names = ("level_offset", "level_height", "level_width", "first", "count")
    first, second = (
        dataclasses.replace(cache, **{name: getattr(cache, name)[part] for name in names})
        for part in (order[:middle], order[middle:])
    )
    return first, second
