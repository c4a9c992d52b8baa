"""Options of the command line: those that several commands share, and those made of a dataclass.

A command takes options in one of two ways: as parameters of its own (``model: Model =
DEFAULT_MODEL``), or as one dataclass whose fields, with the text below each, are the options
(:func:`with_options`). ``search``, ``train`` and ``bench`` do both; the benchmarks have a dataclass
alone (:func:`program_of`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from edgeface.backends import BACKENDS
from edgeface.cli.program import as_command, new_app, run, stoppable
from edgeface.cli.terminal import Terminal
from edgeface.errors import OptionError
from edgeface.files import check_writable, refuse_input
from edgeface.options import MAX_THREADS, field_help
from edgeface.pages.figures import check_plot

DEFAULT_MODEL = "edgeface-n"
FORMATS = ("table", "json")
DEVICE_HELP = (
    "local, ssh://[user@]host[:port] or adb://serial; append ?python=PATH to choose the device's"
    " Python."
)
PLAIN = (int, float, str, bool, Path)
F = TypeVar("F", bound=Callable[..., Any])


def known_format(format: str, known: Sequence[str] = FORMATS) -> str:
    """``format``, if it is one of ``known``. Raises OptionError otherwise."""
    if format not in known:
        raise OptionError(f"unknown format {format!r} (known: {', '.join(known)})")
    return format


def _known_format(format: str) -> str:
    return known_format(format)


NETWORK_HELP = (
    "Network name (see `edgeface models`), a search result such as runs/pi/front.json#3, an"
    " Architecture in a .json file, or a .safetensors file that edgeface wrote."
)
Network = Annotated[str, typer.Option(help=NETWORK_HELP)]
Model = Annotated[
    str,
    typer.Option(
        help=(
            "Network name (runs its best ready file that works here; torch, if installed, before"
            " INT8); name of a ready file (see `edgeface models`); .safetensors file from `edgeface"
            " train` or `edgeface weights import`; or folder of an exported Bundle."
        )
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Your own weights for the network named by --model, a .safetensors file. Default:"
            " the shipped ones."
        )
    ),
]
Threads = Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="CPU threads for the runtime.")]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help=(
            "Allow lower-precision arithmetic where supported; a note says what changes."
            " Default: float32, the same boxes everywhere."
        ),
    ),
]
Format = Annotated[
    str, typer.Option(callback=_known_format, help="How the result is printed: table or json.")
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help=(
            "Face boxes: WIDER FACE text, or CSV with image,x1,y1,x2,y2. Default: the training"
            " list of WIDER FACE."
        )
    ),
]
Photos = Annotated[
    Path, typer.Option(help="WIDER FACE folder; with --annotations, any folder of photos.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for decoded photos, about 1.5 MB each. Default: OUT/cache."),
]
TorchDevice = Annotated[str, typer.Option(help="torch device: cpu or cuda.")]


def tell_fast(terminal: Terminal, runtime: str, fast: bool) -> None:
    """Tell the user what fast mode changes in ``runtime``."""
    if fast:
        package = runtime.partition(" ")[0]
        change = next((row.fast for row in BACKENDS.values() if package in row.distributions), "")
        terminal.note(f"fast mode: {change or f'{package} has none, nothing changes'}")


@dataclasses.dataclass(frozen=True)
class Argument:
    """Marks a dataclass field that is given by position.

    Used as ``Annotated[tuple[Path, ...], Argument("BUNDLE...")]``."""

    metavar: str


def with_options(cls: type, without: Sequence[str] = ()) -> Callable[[F], F]:
    """Give a command one option per plain field of the dataclass ``cls``.

    The docstring below a field is the option's help. The command receives all of them as one
    instance in its last parameter. without: fields that keep their default and become no options.
    """

    def decorate(command: F) -> F:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        fields = parameters_of(cls, without)

        @functools.wraps(command)
        def wrapped(**values: Any) -> Any:
            options = cls(**{p.name: _as_field(values.pop(p.name)) for p in fields})
            return command(**values, options=options)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + fields
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped  # type: ignore[return-value]

    return decorate


def given(ctx: typer.Context, options: Any) -> dict[str, Any]:
    """Name -> value of the fields of ``options`` that the command line names."""
    return {
        f.name: getattr(options, f.name)
        for f in dataclasses.fields(options)
        if is_given(ctx, f.name)
    }


def is_given(ctx: typer.Context, parameter: str) -> bool:
    """Does the command line name this parameter?"""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def parameters_of(cls: type, without: Sequence[str] = ()) -> list[inspect.Parameter]:
    """One parameter for each plain field of ``cls``, as Typer reads it."""
    texts, ranges = field_help(cls), getattr(cls, "ranges", {})
    for name in ranges.keys() & texts.keys():
        texts[name] = f"{texts[name].rstrip('.')}; {ranges[name]}"
    return [
        _parameter(
            f, get_type_hints(cls, include_extras=True)[f.name], _sentence(texts.get(f.name, ""))
        )
        for f in _plain_fields(cls)
        if f.name not in without
    ]


def _parameter(field: dataclasses.Field[Any], hint: Any, text: str) -> inspect.Parameter:
    required = field.default is dataclasses.MISSING
    default = inspect.Parameter.empty if required else _as_given(field.default)
    plain, several = _kind(hint)
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Argument)]
    if field.name == "format":
        info: Any = typer.Option(help=text, callback=_known_format)
    elif marks:
        info = typer.Argument(help=text, metavar=marks[0].metavar)
    else:
        switch = (
            [f"--{field.name.replace('_', '-')}"]
            if plain is bool and field.default is False
            else []
        )
        info = typer.Option(*switch, help=text, show_default="efault: " not in text)
    typed: Any = plain if required or default is not None else plain | None
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[list[plain] if several else typed, info],  # type: ignore[valid-type]
    )


def _sentence(text: str) -> str:
    """``text`` with a full stop, and with a capital unless it begins with a list of values."""
    text = text.replace("``", "`")
    begun = text if re.match(r"\S+(,| \(| or )", text) else text[:1].upper() + text[1:]
    return begun if not text or text.endswith(".") else begun + "."


def _plain_fields(cls: type) -> list[dataclasses.Field[Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return [f for f in dataclasses.fields(cls) if _kind(hints[f.name])[0] is not None]


def _kind(hint: Any) -> tuple[Any, bool]:
    """(type of one value, whether there may be several).

    (None, False) for a type that cannot be an option."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not types.NoneType)
    if get_origin(hint) is tuple and get_args(hint)[1:] == (Ellipsis,):
        return (get_args(hint)[0], True) if get_args(hint)[0] in PLAIN else (None, False)
    return (hint, False) if hint in PLAIN else (None, False)


