"""Where the outputs of the networks lie: strides of the pyramid levels, in px of the input."""

from __future__ import annotations

STRIDES = (8, 16, 32)
S3FD_STRIDES = (4, 8, 16, 32, 64, 128)
SIZE_MULTIPLE_PX = 32
"""of width and height of an input"""
LANDMARKS = 5
"""points of a face, where there are any"""
