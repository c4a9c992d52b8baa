"""From head outputs to boxes: the project's only decoder and only NMS, in NumPy.

Runner outputs are float32 NHWC arrays: ``cls_s`` [1, H/s, W/s, A] logits and ``box_s`` [1, H/s,
W/s, 4A] distances left, top, right, bottom in strides. The native examples follow the same
HeadLayout, read from the manifest.

    anchor point of cell (row, col) at stride s:  ((col + offset) * s, (row + offset) * s) px

           col      col + 1
      row   +---------+            x1 = (col + offset - left)   * s
            |  top    |            y1 = (row + offset - top)    * s
            |   |     |            x2 = (col + offset + right)  * s
         left---*---right          y2 = (row + offset + bottom) * s
            |   |     |
            | bottom  |            * = anchor point, here with offset 0.5
    row + 1 +---------+

Networks of the S3FD family have a prior box around each anchor point instead, ``prior`` = (width,
height) in strides. ``box_s`` then holds x, y, w, h of the SSD coding (Liu et al., ECCV 2016,
section 2.2), in px at stride s:

    centre = anchor point + (x, y) * prior * s        size = prior * s * (exp(w), exp(h))

Networks with landmarks also have ``kps_s`` [1, H/s, W/s, 10A]: offsets x, y of five points from the
anchor point, in strides. The points are the eye on the left of the image, the eye on the right, the
nose, and the left and the right corner of the mouth.
"""

from edgeface.decode.candidates import Decoded, check_outputs, decode, decode_all
from edgeface.decode.layout import HeadLayout, head_layout
from edgeface.decode.suppression import DEFAULT_IOU, box_iou, mean_landmarks, nms

DEFAULT_SCORE = 0.5
TOP_K = 5000
"""largest number of candidates that enter NMS, best first: far more than any real scene has, it
limits the time spent on noise"""

__all__ = [
    "DEFAULT_IOU",
    "DEFAULT_SCORE",
    "TOP_K",
    "Decoded",
    "HeadLayout",
    "box_iou",
    "check_outputs",
    "decode",
    "decode_all",
    "head_layout",
    "mean_landmarks",
    "nms",
]
