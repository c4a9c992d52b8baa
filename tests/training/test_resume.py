"""A run or branch goes on with the data and source run of its start, and with no others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_runs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgeface.cli import main
from edgeface.errors import OptionError
from edgeface.training import open_photos
from edgeface.training.dataset import Cache
from edgeface.training.log import LOG_FIELDS, Log
from edgeface.training.loop import Trainer
from edgeface.training.options import TrainOptions
from edgeface.training.resume import agree, refuse_others_files
from edgeface.training.start import branch_options

NET = small_runs.NET
SMALL = replace(small_runs.SMALL, samples=4)


@pytest.fixture(scope="module")
def cache(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return open_photos(photos, photos / "faces.csv", tmp_path_factory.mktemp("resume") / "cache")


def trained(cache: Cache, run: Path, options: TrainOptions = SMALL, **start: Any) -> Trainer:
    return small_runs.trained(cache, run, options, **start)


def config_of(run: Path) -> Any:
    with safe_open(str(run / "checkpoint.safetensors"), framework="pt") as file:
        return json.loads(file.metadata()["meta"])["config"]


def forget(run: Path, *names: str) -> None:
    """Remove dotted ``names`` from a checkpoint's config: earlier versions did not write them."""
    path = run / "checkpoint.safetensors"
    with safe_open(str(path), framework="pt") as file:
        meta = json.loads(file.metadata()["meta"])
    for name in names:
        *above, last = name.split(".")
        part = meta["config"]
        for key in above:
            part = part[key]
        del part[last]
    save_file(load_file(path), path, metadata={"meta": json.dumps(meta)})


