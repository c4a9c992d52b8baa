"""Latency of networks in a search: predicted by a model or measured on the device.

There is one latency table and one model for each input size. Measurements go into the table, which
is saved after every group of networks; the model is refitted when it is next used.

On a Ray cluster, groups go to the machines that have the device: those started with ``ray start
--resources='{"edgeface_device": 1}'``. They make the files and measure them; the table is the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeface.architecture.architecture import Architecture
from edgeface.backends import load_candidate_maker
from edgeface.errors import DataError, DeviceError
from edgeface.files import scratch_folder
from edgeface.latency.devices import Device, open_device
from edgeface.latency.environment import load_now
from edgeface.latency.protocol import LOCAL, Protocol
from edgeface.options import parse_size
from edgeface.predict.measure import PROTOCOL, measure, none_measured
from edgeface.predict.model import LatencyModel, Prediction
from edgeface.predict.table import LEAST_NETWORKS, LatencyTable, Record, Setting, anonymous
from edgeface.schema import from_fields
from edgeface.search.options import StudyOptions
from edgeface.search.results import Candidate
from edgeface.types import Note, Progress, unnoted
from edgeface.workers import open_workers

RESOURCE = "edgeface_device"
"""resource of a Ray cluster: only machines that have it measure, one group at a time"""
TRIES = 2
"""most times that one step measures a network whose figure is too uncertain"""


class LatencyOracle:
    """Latency tables of a run folder, and the device that fills them."""

    def __init__(
        self,
        options: StudyOptions,
        folder: Path,
        progress: Progress,
        note: Note,
        ray: str | None = None,
    ) -> None:
        self.device, self.folder, self.progress, self.note, self.ray = (
            options.device,
            folder,
            progress,
            note,
            ray,
        )
        self.protocol = dataclasses.replace(
            PROTOCOL, max_load=options.max_load, together=options.together
        )
        self.settings = {
            size: Setting(
                options.device,
                options.target,
                options.precision,
                *parse_size(size),
                options.threads,
            )
            for size in options.sizes
        }
        self.tables = {
            size: LatencyTable.load(self.path(size))
            for size in options.sizes
            if self.path(size).is_file()
        }
        self._models: dict[str, LatencyModel] = {}

    def path(self, size: str) -> Path:
        """Path of the latency table of input size ``size``."""
        return self.folder / f"latency-{size}.json"

    def size_of(self, table: LatencyTable) -> str:
        """Input size of ``table``. Raises DataError for a table of another setting."""
        sizes = [size for size, setting in self.settings.items() if setting == table.setting]
        if not sizes:
            wanted = ", or ".join(map(str, self.settings.values()))
            raise DataError(f"the latency table is of {table.setting}, this search is of {wanted}")
        return sizes[0]

    def adopt(self, table: LatencyTable) -> None:
        """Start from an earlier ``table``, unless its input size already has one. Raises DataError
        for a table of another setting."""
        if (size := self.size_of(table)) not in self.tables:
            self._keep(size, table)

    def check(self) -> None:
        """Check before anything is chosen that the device can measure; on a Ray cluster, check
        nothing.

        Raises DeviceError if the device cannot be reached, lacks something that measuring needs or,
        being this machine, is busy with other programs; OptionError if no files can be made for
        it."""
        if not self.ray:
            load_candidate_maker()
        if self.device == LOCAL and not self.ray:
            load, most = load_now(), self.protocol.max_load
            if load is not None and load > most:
                raise DeviceError(
                    f"other programs keep {load:.2g} processors of this machine busy, accepted:"
                    f" {most:g}: end them, or measure beside them with --max-load"
                    f" {math.ceil(load)}, less surely"
                )
        if not self.ray:
            with open_device(self.device) as device:
                self._check(device)

    def _check(self, device: Device) -> None:
        lacking = [] if device.url == LOCAL else [f for f in device.check() if not f.ok]
        if lacking:
            fix = f": run: {lacking[0].fix}" if lacking[0].fix else ""
            raise DeviceError(
                f"{device.url} cannot measure yet: {lacking[0].what}{fix} ({device.check_command}"
                " has the whole list)"
            )
        (target,) = {setting.target for setting in self.settings.values()}
        if target not in device.targets():
            raise DeviceError(
                f"{device.url} has no runtime for {target} files: run: {device.check_command}"
            )

    def predict(self, candidates: Sequence[Candidate]) -> list[Prediction]:
        """One prediction for each candidate, in ms."""
        found: dict[int, Prediction] = {}
        for size in self.settings:
            chosen = [i for i, candidate in enumerate(candidates) if candidate.size == size]
            if chosen:
                predictions = self.model(size).predict([candidates[i].architecture for i in chosen])
                found.update(zip(chosen, predictions, strict=True))
        return [found[i] for i in range(len(candidates))]

    def model(self, size: str) -> LatencyModel:
        """The latency model of input size ``size``, fitted to its table."""
        if size not in self._models:
            self._models[size] = LatencyModel(self.tables[size])
        return self._models[size]

    def missing(self, size: str) -> int:
        """Number of measured networks that a latency model of ``size`` still lacks."""
        table = self.tables.get(size)
        known = sum(r.teaches for r in table.records) if table else 0
        return max(0, LEAST_NETWORKS - known)

    def measure(self, candidates: Sequence[Candidate], again: bool = False) -> None:
        """Measure the candidates that have no valid record.

        again: measure all of them, and average with their earlier records. A network that cannot be
        made or measured is noted and left out. Raises DeviceError, and DataError if the device is
        not that of the table.
        """
        for size, setting in self.settings.items():
            wanted = [c.architecture for c in candidates if c.size == size]
            for attempt in range(1 if again else TRIES):
                if wanted:
                    note = self.note if attempt == 0 else unnoted
                    self._measure(size, setting, wanted, again, note)

    def _measure(
        self, size: str, setting: Setting, wanted: Sequence[Architecture], again: bool, note: Note
    ) -> None:
        table = self.tables.get(size)
        todo = [a for a in wanted if again or table is None or table.find(a) is None]
        if not todo:
            return
        if self.ray:
            self._measure_on_cluster(self.ray, size, setting, todo, note)
            return
        with open_device(self.device) as device:
            measure(
                setting,
                wanted,
                device,
                self.folder / "candidates",
                table,
                again,
                self.progress,
                grown=lambda t: self._grown(size, t),
                dropped=lambda a, why: note(f"left out: {a.name}: {why}"),
                protocol=self.protocol,
            )

    def _measure_on_cluster(
        self, address: str, size: str, setting: Setting, todo: Sequence[Architecture], note: Note
    ) -> None:
        step = self.protocol.together - 1
        items = [
            {
                "device": self.device,
                "setting": dataclasses.asdict(setting),
                "protocol": dataclasses.asdict(self.protocol),
                "architectures": [a.to_json() for a in todo[start : start + step]],
            }
            for start in range(0, len(todo), step)
        ]
        finished = 0

        def keep(_: int, group: dict[str, Any]) -> None:
            nonlocal finished
            finished += 1
            self.take(size, group, note)
            self.progress(f"measuring {setting} on {address}", finished, len(items))

        with open_workers(address, resource=RESOURCE) as workers:
            workers.run(measure_group, items, keep)
        if size not in self.tables:
            raise none_measured(setting, len(todo))

    def take(self, size: str, group: dict[str, Any], note: Note) -> None:
        """Add the result of :func:`measure_group` to the table of ``size``. Raises DataError if it
        is of another device."""
        for name, why in group["left_out"].items():
            note(f"left out: {name}: {why}")
        if group["table"]:
            found, table = LatencyTable.from_text(group["table"]), self.tables.get(size)
            self._keep(size, table.joined(found) if table else found)

    def _grown(self, size: str, table: LatencyTable) -> None:
        """Save the table; raise DeviceError if no measurement in it is valid so far. Wide intervals
        do not count as invalid here: those networks are measured again."""
        self._keep(size, table)
        if table.records and all(r.wrong for r in table.records):
            why = Counter(reason for r in table.records for reason in r.wrong)
            raise DeviceError(
                f"none of the first {len(table.records)} networks gave a valid measurement:"
                f" {why.most_common(1)[0][0]}; wait until the machine is idle, or raise --max-load"
            )

    def _keep(self, size: str, table: LatencyTable) -> None:
        self.tables[size] = table
        self._models.pop(size, None)
        table.save(self.path(size))

    def record(self, candidate: Candidate) -> Record | None:
        """The valid record of ``candidate``, which may be quoted; None if there is none."""
        table = self.tables.get(candidate.size)
        return table.find(candidate.architecture) if table else None

    def doubt(self, candidate: Candidate) -> str:
        """Why the measurement of ``candidate`` may not be quoted; empty if it may, or if there is
        none."""
        table, wanted = self.tables.get(candidate.size), candidate.key[0]
        records = [r for r in table.records if anonymous(r.architecture) == wanted] if table else []
        reasons = [reason for record in records for reason in record.invalid_reasons]
        return reasons[0] if reasons else ""

    def ms(self, candidate: Candidate) -> tuple[float, float, float] | None:
        """(measured, low, high) in ms, the last two bounding the 95 % interval; None without a
        valid record."""
        record = self.record(candidate)
        if record is None:
            return None
        scale = self.tables[candidate.size].scale_ms
        return record.ratio * scale, record.low * scale, record.high * scale

    def unseen(self, candidates: Sequence[Candidate]) -> list[Prediction]:
        """Prediction for each of ``candidates`` by a model fitted to all other networks. If these
        are too few, the model fitted to all networks is used."""
        found = []
        for done, candidate in enumerate(candidates):
            self.progress("predicting the front", done, len(candidates))
            table = self.tables[candidate.size]
            others = tuple(
                r for r in table.records if anonymous(r.architecture) != candidate.key[0]
            )
            try:
                model = LatencyModel(dataclasses.replace(table, records=others))
            except DataError:
                model = self.model(candidate.size)
            found += model.predict([candidate.architecture])
        return found


def measure_group(item: dict[str, Any]) -> dict[str, Any]:
    """Task of a worker: make the files of a few networks and measure them.

    Returns ``table``, the text of the latency table, empty if no network was measured; and
    ``left_out``, name of each network left out -> why.
    """
    setting = from_fields(Setting, item["setting"], "setting")
    protocol = from_fields(Protocol, item["protocol"], "protocol")
    architectures = [Architecture.from_json(data) for data in item["architectures"]]
    left_out: dict[str, str] = {}
    with (
        scratch_folder() as folder,
        open_device(item["device"]) as device,
    ):
        try:
            table = measure(
                setting,
                architectures,
                device,
                folder,
                protocol=protocol,
                dropped=lambda a, why: left_out.update({a.name: why}),
            )
        except DeviceError:
            if any(a.name not in left_out for a in architectures):
                raise
            return {"table": "", "left_out": left_out}  # only these networks are at fault
    return {"table": table.to_text(), "left_out": left_out}
