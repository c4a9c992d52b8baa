"""Files that the detectors of others open as their own: a Bundle's network, with outputs and
metadata as their API expects them.

    Bundle --adapter--> file --run it, compare with the heads of the Bundle--> Bundle for the API

:mod:`export.apis.opencv` supplies what differs for ``cv2.FaceDetectorYN``,
:mod:`export.apis.google` for MediaPipe and the TFLite Task Library; :mod:`export.apis.pipeline` is
the same for all.
"""

from __future__ import annotations

from export.apis.pipeline import adapt, check_api, export_for

__all__ = ["adapt", "check_api", "export_for"]
