"""URLs of devices: what is in them ends up in an argument list or in a shell, so that little is let
through."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, urlsplit

from edgeface.errors import DeviceError


def quoted_path(path: str) -> str:
    """For a shell; a leading ``~/`` keeps its meaning."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def without_options(url: str) -> str:
    """The URL of a device as records and folders name it: options may run commands, so that they
    are taken from the command line alone."""
    return url.partition("?")[0]


def split_url(url: str, scheme: str, expected: str) -> SplitResult:
    """Raises DeviceError for a URL with more than an authority and a query, and for one that is not
    plain text."""
    try:
        parts = urlsplit(url)
        good = (
            url.isprintable() and parts.port != 0
        )  # urlsplit would drop a line break without a word
    except ValueError as error:
        raise DeviceError(f"{url!r}: {error}: {expected}") from None
    if not good or parts.scheme != scheme or parts.path not in ("", "/") or parts.fragment:
        raise DeviceError(f"{url!r} is not the URL of a device: {expected}")
    return parts


def query_options(url: str, query: str, known: Sequence[str]) -> dict[str, str]:
    """Paths that the query of a device's URL names. Raises DeviceError for others than
    ``known``."""
    found = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    for name, value in found.items():
        if name not in known:
            raise DeviceError(f"{url!r}: unknown option {name!r} (known: {', '.join(known)})")
        if not value or not value.isprintable() or value.startswith("-"):
            raise DeviceError(f"{url!r}: {name} must be a path, got {value!r}")
    return found
