"""Tracking: each face keeps its number from frame to frame."""

from __future__ import annotations

from edgeface.tracking.tracker import Tracker

__all__ = ["Tracker"]
