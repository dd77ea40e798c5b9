"""Kinds of data, one module each. `open_source` opens a data set by its spec."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

from vgg_keras.pipelines.errors import SourceError
from vgg_keras.pipelines.sources.held_out import hold_out, take_fraction
from vgg_keras.pipelines.splits import VALIDATION, Source

log = logging.getLogger(__name__)


class _Opener(NamedTuple):
    """How the data of one kind are named, and the function that opens them.

    The function is given as `module:name` below this package and is imported on first use: TFDS
    takes seconds to import.
    """

    form: str
    function: str


_OPENERS = {
    "shapes": _Opener("shapes", "tfds:open_shapes"),
    "folder": _Opener("folder:DIR", "folders:open_folder"),
    "tfds": _Opener("tfds:NAME[/CONFIG]", "tfds:open_tfds"),
    "tfrecord": _Opener("tfrecord:PATTERN", "shards:open_shards"),
    "parquet": _Opener("parquet:DIR", "shards:open_shards"),
    "webdataset": _Opener("webdataset:PATTERN", "shards:open_shards"),
    "cls-loc": _Opener("cls-loc:DIR", "cls_loc:open_cls_loc"),
    "caltech256": _Opener("caltech256:PATH", "caltech256:open_caltech256"),
    "voc-action": _Opener("voc-action:PATH", "voc_action:open_voc_action"),
}


# Kinds of files by their ending.
_ENDINGS = {".parquet": "parquet", ".tar": "webdataset", ".tfrecord": "tfrecord"}


def _meant(spec: str) -> str:
    """What a path without a kind, or a misspelt kind, most likely is; "" if nobody knows."""
    kind, colon, location = spec.partition(":")
    if not spec:
        return ""
    if near := difflib.get_close_matches(kind, _OPENERS, 1) if colon else []:
        return f"; it may be {near[0]}:{location}"
    path = Path(spec if os.path.exists(spec) else spec.partition("?")[0])
    kinds = {_ENDINGS[p.suffix] for p in (path, *path.glob("*")) if p.suffix in _ENDINGS}
    if not colon and path.exists():
        kinds |= {"folder"} if path.is_dir() and not kinds else set()
        named = " or ".join(f"{one}:{spec}" for one in sorted(kinds))
        return f"; it may be {named}" if kinds else ""
    if not colon and os.sep in spec:
        return f"; folder:{spec} would be a folder of images, but {spec} does not exist"
    return ""


def open_source(
    spec: str,
    data_dir: str | os.PathLike | None = None,
    *,
    prepare: bool = True,
    several_labels: bool = False,
) -> Source:
    """Opens a data set, and logs how many images it has.

    ```python
    data = open_source("folder:ilsvrc")
    len(data["train"]), data.class_names
    ```

    Args:
        spec: one of
            `shapes`, drawn shapes, which are made on first use;
            `folder:DIR`, with DIR/train/CLASS/* and DIR/val/CLASS/*, or with DIR/CLASS/* as a
            single split named `all`; DIR/val/* may have a label file in place of class folders;
            `tfds:NAME[/CONFIG]`, a TensorFlow data set, with `?image=FEATURE&label=FEATURE` if it
            has several images or labels;
            `tfrecord:PATTERN`, TFRecord files as TF-Slim's and Cloud TPU's ImageNet scripts write
            them; `parquet:DIR`, Hugging Face's image data sets; `webdataset:PATTERN`, tar archives
            of KEY.jpg with KEY.cls or KEY.json; each of them a folder, a file or a pattern;
            `cls-loc:DIR`, ILSVRC's images with object boxes;
            `caltech256:PATH` and `voc-action:PATH`, the archive of the data set or its folder.
            `?val=FRACTION` at its end holds this fraction of the images of each class out of the
            split `train` or `all`, as the split `val`. The same spec holds out the same images.
        data_dir: folder in which TFDS stores its data, and in which indexes of the images in files
            are cached; by default ~/tensorflow_datasets.
        prepare: whether TFDS may download or generate data that are missing.
        several_labels: whether to accept images with several labels, such as VOC's. The split's
            `all_labels` are then -1, and its `all_targets` hold the classes.

    Raises:
        SourceError: the data are missing or cannot be used.
    """
    kind, _, location = spec.partition(":")
    opener = _OPENERS.get(kind)
    if opener is None or bool(location) != (":" in opener.form):
        *forms, last = [each.form for each in _OPENERS.values()]
        raise SourceError(
            f"Data must be given as {', '.join(forms)} or {last}. Received: {spec!r}{_meant(spec)}"
        )
    location, fraction = take_fraction(spec, location)
    module, name = opener.function.split(":")
    open_kind = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    source = open_kind(
        spec, location, data_dir=data_dir, prepare=prepare, several_labels=several_labels
    )
    if fraction is not None:
        source = hold_out(source, fraction)
    elif VALIDATION not in source.splits:
        whole = f"{spec}{'&' if '?' in spec else '?'}val=0.1"
        hint = f'To hold a tenth of each class out as val, give data="{whole}". {source.advice}'
        source = dataclasses.replace(source, advice=hint)
    sizes = ", ".join(f"{len(split):,} in {name}" for name, split in source.splits.items())
    log.info("%s: %d classes; images: %s", spec, len(source.class_names), sizes)
    return source
