"""Faces that keep their number from frame to frame."""

from __future__ import annotations

from edgeface.tracking.tracker import Tracker

__all__ = ["Tracker"]
