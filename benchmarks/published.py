"""Published accuracy, as printed in the papers and in their authors' READMEs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """AP on all WIDER FACE validation photos as its authors state it, 0 to 1."""

    easy: float
    medium: float
    hard: float
    source: str


DAMOFD = "DamoFD (Liu et al., ICLR 2023): long side 640"
SCRFD = "SCRFD (Guo et al., ICLR 2022), authors' README: long side 640"
EXTD = "EXTD (Yoo et al., arXiv 1906.06579), table 2: several sizes and a flip"
ERESFD = "EResFD (Jeong et al., WACV 2024), authors' README: several sizes and a flip"
ASFD = (
    "ASFD (Zhang et al., arXiv 2003.11228), table 4: one size; their networks, of which ours are a"
    " reading"
)
_AP: dict[str, tuple[str, dict[str, tuple[float, float, float]]]] = {
    "damofd-": (
        DAMOFD,
        {
            "0.5g": (0.9032, 0.8836, 0.7103),
            "2.5g": (0.9282, 0.9148, 0.7870),
            "10g": (0.9514, 0.9429, 0.8407),
            "34g": (0.9563, 0.9480, 0.8608),
            "0.5g-kps": (0.9041, 0.8845, 0.6997),
            "2.5g-kps": (0.9325, 0.9185, 0.7817),
            "10g-kps": (0.9542, 0.9435, 0.8394),
            "34g-kps": (0.9596, 0.9508, 0.8609),
        },
    ),
    "scrfd-": (
        SCRFD,
        {
            "0.5g": (0.9057, 0.8812, 0.6851),
            "1g": (0.9238, 0.9057, 0.7480),
            "2.5g": (0.9378, 0.9216, 0.7787),
            "10g": (0.9516, 0.9387, 0.8305),
            "34g": (0.9606, 0.9492, 0.8529),
            "0.5g-kps": (0.9097, 0.8844, 0.6949),
            "2.5g-kps": (0.9380, 0.9202, 0.7713),
            "10g-kps": (0.9540, 0.9401, 0.8280),
        },
    ),
    "extd-": (
        EXTD,
        {
            "ssd-32-relu": (0.791, 0.770, 0.629),
            "ssd-32-lrelu": (0.851, 0.836, 0.736),
            "ssd-32-prelu": (0.870, 0.855, 0.757),
            "fpn-32-relu": (0.741, 0.735, 0.642),
            "fpn-32-lrelu": (0.892, 0.884, 0.824),
            "fpn-32-prelu": (0.896, 0.885, 0.825),
            "ssd-48-relu": (0.868, 0.852, 0.742),
            "ssd-48-lrelu": (0.879, 0.860, 0.744),
            "ssd-48-prelu": (0.897, 0.879, 0.774),
            "fpn-48-relu": (0.894, 0.885, 0.825),
            "fpn-48-lrelu": (0.911, 0.901, 0.846),
            "fpn-48-prelu": (0.913, 0.904, 0.847),
            "ssd-64-relu": (0.887, 0.867, 0.752),
            "ssd-64-lrelu": (0.896, 0.878, 0.769),
            "ssd-64-prelu": (0.905, 0.888, 0.784),
            "fpn-64-relu": (0.910, 0.900, 0.844),
            "fpn-64-lrelu": (0.914, 0.906, 0.850),
            "fpn-64-prelu": (0.921, 0.911, 0.856),
        },
    ),
    "eresfd-": (ERESFD, {"16": (0.890, 0.879, 0.804)}),
    "asfd-": (
        ASFD,
        {
            "d0": (0.901, 0.875, 0.744),
            "d1": (0.933, 0.917, 0.820),
            "d2": (0.951, 0.937, 0.836),
            "d3": (0.953, 0.943, 0.848),
            "d4": (0.956, 0.945, 0.858),
            "d5": (0.957, 0.947, 0.859),
            "d6": (0.958, 0.947, 0.860),
        },
    ),
}
PUBLISHED = {
    prefix + name: Published(*ap, source)
    for prefix, (source, rows) in _AP.items()
    for name, ap in rows.items()
}
