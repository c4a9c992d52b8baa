"""``edgeface doctor``: what is installed, in which version, what is missing and how to get it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from edgeface import __version__
from edgeface.backends import BACKENDS, OPENCV, PRECISIONS
from edgeface.cli.flags import Format
from edgeface.cli.models import ready_json
from edgeface.cli.output import print_json, print_table, say

EPILOG = """Examples:

edgeface doctor

edgeface doctor --format json"""


TOOLS = (
    ("numpy", "", "everything"),
    (OPENCV[0], "", "everything"),
    ("typer", "cli", "the command line"),
    ("torch", "zoo", "running a model by name, training, exporting"),
    ("safetensors", "zoo", "reading weights"),
    ("scipy", "eval", "edgeface eval"),
    ("matplotlib", "eval", "plots"),
    *(
        (
            name,
            "export",
            "exporting and quantising to "
            + ", ".join(b.target for b in BACKENDS.values() if name in b.converters),
        )
        for name in dict.fromkeys(name for b in BACKENDS.values() for name in b.converters)
    ),
)
"""distribution, extra that installs it, what needs it"""


def command(format: Format = "table") -> None:
    report = diagnose()
    if format == "json":
        print_json(report)
        return
    say(f"edgeface {report['edgeface']}, Python {report['python']}, {report['platform']}")
    print_table(
        ("package", "version", "for", "get it with"),
        [
            (t["package"], t["version"] or "missing", t["for"], t["fix"] or "")
            for t in report["tools"]
        ],
        right=("version",),
        fold=("for", "get it with"),
    )
    backends = report["backends"]
    print_table(
        ("target", "runtime", "version", *backends[0]["precisions"], "get it with"),
        [
            (
                b["target"],
                b["runtime"],
                f"{b['version']}, too old"
                if b["version"] and b["fix"]
                else b["version"] or "missing",
                *("on" if state == "on" else "off" for state in b["precisions"].values()),
                b["fix"] or "",
            )
            for b in backends
        ],
        right=("version", *backends[0]["precisions"]),
        fold=("get it with",),
    )
    for reason, where in _reasons(backends).items():
        say(f"off: {', '.join(where)}: {reason}")
    say(f"models with weights: {', '.join(report['models_with_weights']) or 'none'}")
    _say_ready(report["ready"])


def _say_ready(files: list[dict[str, Any]]) -> None:
    """Print the ready files that run here, and what to install for the others."""
    say(f"ready files that run here: {', '.join(f['name'] for f in files if f['here']) or 'none'}")
    missing: dict[str, list[str]] = {}
    for file in files:
        if not file["here"]:
            missing.setdefault(file["fix"], []).append(file["name"])
    for fix, names in missing.items():
        say(f"{', '.join(names)}: {fix}")


def _reasons(backends: list[dict[str, Any]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for row in backends:
        for precision, state in row["precisions"].items():
            if state != "on":
                reasons.setdefault(state, []).append(f"{row['target']} {precision}")
    return reasons


def diagnose() -> dict[str, Any]:
    """Return a JSON-ready report: platform, tools, backends, models."""
    from edgeface import zoo

    tools = []
    for name, extra, purpose in TOOLS:
        version = _version(name)
        tools.append(
            {
                "package": name,
                "version": version,
                "for": purpose,
                "fix": None if version else _install(extra),
            }
        )
    backends = []
    for row in BACKENDS.values():
        found = row.installed()
        backends.append(
            {
                "target": row.target,
                "runtime": found[0] if found else row.distributions[0],
                "version": found[1] if found else None,
                "fix": None if row.usable() else _install(row.extra),
                "platforms": list(row.platforms),
                "here": _platform() in row.platforms,
                "precisions": {p: row.off.get(p, "on") for p in PRECISIONS},
            }
        )
    return {
        "edgeface": __version__,
        "python": platform.python_version(),
        "platform": _platform(),
        "tools": tools,
        "backends": backends,
        "models_with_weights": list(zoo.names()),
        "ready": [ready_json(file) for file in zoo.ready_files()],
    }


def _platform() -> str:
    """System and processor, such as ``Linux aarch64``, as the capability table names them."""
    return f"{platform.system().replace('Darwin', 'macOS')} {platform.machine()}"


def _version(distribution: str) -> str | None:
    names = OPENCV if distribution in OPENCV else (distribution,)
    installed = (next(iter(metadata.distributions(name=name)), None) for name in names)
    return next((found.version for found in installed if found), None)


def _install(extra: str) -> str:
    return f"pip install 'edgeface[{extra}]'" if extra else "pip install edgeface"
