"""Lists of networks that tests run, and variants of networks. Networks in none of these lists are
tested only without weights."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from edgeface.architecture import ARCHITECTURES, Architecture

NAMES = tuple(name for name in ARCHITECTURES if not re.fullmatch(r"asfd-d[2-6]", name))
"""all networks of at most 10 M parameters"""
LARGE = tuple(name for name in NAMES if "34g" in name or name == "asfd-d1")
"""networks for the slow suite: they take as long as all others together"""
_OTHER_FORMS = re.compile(
    r"extd-(?!fpn-32-prelu|ssd-48-lrelu|fpn-64-relu)\S+|eresfd-(?!16)\S+"
    r"|asfd-d[1-6]|\w+-(?!0\.5g)\S+-kps(-bn)?"
)
ONE_OF_EACH = tuple(name for name in NAMES if not _OTHER_FORMS.fullmatch(name))
"""a shorter list: three of the 18 EXTD, which cover every form, width and activation, and only the
smallest EResFD, ASFD and networks with landmarks"""


def with_part(
    architecture: Architecture, part: str, name: str = "", /, **changes: Any
) -> Architecture:
    """The same network with some fields of its ``part`` (backbone, neck, head) changed, under
    another ``name`` if one is given."""
    spec: Any = dataclasses.replace(getattr(architecture, part), **changes)
    return dataclasses.replace(architecture, name=name or architecture.name, **{part: spec})
