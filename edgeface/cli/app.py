"""The verbs of ``edgeface``, by task. A verb's module is imported only when the verb is called."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from edgeface import __version__
from edgeface.backends import CHECKOUT_VERBS, load_verb
from edgeface.cli.output import say
from edgeface.cli.program import as_command, new_app


class Verb(NamedTuple):
    """One line of the help."""

    task: str
    summary: str


VERBS = {
    "detect": Verb("Use", "Find the faces in photos, folders, videos or a camera."),
    "demo": Verb("Use", "Serve a local web page that finds faces in the browser."),
    "models": Verb("Use", "List the networks with their size and cost."),
    "doctor": Verb("Use", "Show what is installed, what is missing and how to get it."),
    "export": Verb("Make", "Convert a network for a runtime and check it against torch."),
    "quantize": Verb("Make", "Make an INT8 file within an accuracy budget."),
    "train": Verb("Make", "Train a network on your photos or on WIDER FACE."),
    "weights average": Verb("Make", "Average the weights of runs that share one starting point."),
    "weights import": Verb("Make", "Convert published weights into a file for --model."),
    "eval": Verb("Measure", "Evaluate a model by the official WIDER FACE protocol."),
    "compare": Verb("Measure", "Find the first tensor at which two exports differ."),
    "bench": Verb("Measure", "Measure the latency of models, here or on a device."),
    "bench compare": Verb("Measure", "Show which models became slower or faster."),
    "device check": Verb("Measure", "Check that a device has all that benchmarks need."),
    "search": Verb("Find", "Search for accurate detectors that are fast on a device."),
    "score": Verb("Find", "Score a backbone without training it."),
    "autofem": Verb("Find", "Search for the neck operations of an ASFD network."),
}
TASKS = tuple(dict.fromkeys(verb.task for verb in VERBS.values()))


def load(name: str) -> Any:
    """The parser's command of a verb.

    Raises OptionError if the verb needs a checkout and there is none."""
    if name in CHECKOUT_VERBS:
        function = load_verb(name)
    else:
        function = importlib.import_module(f"edgeface.cli.{name.replace(' ', '_')}").command
    return as_command(function, VERBS[name].summary, sys.modules[function.__module__].EPILOG)


class _Verbs(TyperGroup):
    """Knows verbs of two words, such as ``bench compare`` beside ``bench``; lists all by task."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, name: str) -> Any:
        return load(name) if name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        pair = " ".join(args[:2])
        return super().resolve_command(ctx, [pair, *args[2:]] if pair in VERBS else args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for task in TASKS:
            with formatter.section(task):
                formatter.write_dl(
                    [(name, verb.summary) for name, verb in VERBS.items() if verb.task == task]
                )


def _version(wanted: bool) -> None:
    if wanted:
        say(f"edgeface {__version__}")
        raise typer.Exit


app = new_app(
    cls=_Verbs,
    no_args_is_help=True,
    help="Tiny face detectors for ARM and x86 CPUs: use, make, measure and find them.",
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
