"""The annotation reader: both formats, and one error line for each kind of mistake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeface.errors import DataError
from edgeface.images.annotated import AnnotatedImage, check_boxes
from edgeface.images.annotations import POINT_COLUMNS, read_annotations, read_wider
from edgeface.images.landmarks import with_landmarks

WIDER = """0--Parade/a.jpg
2
10 20 30 40 0 0 0 0 2 0\x20
50.5 60 5 6 1 1 0 1 0 0\x20
1--Shake/none.jpg
0
0 0 0 0 0 0 0 0 0 0\x20
1--Shake/b.jpg
1
1 2 3 4 0 0 0 0 0 0
"""


def write(folder: Path, text: str, name: str = "faces.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_wider_format(tmp_path: Path) -> None:
    images = read_annotations(write(tmp_path, WIDER))
    assert [image.path for image in images] == [
        "0--Parade/a.jpg",
        "1--Shake/none.jpg",
        "1--Shake/b.jpg",
    ]
    np.testing.assert_array_equal(
        images[0].boxes, np.array([[10, 20, 40, 60], [50.5, 60, 55.5, 66]], np.float32)
    )
    assert images[0].boxes.dtype == np.float32
    assert images[0].invalid.tolist() == [False, True]
    assert images[1].boxes.shape == (0, 4) and images[1].invalid.shape == (0,)
    assert images[2].boxes.tolist() == [[1, 2, 4, 6]]
    assert images[0].traits is not None and images[1].traits is not None
    assert images[0].traits.tolist() == [[0, 0, 0, 0, 2, 0], [1, 1, 0, 1, 0, 0]]
    assert images[1].traits.shape == (0, 6)


@pytest.mark.parametrize(
    "change",
    [
        ("\n", "\r\n"),
        ("0 0 0 0 0 0 0 0 0 0 \n", ""),
        ("1--Shake", "\n1--Shake"),
        ("0--P", "\ufeff0--P"),
    ],
)
def test_wider_variants_read_the_same(tmp_path: Path, change: tuple[str, str]) -> None:
    """Windows line ends, no all-zero line after count 0, blank lines, and a byte order mark.

    Some tools omit the all-zero line."""
    assert change[0] in WIDER
    plain, changed = (
        read_annotations(write(tmp_path, text)) for text in (WIDER, WIDER.replace(*change))
    )
    assert [image.path for image in plain] == [image.path for image in changed]
    assert [image.boxes.tolist() for image in plain] == [image.boxes.tolist() for image in changed]


def test_wider_faces_of_no_positive_size_are_invalid(tmp_path: Path) -> None:
    """The official training file has such faces."""
    text = "a.jpg\n3\n9 9 0 5 0 0 0 0 0 0\n656.2 88.8 -16.2 31.2 2 0 0 0 1 0\n1 1 2 2 0 0 0 0 0 0\n"
    (image,) = read_annotations(write(tmp_path, text))
    assert image.invalid.tolist() == [True, True, False]
    expected = [[9, 9, 9, 14], [640, 88.8, 656.2, 120], [1, 1, 3, 3]]
    np.testing.assert_allclose(image.boxes, np.array(expected), rtol=1e-6)


def test_plain_format(tmp_path: Path) -> None:
    text = (
        'image,x1,y1,x2,y2\nd/a.jpg,1,2,3.5,4\nempty.png,,,,\nalone.png\nd/a.jpg,5,6,7,8\n"a,'
        ' b.jpg",1,1,2,2\n'
    )
    images = read_annotations(write(tmp_path, text, "faces.csv"))
    assert [image.path for image in images] == ["d/a.jpg", "empty.png", "alone.png", "a, b.jpg"]
    assert images[0].boxes.tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert [image.boxes.shape for image in images[1:]] == [(0, 4), (0, 4), (1, 4)]
    assert not any(image.invalid.any() for image in images)


def test_plain_format_in_a_text_file_is_recognised(tmp_path: Path) -> None:
    (image,) = read_annotations(write(tmp_path, "a.jpg,1,2,3,4\n"))
    assert image.boxes.tolist() == [[1, 2, 3, 4]]


ROW = "1 2 3 4 0 0 0 0 0 0\n"
BAD_WIDER = {
    "count too large": (f"a.jpg\n3\n{ROW}{ROW}", "line 5", "after 2 of 3 faces"),
    "count too large, image follows": (f"a.jpg\n2\n{ROW}b.jpg\n1\n{ROW}", "line 4", "face 2 of 2"),
    "count too small": (f"a.jpg\n1\n{ROW}{ROW}", "line 4", "count above is too small"),
    "count too small, with fractions": (
        f"a.jpg\n1\n{ROW}50.5 60 5 6 0 0 0 0 0 0\n",
        "line 4",
        "count above is too small",
    ),
    "count negative": (f"a.jpg\n-1\n{ROW}", "line 2", "face count '-1'"),
    "count not whole": (f"a.jpg\n1.0\n{ROW}", "line 2", "face count '1.0'"),
    "count of thousands of digits": ("a.jpg\n" + "1" * 5000, "line 2", "face count '1111"),
    "count missing": (f"a.jpg\n{ROW}", "line 2", "face count '1 2 3 4"),
    "truncated after the name": (f"a.jpg\n1\n{ROW}b.jpg", "line 5", "file ends"),
    "truncated inside a face": ("a.jpg\n1\n1 2 3 4 0 0", "line 3", "6 fields"),
    "not a number": ("a.jpg\n1\n1 x 3 4 0 0 0 0 0 0\n", "line 3", "'x' is not a number"),
    "beyond float32": ("a.jpg\n1\n1 1 1e300 4 0 0 0 0 0 0\n", "line 3", "'1e300' is not a number"),
    "as Python groups digits": (
        "a.jpg\n1\n1_0 2 3 4 0 0 0 0 0 0\n",
        "line 3",
        "'1_0' is not a number",
    ),
    "not finite": ("a.jpg\n1\n1 nan 3 4 0 0 0 0 0 0\n", "line 3", "'nan' is not a number"),
    "twice the same image": (f"a.jpg\n1\n{ROW}a.jpg\n1\n{ROW}", "line 4", "second time"),
    "outside the folder": (f"../a.jpg\n1\n{ROW}", "line 1", "no image path"),
    "absolute": (f"/etc/a.jpg\n1\n{ROW}", "line 1", "no image path"),
    "empty file": ("\n\n", "faces.txt", "names no image"),
}
BAD_PLAIN = {
    "three numbers": ("a.jpg,1,2,3\n", "line 1", "4 fields"),
    "six fields": ("a.jpg,1,2,3,4,5\n", "line 1", "6 fields"),
    "one box value empty": ("a.jpg,1,2,3,4\nb.jpg,1,,3,4\n", "line 2", "'' is not a number"),
    "not a number": ("a.jpg,1,2,3,four\n", "line 1", "'four' is not a number"),
    "beyond float32": ("a.jpg,1,2,1e300,9\n", "line 1", "'1e300' is not a number"),
    "no size in float32": ("a.jpg,100.000001,2,100.000002,4\n", "line 1", "box of 0 x 2 px"),
    "infinite": ("a.jpg,1,2,3,inf\n", "line 1", "'inf' is not a number"),
    "negative size": ("image,x1,y1,x2,y2\na.jpg,10,2,3,4\n", "line 2", "box of -7 x 2 px"),
    "no size": ("a.jpg,1,2,1,4\n", "line 1", "box of 0 x 2 px"),
    "box without an image": (",1,2,3,4\n", "line 1", "no image path"),
    "outside the folder": ("d/../../a.jpg,1,2,3,4\n", "line 1", "no image path"),
    "header again": ("a.jpg,1,2,3,4\nimage,x1,y1,x2,y2\n", "line 2", "no image path"),
    "the same face with other landmarks": (
        "a.jpg,1,2,3,4\na.jpg,1,2,3,4,1,2,3,2,2,3,1,4,3,4\n",
        "line 2",
        "has this box of this image with other landmarks",
    ),
    "header alone": ("image,x1,y1,x2,y2\n", "faces.csv", "names no image"),
    "empty file": ("", "faces.csv", "names no image"),
}


@pytest.mark.parametrize(("text", "where", "what"), BAD_WIDER.values(), ids=BAD_WIDER)
def test_bad_wider_is_one_clear_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    check_refusal(write(tmp_path, text), where, what)


@pytest.mark.parametrize(("text", "where", "what"), BAD_PLAIN.values(), ids=BAD_PLAIN)
def test_bad_plain_is_one_clear_line(tmp_path: Path, text: str, where: str, what: str) -> None:
    check_refusal(write(tmp_path, text, "faces.csv"), where, what)


def check_refusal(path: Path, where: str, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert path.name in message and where in message and what in message and "accepted" in message
    assert "\n" not in message
    assert path.suffix == ".txt" or "face count" not in message  # a CSV has no face counts


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    for read in (read_annotations, read_wider):
        with pytest.raises(
            DataError, match=r"cannot read annotation file .*none\.txt: No such file"
        ):
            read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot read annotation file"):
        read_annotations(tmp_path)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"line 1: this is not UTF-8 text; .* saved as UTF-8"):
        read_annotations(binary)
    latin = tmp_path / "latin.csv"
    latin.write_bytes("a.jpg,1,2,3,4\nTür.jpg,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2: this is not UTF-8 text"):
        read_annotations(latin)


def test_a_face_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    """A face may be listed twice in merged files; counted twice, it would be missed once."""
    face, other = "a.jpg,1,2,30,40", "a.jpg,1,2,30,41"
    points = ",1,2,3,2,2,3,1,4,3,4"
    for text, count in (
        (f"{face}\n{other}\n./{face}.0\n", 2),
        (f"{face}{points}\n{face}{points}\n{face.replace('a', 'b')}\n", 1),
        (f"{face}\n{face}{',' * 10}\n", 1),
    ):
        first, *_ = read_annotations(write(tmp_path, text, "faces.csv"))
        assert len(first.boxes) == len(first.invalid) == count


def annotated(*boxes: list[float], invalid: bool = False) -> AnnotatedImage:
    table = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage("event/a.jpg", table, np.full(len(table), invalid))


def test_boxes_partly_outside_are_clipped() -> None:
    image = annotated([-5, -6, 10, 12], [90, 40, 120, 70], [1, 2, 3, 4])
    checked = check_boxes(image, 100, 50)
    assert checked.boxes.tolist() == [[0, 0, 10, 12], [90, 40, 100, 50], [1, 2, 3, 4]]
    assert checked.boxes.dtype == np.float32 and checked.path == image.path
    assert image.boxes[0].tolist() == [-5, -6, 10, 12], "the argument stays as it was"
    assert check_boxes(annotated(), 100, 50).boxes.shape == (0, 4)


@pytest.mark.parametrize("box", [[100, 0, 110, 9], [0, 50, 9, 60], [-9, 0, 0, 9], [0, -9, 9, 0]])
def test_a_box_wholly_outside_is_refused(box: list[float]) -> None:
    with pytest.raises(
        DataError, match=r"event/a\.jpg: box .* outside the image of 100x50 px; accepted"
    ):
        check_boxes(annotated([1, 1, 2, 2], box), 100, 50)
    assert len(check_boxes(annotated(box, invalid=True), 100, 50).boxes) == 1, (
        "invalid faces are not looked at"
    )


def test_the_given_files(shared: Path) -> None:
    split = shared / "wider" / "wider_face_split"
    images = read_annotations(split / "wider_face_train_bbx_gt.txt")
    assert (len(images), sum(len(image.boxes) for image in images)) == (3899, 66274)
    images = read_annotations(split / "wider_face_val_bbx_gt.txt")
    assert (len(images), sum(len(image.boxes) for image in images)) == (400, 4909)


POINTS = [[12, 15], [22, 15], [17, 21], [13, 26], [21, 26]]
LABELS = f"""# 0--Parade/a.jpg
10 20 30 40 {" ".join(f"{x} {y} 1" for x, y in POINTS)} 0.6
50.5 60 5 6 {"-1 " * 15}-1
# 1--Shake/none.jpg
"""
TABLE = f"""image,x1,y1,x2,y2,{",".join(POINT_COLUMNS)}
0--Parade/a.jpg,10,20,40,60,{",".join(f"{x},{y}" for x, y in POINTS)}
0--Parade/a.jpg,50.5,60,55.5,66,,,,,,,,,,
1--Shake/none.jpg{"," * 14}
"""


@pytest.mark.parametrize(("text", "name"), [(LABELS, "labels.txt"), (TABLE, "faces.csv")])
def test_landmarks_in_either_format(tmp_path: Path, text: str, name: str) -> None:
    first, none = read_annotations(write(tmp_path, text, name))
    assert (
        first.boxes.tolist() == [[10, 20, 40, 60], [50.5, 60, 55.5, 66]] and not first.invalid.any()
    )
    assert first.landmarks is not None and first.landmarks.dtype == np.float32
    assert first.landmarks[0].tolist() == POINTS and np.isnan(first.landmarks[1]).all()
    assert len(none.boxes) == 0


def test_landmarks_join_the_boxes_they_belong_to(tmp_path: Path) -> None:
    images = read_annotations(write(tmp_path, WIDER))
    joined = with_landmarks(images, write(tmp_path, LABELS, "labels.txt"))
    assert [image.path for image in joined] == [image.path for image in images]
    assert joined[0].landmarks is not None and joined[0].landmarks[0].tolist() == POINTS
    assert joined[2].landmarks is not None and np.isnan(joined[2].landmarks).all()
    assert joined[0].invalid.tolist() == [False, True], "what the annotations say of a face stays"


def test_landmarks_of_a_file_fill_in_where_the_annotations_have_none(tmp_path: Path) -> None:
    """The annotations' own landmarks stay, whatever the file has for their faces.

    It has others for one face, and does not name another face and a whole photo. A box that it
    fills in is half a pixel beside the annotated one, which is accepted."""
    own = [[x + 1, y + 1] for x, y in POINTS]
    flat = ",".join(f"{x},{y}" for x, y in own)
    faces = f"""a.jpg,10,20,40,60,{flat}
