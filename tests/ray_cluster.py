"""A real Ray cluster for tests: two nodes of one processor each, both on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STORE_BYTES = 80 << 20


@contextmanager
def two_machines(resources: Mapping[str, float]) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` whose second machine has ``resources``. Skips the test if Ray
    is not installed."""
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
    temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the path of a socket must be short
    environment = {
        "PYTHONPATH": str(Path(__file__).parent),
        "RAY_TMPDIR": temporary,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        made = utils.Cluster()
        try:
            made.add_node(num_cpus=1, object_store_memory=STORE_BYTES, include_dashboard=False)
            made.add_node(num_cpus=1, object_store_memory=STORE_BYTES, resources=dict(resources))
            yield made
        finally:
            made.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)
