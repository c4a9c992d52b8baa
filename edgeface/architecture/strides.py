"""Strides of the pyramid levels that have outputs, in px of the input."""

from __future__ import annotations

STRIDES = (8, 16, 32)
S3FD_STRIDES = (4, 8, 16, 32, 64, 128)
SIZE_MULTIPLE_PX = 32
"""the width and height of an input are multiples of this"""
LANDMARKS = 5
"""landmarks per face, in networks that predict them"""
