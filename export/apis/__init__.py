"""Adapts a Bundle's network to the detector APIs of other libraries, with the outputs and metadata
that they expect.

    Bundle --adapter--> file --run it, compare with the heads of the Bundle--> Bundle for the API

:mod:`export.apis.opencv` is the adapter for ``cv2.FaceDetectorYN``; :mod:`export.apis.google` has
those for MediaPipe and the TFLite Task Library. :mod:`export.apis.pipeline` is common to all.
"""

from __future__ import annotations

from export.apis.pipeline import adapt, check_api, export_for

__all__ = ["adapt", "check_api", "export_for"]
