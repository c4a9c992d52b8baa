"""The training loop: a run killed at any moment resumes exactly.

Run folder:
    config.json              architecture and options, readable without the project
    checkpoint.safetensors   everything a resume or a branch needs, every ``checkpoint_every`` steps
    weights.safetensors      moving average of the weights, what a user loads
    snapshots/               the averaged weights at regular steps, for a curve of accuracy
    log.csv, curves.png      losses, learning rate, images/s, share of time spent waiting for data

Batches are made between two steps, not ahead in a thread. On a CPU such a thread would compete with
the network for its cores (measured on two: 54 images/s with such a thread, 85 without); on an
accelerator the cache lies on the device and a crop costs next to nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from edgeface.decode import head_layout
from edgeface.errors import OptionError, TrainingError
from edgeface.files import read_regular, write_text
from edgeface.models import Architecture, build
from edgeface.training.assign import Cells, make_cells
from edgeface.training.augment import make_batch
from edgeface.training.batch import Batch
from edgeface.training.checkpoint import load_checkpoint, read_meta, save_checkpoint
from edgeface.training.compiling import check_compiler, compile_for_cpu, compiler_errors
from edgeface.training.dataset import Cache
from edgeface.training.distributed import stop_request
from edgeface.training.ema import EMA
from edgeface.training.log import FIGURES, Log
from edgeface.training.losses import Loss, shot_losses
from edgeface.training.optimizer import make_optimizers
from edgeface.training.options import LOG_EVERY, TrainOptions
from edgeface.training.precision import with_precision
from edgeface.training.process import hold_freed_memory, make_deterministic
from edgeface.training.resume import CONFIG, check_resumed, fixed, passed_steps
from edgeface.training.start import CHECKPOINT, WEIGHTS, Fit, checkpoint_of, fill
from edgeface.types import Progress, unseen
from edgeface.zoo import save_weights

MAX_GRADIENT = 10.0
"""norm above which gradients are clipped"""


class Trainer:
    """One process of a training run.

    ``torchrun`` starts several, each of which takes its part of every batch.
    """

    def __init__(
        self,
        architecture: Architecture,
        options: TrainOptions,
        cache: Cache,
        run: Path,
        device: str = "cpu",
    ) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if options.compile:
            check_compiler()
        if options.batch % self.world:
            raise OptionError(
                f"--batch {options.batch} cannot be shared equally by {self.world} processes"
            )
        self.architecture, self.layout = architecture, head_layout(architecture)
        self.run, self.device = run, torch.device(device)
        self.options = with_precision(
            options.completed(self.layout), max(self.layout.strides), self.checkpoint, self.device
        )
        self.cache = cache if self.device.type == "cpu" else cache.to(self.device)
        self.model = build(architecture, self.options.seed).to(self.device).train()
        self.network: torch.nn.Module = (
            DistributedDataParallel(self.model) if self.world > 1 else self.model
        )
        self.ema = EMA(self.model, self.options.ema)
        if options.compile and self.device.type == "cpu":
            compile_for_cpu(self.model, self.options.steps)
        self.optimizers = make_optimizers(
            self.model, self.options.optimizer, self.options.lr, self.options.weight_decay
        )
        self.parameters = list(self.model.parameters())
        self.step = 0
        self._cells: dict[int, Cells] = {}
        self._compiled: set[int] = set()
        """crop sides for which the network has been compiled, if it is at all"""
        points = int(cache.landmarks.isfinite().all((1, 2)).sum()) if self.layout.landmarks else 0
        self._config: dict[str, Any] = {
            "architecture": architecture.to_json(),
            "options": dataclasses.asdict(self.options),
            "images": len(cache),
            "faces": len(cache.boxes),
            "landmarks": points,
            "data": cache.data,
            "init": None,
            "branch": None,
        }

    @property
    def checkpoint(self) -> Path:
        """Path of the run's checkpoint."""
        return self.run / CHECKPOINT

    def begin(self, init: str | None = None, branch: Path | None = None) -> Fit | None:
        """Continue this run, or else start it from the run ``branch`` or with the weights ``init``.

        branch: run folder or checkpoint whose state is taken. init: name of the zoo, or a file; all
        tensors that fit are taken, and returned as a Fit. Raises OptionError, ModelError.
        """
        if self.checkpoint.exists():
            self._resume(init, branch)
        elif branch:
            self._branch(checkpoint_of(branch))
        elif init:
            fit = fill(self.model, init)
            self.ema.shadow.load_state_dict(self.model.state_dict())
            self._config["init"] = fit.sha256
            return fit
        return None

    def resume(self) -> None:
        """Continue from the run's checkpoint if it has one.

        Only ``samples``, ``decay_share``, the late phase and the intervals of checkpoints and
        snapshots may differ from the checkpoint's options: they make a run longer, or change how
        often it is saved. Raises OptionError for any other difference, also of photos or boxes: it
        would not be the same run. Options that the checkpoint of an earlier version lacks have
        today's defaults, but precision fp32.
        """
        self.begin()

    def _resume(self, init: str | None, branch: Path | None) -> None:
        meta = read_meta(self.checkpoint)
        config = meta["config"]
        check_resumed(self.run, meta, self._config, self.options, self.layout, init, branch)
        load_checkpoint(self.checkpoint, self.model, self.ema, self.optimizers)
        self.step = int(meta["step"])
        self._config |= {name: config.get(name) for name in ("init", "branch")}
        self._config["data"] = config.get("data", {}) | self.cache.data

    def _branch(self, checkpoint: Path) -> None:
        """Take model, average and optimiser from ``checkpoint``, of another run.

        This run's first step follows that run's last.
        """
        meta = read_meta(checkpoint)
        config = meta["config"]
        if Architecture.from_json(config["architecture"]) != self.architecture:
            raise OptionError(
                f"--from {checkpoint} is of another network than --model: leave --model out"
            )
        if config["options"]["optimizer"] != self.options.optimizer:
            raise OptionError(
                f"--from {checkpoint} goes on with the optimiser of that run, "
                f"{config['options']['optimizer']}: leave --optimizer out"
            )
        load_checkpoint(checkpoint, self.model, self.ema, self.optimizers)
        digest = hashlib.sha256(read_regular(checkpoint)).hexdigest()
        if read_meta(checkpoint) != meta:  # that run still trains, and has just saved another state
            self._branch(checkpoint)
            return
        self._config["branch"] = {
            "step": passed_steps(meta),
            "sha256": digest,
            "run": fixed(config, self.layout),
        }

    @property
    def passed(self) -> int:
        """Steps of the run that this one branches off, or 0; its crops are not drawn again."""
        return int((self._config["branch"] or {}).get("step", 0))

    def fit(self, progress: Progress = unseen, until: int | None = None) -> bool:
        """Train to the last step, or to step ``until``; True when the last step is reached.

        The run folder is written on the way. Ctrl-C (or SIGTERM) finishes the step, saves a
        checkpoint and returns False; a second one stops at once, and so does the first in a step
        that compiles, which takes long: nothing is lost by it. Raises TrainingError at a loss that
        is not finite, and if the compiler fails; what was saved before stays.
        """
        make_deterministic()
        hold_freed_memory()
        steps = min(self.options.steps, until or self.options.steps)
        if self.rank == 0:
            write_text(self.run / CONFIG, json.dumps(self._config, indent=1))
        with stop_request(self.world, lambda: self._compiles) as stop:
            log = Log(self.run, self.step, len(self.cache), enabled=self.rank == 0)
            figures: list[Tensor] = []
            while self.step < steps and not stop.is_set():
                try:
                    figures.append(self._next(log, figures, progress))
                except KeyboardInterrupt:
                    if self._compiles and self.world == 1:  # others would wait for this process
                        return False
                    raise
                if self._due(LOG_EVERY, self.options.checkpoint_every, self.options.snapshot_every):
                    log.add(self.step, self.options, self._finite(figures))
                    figures.clear()
                progress("training", self.step, steps, log.note)
                self._save_if_due(log)
            self._finite(figures)
        kept = self.step == self.options.steps and (self.run / WEIGHTS).exists()
        if self.rank == 0 and not kept:  # the weights of a finished run may have been deleted
            self._save_checkpoint()
        return self.step == self.options.steps

    @property
    def _compiles(self) -> bool:
        """Does this step compile the network?"""
        return self.options.compile and self.options.size_at(self.step) not in self._compiled

    def _next(self, log: Log, before: list[Tensor], progress: Progress) -> Tensor:
        """Run the next step; return its figures. before: those of the latest steps."""
        start = time.perf_counter()
        batch = self.crops(self.step)
        log.waited += time.perf_counter() - start
        if self._compiles:
            progress("compiling the network", 0, 0)
            self._finite(before)
            if self._compiled and self.rank == 0:  # a Ctrl-C while it compiles loses nothing
                self._save_checkpoint()
            with compiler_errors():
                figures = self.optimise(batch)
            self._compiled.add(batch.images.shape[-1])
        else:
            figures = self.optimise(batch)
        self.step += 1
        return figures

    def _due(self, *every: int) -> bool:
        return self.step == self.options.steps or any(self.step % n == 0 for n in every)

    def _finite(self, figures: list[Tensor]) -> Tensor:
        """Stack the figures of the latest steps to [steps, 5].

        Raises TrainingError for one that is not finite. Called before anything is saved and every
        few steps, not at each: that would wait for an accelerator every time.
        """
        rows = torch.stack(figures).cpu() if figures else torch.zeros(0, len(FIGURES))
        bad = torch.nonzero(~rows.isfinite().all(1)).flatten().tolist()
        if bad:
            step = self.step - len(rows) + bad[0]
            kept = (
                f"{self.checkpoint} is the last good state"
                if self.checkpoint.exists()
                else "nothing was saved yet"
            )
            raise TrainingError(
                f"the loss is not finite at step {step + 1}, learning rate"
                f" {self.options.lr_at(step):.3g}: train with a lower --lr or a longer --warmup;"
                f" {kept}"
            )
        return rows

    def crops(self, step: int) -> Batch:
        """This process's part of batch ``step``."""
        o = self.options
        part = o.batch // self.world
        return make_batch(
            self.cache,
            o.augment_at(step),
            o.size_at(step),
            o.batch,
            self.passed + step,
            o.seed,
            slice(self.rank * part, (self.rank + 1) * part),
            o.compile,
        )

    def optimise(self, batch: Batch) -> Tensor:
        """Run one optimiser step; return FIGURES over all processes, float32 [5].

        It does not wait for an accelerator to compute them.
        """
        objective, total = self.loss(self.forward(batch), batch)
        norm = self.backward(objective)
        self.update()
        self.average()
        positives, weight = total.positives.clamp(min=1), total.weight.clamp(min=1e-3)
        return torch.stack(
            [
                total.cls / positives,
                total.box / weight,
                total.landmarks / weight,
                total.positives,
                norm.detach(),
            ]
        )

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """Outputs of the network, computed in the run's precision."""
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"
        ):
            outputs: tuple[Tensor, ...] = self.network(batch.images)
        return outputs

    def loss(self, outputs: tuple[Tensor, ...], batch: Batch) -> tuple[Tensor, Loss]:
        """The objective to minimise, and the loss sums over all processes of the (second) shot."""
        o, size = self.options, batch.images.shape[-1]
        if size not in self._cells:
            self._cells[size] = make_cells(self.layout, size, size, self.device)
        shots = shot_losses(outputs, batch, self._cells[size], self.layout, o)
        totals = [
            Loss(**{name: self._summed(value) for name, value in vars(shot).items()})
            for shot in shots
        ]
        # DDP averages gradients over processes, so each one contributes its sum times their number
        objective = (
            self.world
            * torch.stack(
                [
                    shot.cls / total.positives.clamp(min=1)
                    + (o.box_weight * shot.box + o.landmark_weight * shot.landmarks)
                    / total.weight.clamp(min=1e-3)
                    for shot, total in zip(shots, totals, strict=True)
                ]
            ).sum()
        )
        return objective, totals[0]

    def backward(self, objective: Tensor) -> Tensor:
        """Compute new gradients and clip them; return their norm before clipping."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        return torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT)

    def update(self) -> None:
        """Step the optimisers at the learning rate of this step."""
        rate = self.options.lr_at(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    def average(self) -> None:
        """Update the moving average."""
        self.ema.update(self.passed + self.step)

    def _summed(self, value: Tensor) -> Tensor:
        value = value.detach().clone()
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def _save_if_due(self, log: Log) -> None:
        if self.rank != 0:
            return
        if self._due(self.options.snapshot_every):
            save_weights(
                self.ema.shadow, self.run / "snapshots" / f"step-{self.step:07d}.safetensors"
            )
        if self._due(self.options.checkpoint_every):
            self._save_checkpoint()
            log.plot()

    def _save_checkpoint(self) -> None:
        save_weights(self.ema.shadow, self.run / WEIGHTS)
        save_checkpoint(
            self.checkpoint,
            self.model,
            self.ema,
            self.optimizers,
            {"step": self.step, "config": self._config},
        )
