"""A device needs only NumPy, OpenCV and one runtime: tests without the other packages."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from venvs import build_wheel, make_venv

from edgeface import zoo
from edgeface.backends import export_targets, get_backend
from edgeface.bundle import Bundle

ROOT = Path(__file__).parents[1]

HEAVY = (
    "PIL",
    "ai_edge_quantizer",
    "export",
    "jax",
    "litert_converter",
    "litert_torch",
    "matplotlib",
    "onnx",
    "onnxscript",
    "onnxsim",
    "quantize",
    "rich",
    "safetensors",
    "scipy",
    "skimage",
    "sklearn",
    "tensorflow",
    "torch",
    "torchvision",
    "tqdm",
    "transformers",
    "typer",
    "yaml",
)
"""packages that the project uses somewhere and that a device must not need"""

BLOCKER = textwrap.dedent(f"""
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {HEAVY!r}:
                text = f"No module named {{name!r}} (blocked by the test)"
                raise ModuleNotFoundError(text, name=name)

    sys.meta_path.insert(0, Blocker())
    """)

WITH_TORCH = ("models", "training", "search/autofem")
"""folders of edgeface that need torch; all others do without"""
WITH_EXTRAS = ("evaluation", "predict", "search", "search/trials")
"""folders whose modules may raise MissingExtraError when imported"""
ROOMS = sorted(
    {
        path.parent.relative_to(ROOT / "edgeface").as_posix()
        for path in ROOT.glob("edgeface/**/*.py")
    }
    - {*WITH_TORCH, "cli"}
)  # not cli: tests/cli checks its message without typer

IMPORT_ALL = textwrap.dedent("""
    import importlib
    for module in sys.argv[1:]:
        try:
            importlib.import_module(module)
        except Exception as error:
            if type(error).__name__ != "MissingExtraError":
                raise
            print(error)
    """)

DETECT = textwrap.dedent("""
    import sys
    import numpy as np
    from edgeface import Detector
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8)
    with Detector.open(sys.argv[1], score_threshold=0.0) as detector:
        print(len(detector.detect(image)) > 0)
    """)


def run_python(code: str, *arguments: str, python: str = sys.executable) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def modules_of(room: str) -> list[str]:
    """Import names of the modules in a folder of edgeface; "." is edgeface itself."""
    paths = [
        path.relative_to(ROOT).with_suffix("") for path in (ROOT / "edgeface" / room).glob("*.py")
    ]
    return [
        ".".join(path.parts).removesuffix(".__init__")
        for path in paths
        if path.name not in ("__main__", "cli")
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_without_torch_every_module_imports_or_names_its_extra(room: str) -> None:
    said = run_python(BLOCKER + IMPORT_ALL, *modules_of(room))
    assert all("pip install 'edgeface[" in line for line in said.splitlines())
    assert not said or room in WITH_EXTRAS


@pytest.mark.parametrize(
    "module", ["edgeface.latency.agent", "edgeface.latency.examine", "edgeface.latency.worker"]
)
def test_what_examines_a_bare_device_needs_the_standard_library_alone(module: str) -> None:
    assert (
        run_python(f"import sys, {module}; print('numpy' in sys.modules, 'cv2' in sys.modules)")
        == "False False"
    )


def test_import_edgeface_imports_next_to_nothing() -> None:
    code = (
        "import sys, edgeface; print(edgeface.__version__, 'numpy' in sys.modules, 'cv2' in"
        " sys.modules)"
    )
    assert run_python(code) == "0.1.0 False False"


def test_every_public_name_resolves() -> None:
    import edgeface

    assert set(edgeface.__all__) == set(dir(edgeface))
    for name in edgeface.__all__:
        assert getattr(edgeface, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        _ = edgeface.Detektor  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", export_targets())
def test_detection_with_one_runtime(target: str, exported: Callable[..., Bundle]) -> None:
    others = {p for t in export_targets() if t != target for p in get_backend(t).packages}
    blocker = BLOCKER.replace("('PIL'", f"({', '.join(map(repr, sorted(others)))}, 'PIL'")
    assert blocker != BLOCKER
    assert run_python(blocker + DETECT, str(exported(target).path)) == "True"


def test_weights_without_torch_say_what_to_do() -> None:
    """Without ``weights``, a name runs its ready file instead: see tests/zoo/test_ready.py."""
    code = BLOCKER + textwrap.dedent("""
        import sys
        from edgeface import Detector
        from edgeface.errors import EdgefaceError
        try:
            Detector.open("edgeface-n", weights=sys.argv[1])
        except EdgefaceError as error:
            print(error)
        """)
    weights = zoo.FOLDER / zoo.get_entry("edgeface-n").weights
    assert "edgeface[zoo]" in run_python(code, str(weights))


@pytest.mark.slow
@pytest.mark.parametrize("target", export_targets())
def test_fresh_environment(target: str, exported: Callable[..., Bundle], tmp_path: Path) -> None:
    """A real environment: pip installs the wheel with the target's extra, and nothing else."""
    bundle = exported(target)
    python = make_venv(tmp_path / "venv", f"{build_wheel(tmp_path)}[{target}]")
    for name in ("torch", "typer", "scipy", "onnx"):
        check = [str(python), "-c", f"import {name}"]
        assert subprocess.run(check, capture_output=True).returncode != 0, f"{name} came along"
    detect = [str(python), "-c", DETECT, str(bundle.path)]
    result = subprocess.run(detect, capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == "True", result.stderr
