"""Which networks a test runs on. Those that no list names are looked at without weights only."""

from __future__ import annotations

import re

from edgeface.architecture import ARCHITECTURES

NAMES = tuple(name for name in ARCHITECTURES if not re.fullmatch(r"asfd-d[2-6]", name))
"""all but the huge ones: 10 M parameters at most"""
LARGE = tuple(name for name in NAMES if "34g" in name or name == "asfd-d1")
"""take as long as all others together: for the slow suite"""
_OTHER_FORMS = re.compile(
    r"extd-(?!fpn-32-prelu|ssd-48-lrelu|fpn-64-relu)\S+|eresfd-(?!16)\S+"
    r"|asfd-d[1-6]|\w+-(?!0\.5g)\S+-kps(-bn)?"
)
ONE_OF_EACH = tuple(name for name in NAMES if not _OTHER_FORMS.fullmatch(name))
"""of EXTD three of 18, with each form, width and activation; of EResFD, ASFD and those with
landmarks the smallest"""
