"""URLs of devices. Their parts end up in argument lists or in a shell, so the checks are strict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qsl, urlsplit

from edgeface.errors import DeviceError


def quoted_path(path: str) -> str:
    """``path`` quoted for a shell; a leading ``~/`` keeps its meaning."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)


def without_options(url: str) -> str:
    """The URL of a device without its options, as in records and names of folders.

    Options may run commands, so they are accepted only from the command line.
    """
    return url.partition("?")[0]


def options_of(url: str) -> str:
    """The options of a device's URL, with the question mark; empty if it has none."""
    return "".join(url.partition("?")[1:])


def split_url(url: str, scheme: str, expected: str) -> SplitResult:
    """Parts of a URL with nothing but ``scheme``, authority and query.

    Raises DeviceError for any other URL, and if it holds unprintable characters.
    """
    try:
        parts = urlsplit(url)
        # isprintable: urlsplit would silently drop a line break.
        good = url.isprintable() and parts.port != 0
    except ValueError as error:
        raise DeviceError(f"{url!r}: {error}: {expected}") from None
    if not good or parts.scheme != scheme or parts.path not in ("", "/") or parts.fragment:
        raise DeviceError(f"{url!r} is not the URL of a device: {expected}")
    return parts


def query_options(url: str, query: str, known: Sequence[str]) -> dict[str, str]:
    """Option -> path, from the query of a device's URL.

    Raises DeviceError for an option that is not ``known`` and for a value that cannot be a path.
    """
    found = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    for name, value in found.items():
        if name not in known:
            raise DeviceError(f"{url!r}: unknown option {name!r} (known: {', '.join(known)})")
        if not value or not value.isprintable() or value.startswith("-"):
            raise DeviceError(f"{url!r}: {name} must be a path, got {value!r}")
    return found
