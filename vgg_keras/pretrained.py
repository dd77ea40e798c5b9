"""Released weights by name, such as "imagenet:D": the table of releases, and their download."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vgg_keras.errors import WeightsError
from vgg_keras.nets import ALIASES

PREFIXES = ("imagenet", "keras", "torchvision")
NO_TOP = "-notop"  # ends the name of a release without FC layers


@dataclass(frozen=True)
class Release:
    """Released weights of a net: one row of the table.

    Attributes:
        name: name that no other release has, such as "keras:D" or "keras:D-notop".
        net: configuration of Table 1.
        url: address of the file.
        file_name: name of the file in the cache.
        digest: MD5 or SHA-256 of the file as hexadecimal digits; None if it is not published.
        megabytes: size of the file in units of 10^6 bytes.
        licence: licence of the weights.
        preprocessing: name of the preprocessing of the images in training, see
            `vgg_keras.weights.PREPROCESSINGS`.
        train_scale: S of training as a pair. It decides the default test scales.
        top1_error, top5_error: published errors on ILSVRC-2012 val in percent, if there are any.
        protocol: how the published errors were measured.
        num_classes, crop_size, width: size of the net.
    """

    name: str
    net: str
    url: str
    file_name: str
    digest: str | None
    megabytes: int
    licence: str
    preprocessing: str
    train_scale: tuple[int, int]
    top1_error: float | None = None
    top5_error: float | None = None
    protocol: str = ""
    num_classes: int = 1000
    crop_size: int = 224
    width: float = 1.0

    @property
    def names(self) -> set[str]:
        """All names of this release in lower case, also with "imagenet:" and the net's alias."""
        source, _, rest = self.name.partition(":")
        ending = rest.removeprefix(self.net)
        nets = {self.net, *(alias for alias, net in ALIASES.items() if net == self.net)}
        return {f"{p}:{net}{ending}".lower() for p in (source, "imagenet") for net in nets}

    @property
    def has_top(self) -> bool:
        """Whether the file has the FC layers."""
        return not self.name.endswith(NO_TOP)

    @property
    def path(self) -> Path:
        """Path of the file in the cache of Keras: `~/.keras/models`, or `$KERAS_HOME/models`.

        Like Keras, it is in `/tmp/.keras` if the home folder cannot be written.
        """
        home = Path.home()
        base = home if os.access(home, os.W_OK) else Path("/tmp")
        folder = Path(os.environ.get("KERAS_HOME") or base / ".keras")
        return folder / "models" / self.file_name


def _of_keras(
    net: str,
    file: str,
    digest: str,
    megabytes: int,
    top1_error: float | None = None,
    top5_error: float | None = None,
) -> Release:
    """A release of Keras Applications: the VGG team's weights, from the paper's nets.

    Addresses, file names and MD5 are those in `keras/src/applications/vgg16.py` and `vgg19.py`.
    Errors are those in the README of github.com/keras-team/keras-applications. The licence is
    that of www.robots.ox.ac.uk/~vgg/research/very_deep, as is S in [256; 512].
    """
    url = f"https://storage.googleapis.com/tensorflow/keras-applications/{file.split('_')[0]}"
    return Release(
        f"keras:{net}",
        net[0],
        f"{url}/{file}",
        file,
        digest,
        megabytes,
        "CC BY",
        "caffe",
        (256, 512),
        top1_error,
        top5_error,
        "" if top1_error is None else "central crop",
    )


def _of_torchvision(
    net: str,
    alias: str,
    commit: str,
    digest: str | None,
    megabytes: int,
    top1_accuracy: float,
    top5_accuracy: float,
) -> Release:
    """A release of torchvision, as safetensors files that timm made of it.

    Commits and SHA-256 are those of the repositories huggingface.co/timm/ALIAS.tv_in1k, and the
    licence is that of their model cards. The accuracies are those of torchvision's documentation,
    measured on a central crop of images that were rescaled to 256. Training took crops of random
    size and shape, which have no S; 256 stands for it.
    """
    repository = f"https://huggingface.co/timm/{alias}.tv_in1k"
    return Release(
        f"torchvision:{net}",
        net,
        f"{repository}/resolve/{commit}/model.safetensors",
        f"{alias}.tv_in1k.safetensors",
        digest,
        megabytes,
        "BSD-3-Clause",
        "torch",
        (256, 256),
        round(100 - top1_accuracy, 3),
        round(100 - top5_accuracy, 3),
        "central crop, Q = 256",
    )