@pytest.mark.parametrize("samples", ["4", "8"])  # a finished run and one with steps left
def test_a_run_does_not_go_on_with_other_boxes_or_photos(
    photos: Path, tmp_path: Path, samples: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, faces = tmp_path / "photos", tmp_path / "out", tmp_path / "faces.csv"
    shutil.copytree(photos, data)
    faces.write_text((photos / "faces.csv").read_text())

    def train(cache: str, samples: str = samples) -> tuple[int, str]:
        flags = f"--annotations {faces} --cache {tmp_path / cache} --samples {samples} --batch 2"
        sizes = "--size 64 --late-size 64 --no-compile --precision fp32"
        code = main(["train", "--data", str(data), "--out", str(out), *f"{flags} {sizes}".split()])
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    refused = (
        f"error: {out} was started with other photos, boxes or landmarks: choose another --out"
        " folder"
    )
    assert train("first", "4")[0] == 0
    weights = (out / "weights.safetensors").read_bytes()
    right = faces.read_text()
    faces.write_text(right.replace("0.png,172.0", "0.png,170.0"))
    assert faces.read_text() != right
    code, said = train("first")
    assert code == 2 and said.endswith("and for a run that has begun another --out")
    assert train("boxes") == (2, refused)
    faces.write_text(right)
    (data / "coffee.png").write_bytes((data / "3.png").read_bytes())
    assert train("photo") == (2, refused)
    assert (out / "weights.safetensors").read_bytes() == weights
    shutil.copyfile(photos / "coffee.png", data / "coffee.png")  # another file time, the same bytes
    assert train("first")[0] == train("second")[0] == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"architectures": ["Of another program"]}'),
        ("log.csv", "date,what\n2026-01-01,bought a camera\n"),
        ("weights.safetensors", "of somebody"),
    ],
)
def test_a_new_run_replaces_no_file_of_another_program(
    photos: Path, tmp_path: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "project"
    out.mkdir()
    (out / name).write_text(text)
    flags = "--samples 2 --batch 2 --size 64 --late-size 64 --no-compile --precision fp32"
    arguments = ["--data", photos, "--annotations", photos / "faces.csv", "--out", out]
    command = ["train", *map(str, arguments), *flags.split()]
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {out / name} is not of a training that can go on, and would be replaced: choose"
        " another --out folder, or move that file"
    )
    assert [path.name for path in out.iterdir()] == [name], "and nothing is begun"
    assert (out / name).read_text() == text


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    cache: Cache, tmp_path: Path
) -> None:
    trained(cache, tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    refuse_others_files(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(OptionError, match=r"log\.csv is not of a training"):
        refuse_others_files(tmp_path)


def test_a_run_of_before_does_not_say_its_data(cache: Cache, tmp_path: Path) -> None:
    other = replace(cache, data=dict.fromkeys(cache.data, "0" * 64))
    early = replace(cache, data={"sha256": cache.data["sha256"]})
    assert cache.data.keys() == {"sha256", "contents"}
    trained(cache, tmp_path / "run")
    with pytest.raises(OptionError, match="other photos, boxes or landmarks"):
        trained(other, tmp_path / "run")
    trained(early, tmp_path / "run", replace(SMALL, samples=6))  # early caches have no contents
    assert config_of(tmp_path / "run")["data"] == cache.data
    forget(tmp_path / "run", "data")
    trained(other, tmp_path / "run", replace(SMALL, samples=8))
    assert config_of(tmp_path / "run")["data"] == other.data


def test_a_branch_goes_on_as_one_of_its_own_run(cache: Cache, tmp_path: Path) -> None:
    run, other, branch = (tmp_path / name for name in ("run", "other", "branch"))
    trained(cache, run)
    trained(cache, other, replace(SMALL, seed=1))
    options = replace(branch_options(run, branch)[1], samples=2)
    trained(cache, branch, options, branch=run)
    longer = replace(options, samples=4)
    with pytest.raises(OptionError, match="it is a branch of another run: choose another --out"):
        trained(cache, branch, longer, branch=other)
    shutil.copytree(run, tmp_path / "moved")
    # sources: the run, now longer and with another rate; its copy; and its checkpoint file
    trained(cache, run, replace(SMALL, samples=6, decay_share=0.5))
    for source in (run, tmp_path / "moved", run / "checkpoint.safetensors"):
        trained(cache, branch, longer, branch=source)
    trained(cache, tmp_path / "younger", replace(SMALL, samples=2))
    with pytest.raises(OptionError, match="it is a branch of another run"):
        trained(cache, branch, longer, branch=tmp_path / "younger")
    trained(cache, branch, longer, branch=tmp_path / "gone")
    # branches of branches are told apart by the runs those branches began from
    trained(cache, tmp_path / "twin", options, branch=other)
    deeper = replace(branch_options(branch, tmp_path / "deeper")[1], samples=2)
    trained(cache, tmp_path / "deeper", deeper, branch=branch)
    trained(cache, tmp_path / "deeper", replace(deeper, samples=4), branch=branch)
    with pytest.raises(OptionError, match="it is a branch of another run"):
        trained(cache, tmp_path / "deeper", replace(deeper, samples=6), branch=tmp_path / "twin")


def test_a_branch_of_before_does_not_say_its_run(cache: Cache, tmp_path: Path) -> None:
    run, branch = tmp_path / "run", tmp_path / "branch"
    trained(cache, run)
    forget(run, "data", "landmarks", "options.precision", "options.late_near")
    options = replace(branch_options(run, branch)[1], samples=2, precision="fp32")
    trained(cache, branch, options, branch=run)
    trained(cache, run, replace(SMALL, samples=6))  # the checkpoint now says what was removed
    trained(cache, branch, replace(options, samples=4), branch=run)
    forget(branch, "branch.run")
    trained(cache, branch, replace(options, samples=6), branch=run)


def test_weights_that_were_deleted_are_written_again(cache: Cache, tmp_path: Path) -> None:
    weights = tmp_path / "run" / "weights.safetensors"
    trained(cache, tmp_path / "run")
    before = weights.read_bytes()
    weights.unlink()
    trained(cache, tmp_path / "run")
    assert weights.read_bytes() == before


def test_dicts_agree_as_far_as_both_say_something() -> None:
    assert agree({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 2, "e": 4}, "f": 5})
    assert not agree({"b": {"c": 2}}, {"b": {"c": 3}})
    assert not agree({"b": None}, {"b": {"c": 3}}) and agree(None, None)


def test_a_log_with_an_emptied_cell_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    row = "50,200,{},64,0.001,1,1,0,3,10,0.1\n"
    lines = (",".join(LOG_FIELDS) + "\n", row.format("0.5"), row.format(""))
    (tmp_path / "log.csv").write_text("".join(lines))
    log = Log(tmp_path, 50, 10, enabled=True)
    log.plot()
    assert log.path.read_text().splitlines() == [line.rstrip() for line in lines]
    assert (tmp_path / "curves.png").stat().st_size > 1000
