"""Images that a command is given: files, a folder, or data."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vgg_keras.pipelines.errors import ArgumentError


def check_images(names: Iterable[str], *, refuse_text: bool = True) -> None:
    """Refuses at once paths of images that a command could only fail on.

    Args:
        names: paths that the user gave.
        refuse_text: whether to refuse files of text, such as a list of images or a web page.

    Raises:
        ArgumentError: a path is empty, missing, or not a file of images. The message names it.
    """
    for name in names:
        if os.path.isdir(name):
            raise ArgumentError(
                f"Images must be given as files, those of a folder as {Path(name) / '*'}. "
                f"Received a folder: {name}"
            )
        if not os.path.exists(name):
            pattern = set(name) & set("*?[")
            what = "No file has a name of this form" if pattern else "There is no such file"
            raise ArgumentError(f"{what}: {name or repr(name)}")
        if not os.path.isfile(name):
            raise ArgumentError(f"Images must be regular files. Received: {name}")
        if refuse_text and _is_text(name):
            raise ArgumentError(
                f"Images must be JPEG, PNG, GIF or BMP files. Received: {name}, which is text"
            )


def is_folder(images: Sequence[str]) -> bool:
    """Whether a command for images was given one folder."""
    return len(images) == 1 and os.path.isdir(images[0])


def check_images_or_data(
    images: Sequence[str], data: str | None, *, refuse_text: bool = True
) -> None:
    """Refuses at once what is neither files of images nor one folder nor --data.

    Args:
        images, refuse_text: see `check_images`.
        data: the value of --data.
    """
    if bool(images) == bool(data):
        raise ArgumentError("Give either images or --data.")
    if not is_folder(images):
        check_images(images, refuse_text=refuse_text)


def _is_text(name: str) -> bool:
    with open(name, "rb") as file:
        start = file.read(512)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c.isspace() for c in text)
