"""``edgeface doctor``."""

from __future__ import annotations

from typing import Any

from edgeface.cli.flags import Format
from edgeface.cli.output import print_json, print_table, say

EPILOG = """Examples:

edgeface doctor

edgeface doctor --format json"""


def command(format: Format = "table") -> None:
    from edgeface.doctor import diagnose

    report = diagnose()
    if format == "json":
        print_json(report)
        return
    say(f"edgeface {report['edgeface']}, Python {report['python']}, {report['platform']}")
    print_table(("package", "version", "for", "get it with"),
                [(t["package"], t["version"] or "missing", t["for"], t["fix"] or "") for t in report["tools"]],
                right=("version",), fold=("for", "get it with"))
    backends = report["backends"]
    print_table(("target", "runtime", "version", *backends[0]["precisions"], "get it with"),
                [(b["target"], b["runtime"], b["version"] or "missing",
                  *("on" if state == "on" else "off" for state in b["precisions"].values()), b["fix"] or "")
                 for b in backends], right=("version", *backends[0]["precisions"]), fold=("get it with",))
    for reason, where in _reasons(backends).items():
        say(f"off: {', '.join(where)}: {reason}")
    say(f"models with weights: {', '.join(report['models_with_weights']) or 'none'}")


def _reasons(backends: list[dict[str, Any]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for row in backends:
        for precision, state in row["precisions"].items():
            if state != "on":
                reasons.setdefault(state, []).append(f"{row['target']} {precision}")
    return reasons