a.jpg,50,60,55,66,,,,,,,,,,
a.jpg,70,60,75,66,{flat}
a.jpg,80,60,85,66,,,,,,,,,,
b.jpg,1,2,30,40,{flat}
"""
    other = ",".join(f"{x},{y}" for x, y in POINTS)
    labels = f"a.jpg,50.5,60,55.5,66,{other}\na.jpg,10,20,40,60,{other}\n"
    images = read_annotations(write(tmp_path, faces, "faces.csv"))
    first, second = with_landmarks(images, write(tmp_path, labels, "labels.csv"))
    assert first.landmarks is not None and second.landmarks is not None
    assert first.landmarks[:3].tolist() == [own, POINTS, own]
    assert np.isnan(first.landmarks[3]).all()
    assert second.landmarks.tolist() == [own]
    assert images[0].landmarks is not None and np.isnan(images[0].landmarks[1]).all()
    empty = read_annotations(write(tmp_path, "a.jpg,,,,\n", "faces.csv"))
    with pytest.raises(DataError, match="2 of 2 boxes are not among the annotations"):
        with_landmarks(empty, tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("10 20 30 40", "10 20 33 40"),
            r"1 of 2 boxes are not among the annotations, the first: 0--Parade/a.jpg 10,20,43,60",
        ),
        (
            ("0--Parade", "9--Press"),
            r"2 of 2 boxes are not among the annotations, the first: 9--Press/a.jpg 10,20,40,60",
        ),
        ((" 0.6", ""), r"labels.txt, line 2: .* has 19 numbers; accepted: 20"),
        (("12 15 1", "12 x 1"), r"line 2: 'x' is not a number"),
        (("# 0--Parade/a.jpg\n", ""), r"line 1: "),
        (
            ("1--Shake/none.jpg", "0--Parade/a.jpg"),
            r"line 4: image 0--Parade/a.jpg appears a second time",
        ),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    images = read_annotations(write(tmp_path, WIDER))
    assert change[0] in LABELS
    with pytest.raises(DataError, match=says) as error:
        with_landmarks(images, write(tmp_path, LABELS.replace(*change, 1), "labels.txt"))
    assert "\n" not in str(error.value)


def test_each_image_knows_its_line(tmp_path: Path) -> None:
    plain = "image,x1,y1,x2,y2\na.jpg,1,2,30,40\nb.jpg,,,,\na.jpg,5,6,30,40\n"
    assert [i.line for i in read_annotations(write(tmp_path, plain, "faces.csv"))] == [2, 3]
    wider = "a/1.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n\nb/2.jpg\n0\n"
    assert [i.line for i in read_annotations(write(tmp_path, wider))] == [1, 5]
    assert [i.line for i in read_annotations(write(tmp_path, LABELS, "labels.txt"))] == [1, 4]


@pytest.mark.parametrize(
    "header", ["filename,xmin,ymin,xmax,ymax", "image,x,y,w,h", "image,x2,y2,x1,y1", "path,x1,y1"]
)
def test_another_header_is_told_the_one_that_is_expected(tmp_path: Path, header: str) -> None:
    text = f"{header}\na.jpg,1,2,30,40\n"
    with pytest.raises(DataError, match=r"line 1: the header .*; accepted: image,x1,y1,x2,y2"):
        read_annotations(write(tmp_path, text, "faces.csv"))


@pytest.mark.parametrize(
    ("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")]
)
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("file", ["faces.csv", "faces.txt"])
def test_another_separator_is_named(
    tmp_path: Path, separator: str, name: str, header: bool, file: str
) -> None:
    lines = ["image,x1,y1,x2,y2"] * header + ["a.jpg,1,2,30,40", "b.jpg,,,,"]
    text = "\n".join(lines).replace(",", separator)
    with pytest.raises(DataError, match=f"separated by {name}; accepted: commas, with the header"):
        read_annotations(write(tmp_path, text, file))


def test_a_file_without_landmarks_is_no_landmark_file(tmp_path: Path) -> None:
    path = write(tmp_path, WIDER)
    with pytest.raises(
        DataError, match="holds no landmarks; accepted: RetinaFace's labels, or a CSV with image,x1"
    ):
        with_landmarks(read_annotations(path), path)


@pytest.mark.parametrize("count", [9, 11])
def test_landmarks_are_ten_numbers(tmp_path: Path, count: int) -> None:
    text = f"a.jpg,1,2,30,40,{','.join(['5'] * count)}\n"
    with pytest.raises(
        DataError, match=rf"line 1: {count + 5} fields; accepted: .* five landmarks \(15 fields\)"
    ):
        read_annotations(write(tmp_path, text, "faces.csv"))


def test_landmarks_far_outside_the_image_are_refused(tmp_path: Path) -> None:
    points = np.array([POINTS], np.float32)
    image = replace(annotated([10, 20, 40, 60]), landmarks=points)
    points[0, 0] = (-15, 15)  # a face cut by the edge
    check_boxes(image, 100, 80)
    points[0, 0] = (-21, 15)
    with pytest.raises(
        DataError,
        match=r"landmarks of the face 10,20,40,60 lie outside the image of 100x80 px; accep",
    ):
        check_boxes(image, 100, 80)


def test_the_given_landmarks(shared: Path) -> None:
    wider = shared / "wider"
    images = with_landmarks(
        read_annotations(wider / "wider_face_split" / "wider_face_train_bbx_gt.txt"),
        wider / "landmarks" / "landmarks_train.txt",
    )
    points = np.concatenate([image.landmarks for image in images if image.landmarks is not None])
    assert (
        int(np.isfinite(points).all((1, 2)).sum()) == 25484
    )  # 25,485 rows, two of which have the same box
