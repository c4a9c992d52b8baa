"""The training loop: one run folder in, weights out; killed at any moment it resumes exactly.

Run folder:
    config.json              architecture and options, readable without the project
    checkpoint.safetensors   everything a resume needs (written every ``checkpoint_every`` steps)
    weights.safetensors      moving average of the weights, what a user loads
    snapshots/               the same at regular steps, for a curve of accuracy
    log.csv, curves.png      losses, learning rate, images per second, share of time spent waiting for data

Batches are made where they are used, between two steps: a thread that made them ahead would take from the network the
very cores it runs on (measured on two: 54 images/s with such a thread, 85 without), and on an accelerator the cache
lies there and a crop costs next to nothing.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from edgeface.decode import head_layout
from edgeface.errors import OptionError
from edgeface.files import atomic_write
from edgeface.models import Architecture, build
from edgeface.progress import Progress, unseen
from edgeface.records import from_fields
from edgeface.training.assign import Cells, make_cells
from edgeface.training.augment import Batch, make_batch
from edgeface.training.checkpoint import load_checkpoint, read_meta, save_checkpoint, save_weights
from edgeface.training.dataset import Cache
from edgeface.training.ema import EMA
from edgeface.training.losses import Loss, shot_losses
from edgeface.training.optimizer import make_optimizers
from edgeface.training.options import TrainOptions

LOG_FIELDS = ("step", "samples", "epoch", "size", "lr", "cls_loss", "box_loss", "landmark_loss", "positives",
              "images_per_s", "wait_share")
LOG_EVERY = 25


class Trainer:
    """One process of a training run. ``torchrun`` starts several, each taking its part of every batch."""

    def __init__(self, architecture: Architecture, options: TrainOptions, cache: Cache, run: Path,
                 device: str = "cpu") -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if options.compile and shutil.which(os.environ.get("CXX", "g++")) is None:
            raise OptionError("--compile needs a C++ compiler (g++, or what CXX names): or pass --no-compile")
        if options.batch % self.world:
            raise OptionError(f"--batch {options.batch} cannot be shared equally by {self.world} processes")
        self.architecture, self.layout = architecture, head_layout(architecture)
        self.options, self.run, self.device = options.completed(self.layout), run, torch.device(device)
        self.cache = cache if self.device.type == "cpu" else cache.to(self.device)
        self.model = build(architecture, options.seed).to(self.device).train()
        self.ema = EMA(self.model, options.ema)
        self.optimizers = make_optimizers(self.model, options.optimizer, options.lr, options.weight_decay)
        self.step = 0
        self._cells: dict[int, Cells] = {}
        self._config = {"architecture": architecture.to_json(), "options": dataclasses.asdict(self.options),
                        "images": len(cache), "faces": len(cache.boxes)}

    @property
    def checkpoint(self) -> Path:
        """Where the run's state lies."""
        return self.run / "checkpoint.safetensors"

    def resume(self) -> None:
        """Continue from the run's checkpoint if it has one.

        Only ``samples``, ``decay_share`` and the late phase may differ from the checkpoint's options, which makes a run
        longer; anything else would not be the same run. Raises OptionError for that. What the checkpoint of an earlier
        version does not say had today's default.
        """
        if not self.checkpoint.exists():
            return
        meta = read_meta(self.checkpoint)
        config = meta["config"]
        same = {"architecture": Architecture.from_json(config["architecture"]) == self.architecture,
                "images": config["images"] == self._config["images"], "faces": config["faces"] == self._config["faces"]}
        for name in (name for name, equal in same.items() if not equal):
            raise OptionError(f"{self.run} was started with other {name}: choose another --out folder")
        before = from_fields(TrainOptions, config["options"], "options").completed(self.layout)
        free = {"samples", "decay_share", "late_share", "late_size", "checkpoint_every", "snapshot_every"}
        for name in (f.name for f in dataclasses.fields(before) if f.name not in free):
            if getattr(before, name) != getattr(self.options, name):
                raise OptionError(f"{self.run} was started with {name} {getattr(before, name)!r}: resume with the same "
                                  "options or choose another --out folder")
        load_checkpoint(self.checkpoint, self.model, self.ema, self.optimizers)
        self.step = int(meta["step"])

    def fit(self, progress: Progress = unseen) -> bool:
        """Train to the last step, writing the run folder as it goes; True when it got there.

        Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint and returns False; a second one stops at once.
        """
        torch.use_deterministic_algorithms(True, warn_only=True)
        steps = self.options.steps
        if self.rank == 0:
            self._write_config()
        model: torch.nn.Module = DistributedDataParallel(self.model) if self.world > 1 else self.model
        with _stop_request(self.world) as stop:
            log = _Log(self.run, self.step, len(self.cache), enabled=self.rank == 0)
            while self.step < steps and not stop.is_set():
                start = time.perf_counter()
                batch = self._batch(self.step)
                waited = time.perf_counter() - start
                log.add(self.step, self.options, self._optimise(model, batch), waited)
                self.step += 1
                progress("training", self.step, steps, log.note)
                self._save_if_due(log)
        if self.step < steps:
            self._save_checkpoint()
        return self.step == steps

    def _batch(self, step: int) -> Batch:
        o = self.options
        part = o.batch // self.world
        return make_batch(self.cache, o.augment, o.size_at(step), o.batch, step, o.seed,
                          slice(self.rank * part, (self.rank + 1) * part), o.compile)

    def _optimise(self, model: torch.nn.Module, batch: Batch) -> Loss:
        """One optimiser step; returns the loss sums over all processes."""
        o = self.options
        size = batch.images.shape[-1]
        if size not in self._cells:
            self._cells[size] = make_cells(self.layout, size, size, self.device)
        autocast = torch.autocast(self.device.type, torch.bfloat16) if o.precision == "bf16" else nullcontext()
        with autocast:
            outputs = model(batch.images)
        shots = shot_losses(outputs, batch, self._cells[size], self.layout, o)
        totals = [Loss(**{name: self._summed(value) for name, value in vars(shot).items()}) for shot in shots]
        # DDP averages gradients over processes, so each one contributes its sum times their number
        objective = self.world * torch.stack([
            shot.cls / total.positives.clamp(min=1)
            + (o.box_weight * shot.box + o.landmark_weight * shot.landmarks) / total.weight.clamp(min=1e-3)
            for shot, total in zip(shots, totals, strict=True)
        ]).sum()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = o.lr_at(self.step)
            optimizer.step()
        self.ema.update(self.model, self.step)
        return totals[0]

    def _summed(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def _save_if_due(self, log: _Log) -> None:
        o, last = self.options, self.step == self.options.steps
        if self.rank != 0:
            return
        if last or self.step % o.snapshot_every == 0:
            save_weights(self.ema.shadow, self.run / "snapshots" / f"step-{self.step:07d}.safetensors")
        if last or self.step % o.checkpoint_every == 0:
            self._save_checkpoint()
            log.plot()

    def _save_checkpoint(self) -> None:
        save_weights(self.ema.shadow, self.run / "weights.safetensors")
        save_checkpoint(self.checkpoint, self.model, self.ema, self.optimizers,
                        {"step": self.step, "config": self._config})

    def _write_config(self) -> None:
        with atomic_write(self.run / "config.json") as temporary:
            temporary.write_text(json.dumps(self._config, indent=1))


@contextmanager
def distributed() -> Iterator[bool]:
    """Join the other processes of ``torchrun``, if there are any; yields whether this one is the first.

    On leaving, everyone waits for everyone: what the first one wrote is there for all.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield True
        return
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(hours=2))
    yield dist.get_rank() == 0
    dist.barrier()


@contextmanager
def _stop_request(world: int) -> Iterator[Event]:
    """An event that Ctrl-C or SIGTERM sets; the second signal acts as usual.

    Only for a lone process: several would stop at different steps and wait for each other for ever.
    """
    stop = Event()
    if world > 1 or current_thread() is not main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(*_: object) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Log:
    """Appends a line every few steps; after a resume, lines past the checkpoint are dropped first."""

    def __init__(self, run: Path, step: int, images: int, enabled: bool) -> None:
        self.path, self.images, self.enabled, self.note = run / "log.csv", images, enabled, ""
        self.sums: dict[str, float] = {}
        self.steps, self.since, self.waited = 0, time.perf_counter(), 0.0
        if not enabled:
            return
        kept: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, step: int, o: TrainOptions, loss: Loss, waited: float) -> None:
        if not self.enabled:
            return
        positives = float(loss.positives)
        values = {"cls_loss": float(loss.cls) / max(1.0, positives), "positives": positives,
                  "box_loss": float(loss.box) / max(1e-3, float(loss.weight)),
                  "landmark_loss": float(loss.landmarks) / max(1e-3, float(loss.weight))}
        self.sums = {k: self.sums.get(k, 0.0) + v for k, v in values.items()}
        self.steps, self.waited = self.steps + 1, self.waited + waited
        if (step + 1) % LOG_EVERY and step + 1 != o.steps:
            return
        elapsed = time.perf_counter() - self.since
        row: dict[str, Any] = {k: f"{v / self.steps:.5g}" for k, v in self.sums.items()}
        seen = (step + 1) * o.batch
        row |= {"step": step + 1, "samples": seen, "epoch": f"{seen / self.images:.3f}", "size": o.size_at(step),
                "lr": f"{o.lr_at(step):.4g}", "images_per_s": f"{self.steps * o.batch / elapsed:.1f}",
                "wait_share": f"{self.waited / elapsed:.3f}"}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, LOG_FIELDS).writerow(row)
        self.note = f"{row['images_per_s']} img/s  cls {row['cls_loss']}  box {row['box_loss']}"
        self.sums, self.steps, self.since, self.waited = {}, 0, time.perf_counter(), 0.0

    def plot(self) -> None:
        """Draw the losses and the learning rate; without matplotlib the log alone has to do."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            return
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            return
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        for axis, name in zip(figure.subplots(1, 3), ("cls_loss", "box_loss", "lr"), strict=True):
            axis.plot([float(r["epoch"]) for r in rows], [float(r[name]) for r in rows], linewidth=1)
            axis.set(xlabel="epoch", title=name)
        with atomic_write(self.path.with_name("curves.png")) as temporary:
            figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