def _as_given(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_field(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Work = Callable[[Any], int | None]
"""function of an instance of a dataclass of options that returns the exit code; None counts as 0"""
Main = Callable[..., int]
"""``main(arguments) -> exit code``; arguments: default those of the process"""
RESUMES = "results so far are kept: run the same command again to continue"


def program_of(cls: type, name: str, doc: str | None, work: Work, kept: str = "") -> Main:
    """The ``main`` of a module whose options are the fields of one dataclass.

    name: command that starts it, for its help. doc: the module's docstring; the first paragraph is
    the summary. kept: printed after Ctrl-C, says what is kept.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        command = as_command(_worker(cls, work, kept), *_help(doc))
        return run(command, name, _spread(arguments, cls))

    return main


def program_of_steps(
    steps: dict[str, tuple[type, Work]], name: str, doc: str | None, kept: str = ""
) -> Main:
    """The ``main`` of a module of several steps, each with a dataclass of options.

    The docstring of the dataclass is the step's summary; see :func:`program_of`."""

    def main(arguments: Sequence[str] | None = None) -> int:
        summary, rest = _help(doc)
        app = new_app(help=summary, epilog=rest, no_args_is_help=True)
        for step, (cls, work) in steps.items():
            app.command(step, help=cls.__doc__)(_worker(cls, work, kept))
        return run(app, name, _spread(arguments, *(cls for cls, _ in steps.values())))

    return main


def _worker(cls: type, work: Work, kept: str) -> Callable[..., int | None]:
    @with_options(cls)
    def command(options: Any) -> int | None:
        _check_places(options)
        with stoppable(kept):
            return work(options)

    return command


def _check_places(options: Any) -> None:
    """Check, before the work, that results can be written and replace no others.

    own_files: property of ``options``, the files that the command itself writes and reads again.
    Raises OutputError, OptionError."""
    from edgeface.bundle import MANIFEST

    written = {name: getattr(options, name, None) for name in ("save", "plot")}
    values = [v for name, v in vars(options).items() if name not in written]
    each = [x for value in values for x in (value if isinstance(value, tuple) else (value,))]
    inputs = [x for x in each if isinstance(x, (str, Path))]
    bundles = [x for x in inputs if os.path.isfile(f"{x}/{MANIFEST}")]  # noqa: PTH113
    inputs += [file for folder in bundles for file in Path(folder).iterdir()]
    own = {os.path.realpath(file) for file in getattr(options, "own_files", ())}
    for name, path in written.items():
        if path:
            refuse_input(path, inputs, f"--{name}")
        if path and os.path.realpath(path) in own:
            raise OptionError(
                f"--{name} {path} is a file in which this command keeps results: name another"
            )
    if written["save"]:
        check_writable(written["save"], "--save", folder=False)
    if written["plot"]:
        check_plot(written["plot"])


def _help(doc: str | None) -> tuple[str, str | None]:
    """(summary, the rest) of a docstring, without its markup."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", doc or "").replace("``", "`")
    summary, _, rest = text.partition("\n\n")
    return summary, rest.strip() or None


def _spread(arguments: Sequence[str] | None, *classes: type) -> list[str]:
    """Turn ``--kinds a b`` into ``--kinds a --kinds b``, for options that take several values."""
    several = {
        f"--{p.name.replace('_', '-')}"
        for cls in classes
        for p in parameters_of(cls)
        if get_origin(get_args(p.annotation)[0]) is list
    }
    found: list[str] = []
    option, values = "", 0
    for text in sys.argv[1:] if arguments is None else arguments:
        if text.startswith("--"):
            option, values = text if text in several else "", 0
        else:
            values += 1
            found += [option] * (bool(option) and values > 1)
        found.append(text)
    return found
