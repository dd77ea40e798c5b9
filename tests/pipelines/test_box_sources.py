"""Boxes of image files: which boxes are read, and which images are refused by name."""

from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest

from tests.conftest import encode, photo, write_folder
from vgg_keras.pipelines.box_sources import boxed_split, read_boxes_file
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import open_source

HEADER = "split,class,file,x_min,y_min,x_max,y_max\n"


@pytest.fixture
def boxed(tmp_path):
    """Writes class folders with nine images of 40 x 60 pixels a split.

    Returns a function that writes a file of their boxes and opens the folders.
    """
    rng, rows = np.random.default_rng(0), []
    for split in ("train", "val"):
        for name in ("blue", "green", "red"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                (folder / f"{i}.jpg").write_bytes(encode(photo(rng, 40, 60)))
                rows.append(f"{split},{name},{i}.jpg,6,4,29,19\n")

    def write(*changes, header=HEADER):
        """`changes` are pairs (row, text); an empty text removes the row."""
        text = dict(enumerate(rows)) | dict(changes)
        (tmp_path / "data/boxes.csv").write_text(header + "".join(text.values()))
        return open_source(f"folder:{tmp_path / 'data'}")

    return write


class TestBoxesFile:
    def test_coordinates_are_inclusive_pixel_indices(self, boxed):
        source = boxed((1, "train,blue,1.jpg,0,0,59,39\n"))
        found = boxed_split(source, source["train"])
        assert len(found.split) == len(found.boxes) == 9
        np.testing.assert_allclose(found.boxes[0], [[0.1, 0.1, 0.5, 0.5]])
        np.testing.assert_allclose(found.boxes[1], [[0, 0, 1, 1]])
        assert found.skipped == {}

    def test_boxes_belong_to_a_split_and_an_image_may_have_several(self, boxed):
        source = boxed((0, "val,blue,0.jpg,0,0,59,39\n"), (1, "train,blue,0.jpg,6,4,29,19\n" * 2))
        found = boxed_split(source, source["train"], skip_bad=True)
        assert [len(found.boxes[i]) for i in range(8)] == [2] + [1] * 7
        assert len(boxed_split(source, source["val"]).boxes[0]) == 2

    def test_the_class_column_may_be_named_wnid(self, boxed):
        source = boxed(header=HEADER.replace("class", "wnid"))
        assert len(boxed_split(source, source["val"]).boxes) == 9

    def test_a_file_of_another_name_must_be_given(self, boxed, tmp_path):
        source = boxed()
        shutil.move(tmp_path / "data/boxes.csv", tmp_path / "other.csv")
        with pytest.raises(SourceError, match=r"expected in .*boxes\.csv.*as boxes_file"):
            boxed_split(source, source["train"])
        assert len(boxed_split(source, source["train"], tmp_path / "other.csv").boxes) == 9

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-sig"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_files_of_spreadsheets_are_read(self, boxed, tmp_path, encoding, separator, newline):
        source, file = boxed(), tmp_path / "data/boxes.csv"
        text = file.read_text().replace(",", separator).replace("\n", newline)
        if encoding == "utf-16-be-sig":
            file.write_bytes(("\ufeff" + text).encode("utf-16-be"))
        else:
            file.write_bytes(text.encode(encoding))
        boxes = read_boxes_file(file, source["train"])
        assert boxes == [[[6, 4, 29, 19]]] * 9

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\xff\xfes\0p\0\0", "must be encoded in UTF-8 or UTF-16"),
            (
                (HEADER + "train,gr\xfcn,1.jpg,1,1,9,9\n").encode("latin-1"),
                "must be encoded in UTF",
            ),
            (HEADER.encode("utf-16-le"), "must have the columns"),
            ((HEADER + f"train,blue,{'1' * 200_000},1,1,9,9\n").encode(), "line 2, .*field limit"),
            ((HEADER + 'train,"blue,1.jpg,1,1,9,9\n').encode(), "line 2, .*unexpected end"),
            (b"", "must have the columns"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, boxed, tmp_path, content, message):
        source, file = boxed(), tmp_path / "data/boxes.csv"
        file.write_bytes(content)
        with pytest.raises(SourceError, match=rf"data/boxes\.csv.*{message}"):
            boxed_split(source, source["train"])

    def test_the_last_folder_named_like_the_class_counts(self, boxed, tmp_path):
        source = boxed((0, "train,blue,more/blue/0.jpg,0,0,59,39\n"))
        (tmp_path / "data/train/blue/more/blue").mkdir(parents=True)
        shutil.move(tmp_path / "data/train/blue/0.jpg", tmp_path / "data/train/blue/more/blue")
        source = open_source(source.spec)
        with pytest.raises(SourceError, match=r"more/blue/0\.jpg: it has no box"):
            boxed_split(source, source["train"])

    def test_names_are_matched_in_any_unicode_form(self, tmp_path):
        for form, split in (("NFC", "train"), ("NFD", "val")):
            folder = tmp_path / split / unicodedata.normalize(form, "grün")
            folder.mkdir(parents=True)
            file = folder / unicodedata.normalize(form, "é.jpg")
            file.write_bytes(encode(photo(np.random.default_rng(0), 40, 60)))
            other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "grün,é.jpg")
            with open(tmp_path / "boxes.csv", "a") as opened:
                opened.write(f"{HEADER if split == 'train' else ''}{split},{other},6,4,29,19\n")
        source = open_source(f"folder:{tmp_path}")
        for split in source.splits.values():
            np.testing.assert_allclose(boxed_split(source, split).boxes[0], [[0.1, 0.1, 0.5, 0.5]])

    def test_a_row_that_two_images_can_have_is_refused(self, boxed, tmp_path):
        source = boxed()
        for form in ("NFC", "NFD"):
            name = unicodedata.normalize(form, "é.jpg")
            shutil.copy(tmp_path / "data/train/blue/0.jpg", tmp_path / "data/train/blue" / name)
        source = open_source(source.spec)
        with open(tmp_path / "data/boxes.csv", "a") as opened:
            opened.write("train,blue,é.jpg,1,1,9,9\n")
        with pytest.raises(
            SourceError, match=r"several images can be: .*e\\u0301\.jpg.*\\xe9\.jpg"
        ):
            boxed_split(source, source["train"])

    def test_other_columns_are_refused(self, boxed):
        source = boxed(header="split,class,file,x,y,w,h\n")
        with pytest.raises(SourceError, match=r"must have the columns .*Received: 'split,class"):
            boxed_split(source, source["train"])


