"""Requirements that the probe of every runtime meets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeface.backends import export_targets
from edgeface.bundle import Bundle, write_bundle
from edgeface.errors import BundleError
from edgeface.probes import open_probe
from edgeface.runners import RunnerClosedError

pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture(scope="module", params=export_targets())
def bundle(request: pytest.FixtureRequest, exported: Callable[..., Bundle]) -> Bundle:
    return exported(request.param)


def test_values_are_the_callers(bundle: Bundle, image: Any) -> None:
    with open_probe(bundle) as probe:
        first = probe.run(image)
        kept = {name: value.copy() for name, value in first.items()}
        second = probe.run(255 - image)
        for name in first:
            np.testing.assert_array_equal(first[name], kept[name])
            second[name][:] = 0
        again = probe.run(image)
        assert all(np.array_equal(again[name], kept[name]) for name in kept)


def test_closed(bundle: Bundle, image: Any) -> None:
    with open_probe(bundle) as probe:
        probe.close()
    with pytest.raises(RunnerClosedError, match="the probe of edgeface-n is closed: open it again"):
        probe.run(image)


def test_a_damaged_file(bundle: Bundle, tmp_path: Path) -> None:
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files[bundle.manifest.primary] = files[bundle.manifest.primary][:-900]
    with pytest.raises(BundleError) as caught:
        open_probe(write_bundle(tmp_path / "b", bundle.manifest, files))
    assert "\n" not in str(caught.value)
