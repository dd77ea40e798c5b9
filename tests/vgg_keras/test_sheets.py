"""Sheets of images, and the figure of a sweep. Nothing here imports TensorFlow."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pytest

from vgg_keras.report.figures import prediction_sheet, save_figure, score_maps, themed_uri
from vgg_keras.report.sheets import DrawnBox, Section, Tile, image_sheet

WIDE, SQUARE, TALL = (np.zeros((*size, 3)) for size in ((30, 60), (40, 40), (60, 30)))


def placed(figure):
    """Left, top, right and bottom of each image in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    boxes = (panel.get_position() for panel in figure.axes)
    return [(b.x0 * width, (1 - b.y1) * height, b.x1 * width, (1 - b.y0) * height) for b in boxes]


def test_images_have_equal_heights_and_their_own_shape():
    figure = image_sheet([Section([Tile(i, ["a", "b"]) for i in (WIDE, SQUARE, TALL, WIDE)])])
    heights = [bottom - top for _, top, _, bottom in placed(figure)]
    widths = [right - left for left, _, right, _ in placed(figure)]
    np.testing.assert_allclose(heights, 1.6)
    np.testing.assert_allclose(widths, [3.2, 1.6, 0.8, 3.2])


def test_images_follow_each_other_in_rows_inside_the_figure():
    sections = [Section([Tile(WIDE, ["a"])] * 5, "first"), Section([Tile(TALL, ["b"])], "second")]
    figure = image_sheet(sections, width=7)
    boxes = placed(figure)
    assert [len(list(g)) for _, g in itertools.groupby(boxes, lambda box: round(box[1], 6))] == [
        2,
        2,
        1,
        1,
    ]
    width, height = figure.get_size_inches()
    assert all(left > 0 and right < width for left, _, right, _ in boxes)
    assert all(top > 0 and bottom < height for _, top, _, bottom in boxes)
    for (_, _, right, _), (left, _, _, _) in itertools.pairwise(boxes[:2]):
        assert left > right


def test_captions_stand_in_line_and_do_not_reach_the_next_image():
    name = "German short-haired pointer of an unusually long name"
    figure = image_sheet([Section([Tile(TALL, [name]), Tile(WIDE, ["cat"])])])
    figure.canvas.draw()
    width = figure.get_size_inches()[0]
    texts = [text for text in figure.texts if text.get_gid() == "caption"]
    first = [text for text in texts if text.get_text() != "cat"]
    assert " ".join(text.get_text() for text in first) == name
    assert {texts[-1].get_position()[1]} == {first[0].get_position()[1]}
    ends = [t.get_window_extent().x1 / figure.dpi for t in first]
    assert max(ends) < placed(figure)[1][0] < width


def test_boxes_are_on_their_pixels():
    (panel,) = image_sheet(
        [Section([Tile(WIDE, [], boxes=[DrawnBox([0.5, 0.0, 1.0, 1.0], "red", is_dashed=True)])])]
    ).axes
    (box,) = panel.patches
    np.testing.assert_allclose(box.get_bbox().extents, [29.5, -0.5, 59.5, 29.5])


def test_predictions_name_the_true_class_of_a_mistake():
    posteriors = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    figure = prediction_sheet([WIDE, TALL], posteriors, [0, 1], ("ape", "cat", "dog"), "title")
    texts = [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in figure.texts]
    assert texts == [
        "title",
        *("ape 70 %", "cat 20 %", "dog 10 %"),
        *("dog 60 %", "cat 30 %", "ape 10 %", "is: cat"),
    ]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a.JPG", b"\xff\xd8\xff"), ("a.svg", b"<?xml"), ("a", b"\x89PNG")],
)
def test_the_name_of_the_file_tells_its_format(name, start, tmp_path):
    save_figure(image_sheet([Section([Tile(SQUARE, [])])]), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_captions_are_readable_on_a_narrow_screen():
    """At a width of 500 pixels."""
    tiles = [Tile(image, ["cat 81 %"]) for image in (WIDE, SQUARE, TALL) * 4]
    figure = image_sheet([Section(tiles)])
    (size,) = {text.get_fontsize() for text in figure.texts}
    assert size / 72 * 500 / figure.get_figwidth() > 10


def test_only_text_and_axes_of_photos_follow_the_colour_scheme():
    maps = {64: np.array([[0.0, 1.0]])}
    origins = np.array([[0, 32], [0, 32]])
    figure = score_maps({64: np.full((64, 96, 3), 200)}, maps, 32, origins, "score of cat")
    uri = themed_uri(figure)
    svg = base64.b64decode(uri.partition(",")[2]).decode()
    assert "prefers-color-scheme: dark" in svg
    assert svg.count("currentColor") >= 4  # titles, label, ticks and frame of the colour bar
    assert "#1d2733" not in svg.replace("color: #1d2733", "", 1)
    assert "#000000" not in svg
    assert svg.count("<image") == 3  # the photo twice, and the map
    assert "#222222" in svg  # the crops, which are on a photo
    again = score_maps({64: np.full((64, 96, 3), 200)}, maps, 32, origins, "score of cat")
    assert themed_uri(again) == uri