UNUSABLE = [
    ("", "it has no box"),
    ("{image},30,4,6,19\n", "ends before it begins: [30.0, 4.0, 6.0, 19.0]"),
    ("{image},6,19,29,4\n", "ends before it begins"),
    ("{image},6,4,90,19\n", "outside the 60 x 40 image: [6.0, 4.0, 90.0, 19.0]"),
    ("{image},-8,4,29,19\n", "outside the 60 x 40 image"),
    ("{image},6,4,nan,19\n", "not finite"),
    ("{image},6,4,inf,19\n", "not finite"),
    ("{image},6,4,,19\n", "not finite"),
    ("{image},6,four,29,19\n", "not finite"),
    ("{image},6\n", "not finite"),
    ("{image},6,4,29,19\n{image},9,9,2,2\n", "ends before it begins"),
]


@pytest.mark.parametrize("some", [UNUSABLE[:1], UNUSABLE[1:6], UNUSABLE[6:]])
def test_unusable_boxes_are_named_and_never_used(boxed, some):
    """Each of them is that of another image."""
    names = [f"{name}/{i}.jpg" for name in ("blue", "green") for i in range(3)][: len(some)]
    images = ["train," + name.replace("/", ",") for name in names]
    source = boxed(*((i, row.format(image=images[i])) for i, (row, _) in enumerate(some)))
    with pytest.raises(SourceError, match=rf"{len(some)} of the 9 .*blue/0\.jpg: .*skip") as error:
        boxed_split(source, source["train"])
    assert some[0][1] in str(error.value)
    found = boxed_split(source, source["train"], skip_bad=True)
    assert len(found.split) == len(found.boxes) == 9 - len(some)
    for (path, reason), name, (_, problem) in zip(found.skipped.items(), names, some, strict=True):
        assert path.endswith(name)
        assert problem in reason
    left = found.split.names_of(range(len(found.split)))
    assert not [name for name in names if any(path.endswith(name) for path in left)]
    assert np.isfinite(found.boxes.values).all()