# "imagenet:NET" is the first release of a net here.
RELEASES: tuple[Release, ...] = (
    _of_keras(
        "D",
        "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "64373286793e3c8b2b4e3219cbf3544b",
        553,
        28.732,
        9.950,
    ),
    _of_keras(
        f"D{NO_TOP}",
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "6d6bbae143d832006294945121d1f1fc",
        59,
    ),
    _of_keras(
        "E",
        "vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        "cbe5617147190e668d6c5d5026f83318",
        575,
        28.744,
        10.012,
    ),
    _of_keras(
        f"E{NO_TOP}",
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "253f8cb515780f3b799900260a226db6",
        80,
    ),
    _of_torchvision(
        "A",
        "vgg11",
        "38b46049b490ec2bdb6d4d32b8354c74977f3347",
        "682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
        531,
        69.020,
        88.628,
    ),
    _of_torchvision(
        "B",
        "vgg13",
        "398c5a92d29787ceca04d7b45c8a07efd8f934f7",
        None,  # no page that we know shows the SHA-256; the commit in the address fixes the file
        532,
        69.928,
        89.246,
    ),
    _of_torchvision(
        "D",
        "vgg16",
        "3394518cba29aee1ea82a49d971be90d2dd1dab7",
        "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
        553,
        71.592,
        90.382,
    ),
    _of_torchvision(
        "E",
        "vgg19",
        "128d4708565b3a414bcbb9bbad440b2fe37b9f18",
        "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
        575,
        72.376,
        90.876,
    ),
)


def find_release(name: str | os.PathLike) -> Release | None:
    """Returns the release with the given name; None for the path of a file or folder.

    Args:
        name: "imagenet:NET", "keras:NET" or "torchvision:NET", where NET is the name of a net or
            its alias in upper or lower case; or a path.

    Raises:
        WeightsError: no release has this name. The message lists the names.

    Example:
        >>> find_release("imagenet:vgg16").name
        'keras:D'
    """
    name = os.fspath(name)
    prefix, colon, _ = name.partition(":")
    if not colon or prefix not in PREFIXES:
        return None
    for release in RELEASES:
        if name.lower() in release.names:
            return release
    first = {f"imagenet:{release.net}": None for release in RELEASES}
    raise WeightsError(
        f"A released net must be one of {', '.join(sorted(first))}, "
        f"{', '.join(release.name for release in RELEASES)}. Received: {name}"
    )


def without_top(name: str) -> str:
    """Returns the name of the same release without FC layers if there is one, else `name`."""
    known = {known for release in RELEASES for known in release.names}
    return name + NO_TOP if f"{name}{NO_TOP}".lower() in known else name


def local_path(where: str | os.PathLike) -> Path:
    """Returns the path of a weights file; for a released net that of its file in the cache."""
    release = find_release(where)
    return release.path if release else Path(where)


def fetch(release: Release, name: str = "") -> Path:
    """Returns the path of a release's file; downloads it unless the cache of Keras has it.

    `keras.utils.get_file` downloads. Files that `keras.applications` downloaded are found. A file
    enters the cache only when it is complete and checked. Messages call the release `name`.

    Raises:
        WeightsError: the file cannot be downloaded, or is not the released one. The message gives
            the address, and the path at which to save the file by hand.

    Example:
        >>> fetch(find_release("imagenet:D")).name
        'vgg16_weights_tf_dim_ordering_tf_kernels.h5'
    """
    path = release.path
    if path.is_file() and _is_intact(release, path):
        return path
    with _downloaded(release, name or release.name) as file:
        if not _is_intact(release, file):
            what = f"has another hash than {release.digest}" if release.digest else "is not whole"
            raise WeightsError(f"The file that was downloaded {what}. {_by_hand(release)}")
        os.replace(file, path)
    return path


@contextlib.contextmanager
def _downloaded(release: Release, name: str) -> Iterator[Path]:
    """Downloads the file of a release into a temporary folder beside its place in the cache."""
    from keras.utils import get_file

    with contextlib.ExitStack() as stack:
        try:
            release.path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=release.path.parent))
            # What a command prints as a result goes to standard output, progress does not.
            with contextlib.redirect_stdout(sys.stderr):
                file = get_file(
                    release.file_name, release.url, cache_dir=folder, cache_subdir=folder
                )
        except Exception as error:  # `get_file` raises plain ones if there is no network
            reason = " ".join(str(error).split()) or type(error).__name__
            found = f"{release.path} is not the released file. " * release.path.exists()
            raise WeightsError(
                f"{found}{name} cannot be downloaded: {reason}. {_by_hand(release)}"
            ) from None  # the message has the reason
        yield Path(file)


def _by_hand(release: Release) -> str:
    return f"Download {release.url} by other means and save it as {release.path}"


def _is_intact(release: Release, file: Path) -> bool:
    """Whether a file is the released one; without a published hash, whether it is whole."""
    if release.digest is None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "numpy"):  # refuses a file whose size is not that in its header
                return True
        except SafetensorError:
            return False
    with open(file, "rb") as opened:
        algorithm = "md5" if len(release.digest) == 32 else "sha256"
        return hashlib.file_digest(opened, algorithm).hexdigest() == release.digest
