"""Annotation files of PASCAL VOC and ILSVRC: XML with one `object` element for each object."""

from __future__ import annotations

from xml.etree import ElementTree

from vgg_keras.pipelines.box_sources import float_or_nan
from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.listing import text_of_path

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def annotated_objects(content: bytes, file: str) -> list[ElementTree.Element]:
    """The objects of an annotation file.

    Args:
        content: the file. Its encoding is that of its XML declaration.
        file: its path, for the message.

    Raises:
        SourceError: the file is not XML, or its encoding is unknown.
    """
    try:
        return ElementTree.fromstring(content).findall("object")
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: encodings
        raise SourceError(f"{text_of_path(file)} cannot be read: {error}") from error


def stated_box(annotated: ElementTree.Element) -> list[float]:
    """Edges of an object's box: x_min, y_min, x_max, y_max; NaN for what is not a number."""
    return [float_or_nan(annotated.findtext(f"bndbox/{edge}")) for edge in _EDGES]