def test_an_unreadable_image_is_named(boxed, tmp_path):
    source = boxed()
    (tmp_path / "data/train/green/2.jpg").write_bytes(b"not an image")
    with pytest.raises(SourceError, match=r"green/2\.jpg: the image cannot be read"):
        boxed_split(source, source["train"])


def test_a_split_without_a_usable_box_is_refused(boxed):
    source = boxed(*((i, "") for i in range(9)))
    with pytest.raises(SourceError, match=r"No image of .*train, has a usable box"):
        boxed_split(source, source["train"], skip_bad=True)


def test_boxes_of_the_shapes_are_those_of_the_drawings(shapes_dir):
    from vgg_keras.pipelines.sources.shapes import CLASSES, draw_example

    source = open_source("shapes", shapes_dir)
    found = boxed_split(source, source["val"])
    assert len(found.boxes) == len(found.split) == 40
    names = found.split.names_of(range(40))
    labels = found.split.all_labels()
    drawn = {
        tuple(np.float32(draw_example("val", i, CLASSES[i % len(CLASSES)])[1]).round(5)): i
        for i in range(20)
    }
    found_at = {tuple(box.round(5)): k for k, box in enumerate(found.boxes.values)}
    for box, i in drawn.items():
        assert labels[found_at[box]] == i % len(CLASSES)
    assert len(set(names)) == 40


def test_a_data_set_without_boxes_is_refused(tmp_path):
    source = open_source(write_folder(tmp_path / "data"))
    with pytest.raises(SourceError, match=r"The boxes are expected in .*boxes\.csv"):
        boxed_split(source, source["train"])


ANNOTATION = """<annotation><folder>val</folder><filename>NAME</filename>
<size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>n02</name><bndbox><xmin>6</xmin><ymin>4</ymin><xmax>29</xmax><ymax>19</ymax></bndbox>
</object><object><name>n01</name><pose>Unspecified</pose><bndbox><xmin>1</xmin><ymin>1</ymin>
<xmax>60</xmax><ymax>40</ymax></bndbox></object></annotation>"""


@pytest.fixture
def cls_loc(tmp_path):
    """Two classes in the layout of ILSVRC's archives; the last training image has no boxes."""
    rng = np.random.default_rng(0)
    names = ["train/n01/n01_1", "train/n02/n02_1", "train/n02/n02_2", "val/v_1", "val/v_2"]
    for i, name in enumerate(names):
        image = tmp_path / "Data/CLS-LOC" / f"{name}.JPEG"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(encode(photo(rng, 40, 60)))
        annotation = tmp_path / "Annotations/CLS-LOC" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        if i != 2:
            annotation.write_text(ANNOTATION)
    return tmp_path


