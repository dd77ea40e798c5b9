"""Validation images in no class folders: copies of ILSVRC and Tiny ImageNet as people have them."""

from __future__ import annotations

import logging

import pytest

from tests.pipelines.test_folders import ids, write
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.sources.label_files import LABEL_FILES

TRAIN = [f"train/n0{i}/n0{i}_{j}.JPEG" for i in (1, 2, 3) for j in (0, 1)]
# Labels 1, 2, 0, 1, so that neither order of the files is that of the labels.
LINES = {
    "val_annotations.txt": "a.JPEG\tn02\t0\t32\t44\t62\nb.JPEG\tn03\t0\t0\t9\t9\n"
    "c.JPEG\tn01\t0\t0\t9\t9\nd.JPEG\tn02\t0\t0\t9\t9\n",
    "LOC_val_solution.csv": "ImageId,PredictionString\nd,n02 85 1 499 272 \n"
    "b,n03 1 2 3 4 n03 5 6 7 8 \r\nc,n01 1 2 3 4\na,n02 1 2 3 4\n",
    "val.txt": "a.JPEG 1\nb.JPEG 2\nc.JPEG 0\nd.JPEG 1\n",
}
ORDERED = [("c", 0), ("a", 1), ("d", 1), ("b", 2)]


def write_data(root, folder="val", label_file=None, text="", train=TRAIN):
    """Writes class folders of train, and four images in no class folders; returns the data spec."""
    spec = write(root, *train, *(f"{folder}/{name}.JPEG" for name in "abcd"))
    if label_file:
        (root / label_file).write_text(text)
    return spec


def labels_of(split, prefix):
    names = [name.removeprefix(prefix).removesuffix(".JPEG") for name in ids(split)]
    return list(zip(names, split.all_labels().tolist(), strict=True))


class TestWhatIsRead:
    @pytest.mark.parametrize("place", ["", "val/"])
    @pytest.mark.parametrize("folder", ["val/", "val/images/"])
    @pytest.mark.parametrize("name", LINES)
    def test_the_classes_are_those_of_the_label_file(self, tmp_path, name, folder, place):
        source = open_source(write_data(tmp_path, folder, place + name, LINES[name]))
        assert source.class_names == ("n01", "n02", "n03")
        assert ids(source["train"]) == TRAIN
        assert labels_of(source["val"], folder) == ORDERED
        assert source["val"].class_names == source.class_names

    def test_the_order_is_that_of_class_folders(self, tmp_path):
        spec = write_data(tmp_path, "val", "val.txt", LINES["val.txt"])
        flat = open_source(spec)["val"]
        for name, label in ORDERED:
            folder = tmp_path / f"val/n0{label + 1}"
            folder.mkdir(exist_ok=True)
            (tmp_path / f"val/{name}.JPEG").rename(folder / f"{name}.JPEG")
        sorted_ = open_source(spec)["val"]  # val.txt is ignored: there are class folders
        assert [name[-6:] for name in ids(flat)] == [name[-6:] for name in ids(sorted_)]
        assert flat.all_labels().tolist() == sorted_.all_labels().tolist()

    def test_the_label_file_of_the_archive_of_kaggle_is_found(self, tmp_path):
        root = tmp_path / "ILSVRC/Data/CLS-LOC"
        spec = write_data(root, "val")
        (tmp_path / "LOC_val_solution.csv").write_text(LINES["LOC_val_solution.csv"])
        assert labels_of(open_source(spec)["val"], "val/") == ORDERED

    def test_tiny_imagenet_is_read_as_it_is_distributed(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="vgg_keras")
        train = [f"train/{name[6:9]}/images/{name[10:]}" for name in TRAIN]
        name = "val_annotations.txt"
        spec = write_data(tmp_path, "val/images", f"val/{name}", LINES[name], train)
        write(tmp_path, "test/images/test_0.JPEG")
        for i in (1, 2, 3):
            (tmp_path / f"train/n0{i}/n0{i}_boxes.txt").write_text("n01_0.JPEG\t0\t10\t63\t58\n")
        for _ in range(2):
            source = open_source(spec)
            assert ids(source["train"]) == train
            assert labels_of(source["val"], "val/images/") == ORDERED
            assert "ignored beside the class folders: n01/n01_boxes.txt, n02" in caplog.text
            for i in (1, 2, 3):  # many copies are without the boxes
                (tmp_path / f"train/n0{i}/n0{i}_boxes.txt").unlink(missing_ok=True)

    def test_names_of_classes_win_over_indices(self, tmp_path):
        train = [f"train/{name}/1.jpg" for name in ("1", "10", "2")]
        text = "a.JPEG 1\nb.JPEG 10\nc.JPEG 2\nd.JPEG 2\n"
        source = open_source(write_data(tmp_path, "val", "val.txt", text, train))
        assert labels_of(source["val"], "val/") == [("a", 0), ("b", 1), ("c", 2), ("d", 2)]

    def test_other_files_and_images_that_do_not_exist_are_named(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, logger="vgg_keras")
        text = "val/e e.JPEG 0\nf.JPEG 1\n" + LINES["val.txt"]
        spec = write_data(tmp_path, "val", "val/val.txt", text)
        write(tmp_path, "val/e e.JPEG", "val/README.md")
        assert labels_of(open_source(spec)["val"], "val/")[1] == ("e e", 0)
        assert "ignored, without a class: README.md\n" in caplog.text
        assert "val.txt names 1 images that do not exist" in caplog.text


class TestRefused:
    @pytest.mark.parametrize("folder", ["val", "val/images"])
    def test_no_label_file(self, tmp_path, folder):
        with pytest.raises(SourceError, match=f"holds no class folders.*{LABEL_FILES}.*It holds"):
            open_source(write_data(tmp_path, folder))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.JPEG\n", r"line 1, must have the name of an image and its class.*'a\.JPEG'"),
            ("a.JPEG 1\n\na.JPEG 2\n", r"one class for an image.*'a\.JPEG' in the lines 1 and 3"),
            ("a.JPEG 1\nb.JPEG 3\n", r"line 2: .*'b\.JPEG'.*from 0 to 2\. Received: '3'"),
            ("a.JPEG n01\nb.JPEG 0\n", r"line 2: .*Received: '0'"),
            ("a.JPEG 1\nb.JPEG 2\nc.JPEG 0\n", r"1 files without a class, d\.JPEG"),
            ("x.JPEG 1\n", r"4 files without a class, a\.JPEG"),
            ("", r"4 files without a class, a\.JPEG"),
        ],
    )
    def test_a_label_file_that_does_not_fit(self, tmp_path, text, message):
        with pytest.raises(SourceError, match=message):
            open_source(write_data(tmp_path, "val", "val.txt", text))

    def test_class_folders_of_folders_in_flat_class_folders(self, tmp_path):
        spec = write(tmp_path, "my-train/images/1.jpg", "my-test/images/1.jpg")
        with pytest.raises(SourceError, match="my-test holds only folders: images"):
            open_source(spec)

    def test_a_class_folder_that_holds_boxes_only(self, tmp_path):
        spec = write(tmp_path, *TRAIN, "train/n04/n04_boxes.txt")
        with pytest.raises(SourceError, match="n04 holds no images"):
            open_source(spec)