class TestClsLoc:
    def test_images_with_annotations_are_read_with_their_classes(self, cls_loc):
        source = open_source(f"cls-loc:{cls_loc}")
        assert source.class_names == ("n01", "n02")
        assert source["train"].all_labels().tolist() == [0, 1]
        assert source["val"].all_labels().tolist() == [1, 1]  # the class of the first object

    def test_boxes_of_the_class_of_the_image_are_read_and_clipped(self, cls_loc):
        source = open_source(f"cls-loc:{cls_loc}")
        found = boxed_split(source, source["train"])
        np.testing.assert_allclose(found.boxes[0], [[1 / 60, 1 / 40, 1, 1]], atol=1e-6)
        np.testing.assert_allclose(found.boxes[1], [[0.1, 0.1, 0.5, 0.5]], atol=1e-6)

    def test_missing_and_broken_annotations_are_named(self, cls_loc):
        file = cls_loc / "Annotations/CLS-LOC/val/v_2.xml"
        file.write_text(ANNOTATION[:200])
        with pytest.raises(SourceError, match=r"v_2\.xml cannot be read"):
            open_source(f"cls-loc:{cls_loc}")
        file.unlink()
        with pytest.raises(SourceError, match=r"Annotations/CLS-LOC/val\..*1 of 2 .*, v_2\.JPEG"):
            open_source(f"cls-loc:{cls_loc}")
        shutil.rmtree(cls_loc / "Annotations/CLS-LOC/val")
        with pytest.raises(SourceError, match=r"needs the folder .*Annotations/CLS-LOC/val"):
            open_source(f"cls-loc:{cls_loc}")

    def test_hidden_files_are_ignored(self, cls_loc):
        for file in list(cls_loc.rglob("*.*")):
            file.with_name("._" + file.name).write_bytes(b"\0\5\x16\7")
        (cls_loc / "Data/CLS-LOC/val/.DS_Store").write_bytes(b"\0")
        source = open_source(f"cls-loc:{cls_loc}")
        assert [len(split) for split in source.splits.values()] == [2, 2]

    @pytest.mark.parametrize("sorted_too", [(), ("Annotations",)])
    def test_validation_images_may_be_in_class_folders(self, cls_loc, sorted_too):
        for kind in ("Data", *sorted_too):
            val = cls_loc / kind / "CLS-LOC/val"
            for file in list(val.iterdir()):
                folder = val / {"v_1": "n02", "v_2": "n01"}[file.stem]
                folder.mkdir()
                shutil.move(file, folder)
        (cls_loc / "Data/CLS-LOC/val/valprep.sh").write_text("mkdir n01")
        source = open_source(f"cls-loc:{cls_loc}")
        val = source["val"]
        assert val.ids_of([0, 1]) == [
            "Data/CLS-LOC/val/n01/v_2.JPEG",
            "Data/CLS-LOC/val/n02/v_1.JPEG",
        ]
        assert val.all_labels().tolist() == [0, 1]
        boxes = boxed_split(source, val).boxes
        np.testing.assert_allclose(boxes[0], [[1 / 60, 1 / 40, 1, 1]], atol=1e-6)  # that of n01

    @pytest.mark.parametrize("kind", ["Data", "Annotations"])
    @pytest.mark.parametrize("split", ["train", "val"])
    def test_a_folder_that_is_empty_or_packed_is_named(self, cls_loc, kind, split):
        folder = cls_loc / kind / "CLS-LOC" / split
        shutil.rmtree(folder)
        folder.mkdir()
        with pytest.raises(SourceError, match=rf"{kind}/CLS-LOC/{split} must hold .*: no file"):
            open_source(f"cls-loc:{cls_loc}")
        (folder / "n01.tar").write_bytes(b"")
        with pytest.raises(SourceError, match=rf"{kind}/CLS-LOC/{split} .*Unpack any.*: n01\.tar"):
            open_source(f"cls-loc:{cls_loc}")

    @pytest.mark.parametrize(
        ("encoding", "is_read"),
        [("latin-1", True), ("utf-16", True), ("cp1252", True), ("big5", False), ("x-no", False)],
    )
    def test_annotations_of_other_encodings_are_read_or_named(self, cls_loc, encoding, is_read):
        file = cls_loc / "Annotations/CLS-LOC/val/v_1.xml"
        text = f'<?xml version="1.0" encoding="{encoding}"?>{ANNOTATION.replace("NAME", "é")}'
        file.write_bytes(text.encode(encoding if is_read else "utf-8"))
        if is_read:
            assert open_source(f"cls-loc:{cls_loc}")["val"].all_labels().tolist() == [1, 1]
            return
        with pytest.raises(SourceError, match=r"v_1\.xml cannot be read"):
            open_source(f"cls-loc:{cls_loc}")
