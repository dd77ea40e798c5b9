"""Finds the layers of a net in a file, checks them, and reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, get_net
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.weights.identification import geometry, identify, sizes_of
from vgg_keras.weights.naming import CONVENTIONS, PARTS, Kernel, Key, kernels_of
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing
from vgg_keras.weights.stored import UNKNOWN_INPUT, Stored, StoredTensor

_BYTES = {"float16": 2, "float32": 4, "float64": 8, "bfloat16": 2}
_MOST_PROBLEMS = 6
_NOT_FINITE = "holds NaN or Inf"


class LayerReader:
    """Finds the layers of a net in a file, checks them, and reads them."""

    def __init__(
        self, path: Path, stored: Stored, net: str | None, partial: bool, head: str | None = None
    ):
        self.path, self.stored, self.partial = path, stored, partial
        shapes = {name: tensor.shape for name, tensor in stored.tensors.items()}
        found = identify(shapes)
        if found is None:
            families = ", ".join(family.name for family in CONVENTIONS)
            first = ", ".join(list(shapes)[:3]) or "none"
            raise WeightsError(
                f"{path} has no tensor with a name of {families} for a layer of these nets. Its "
                f"first names: {first}."
            )
        if found.others:
            raise WeightsError(
                f"{path} must hold one net. Received: nets with the prefixes "
                f"{', '.join(map(repr, (found.prefix, *found.others)))}"
            )
        self.family = found.family
        stored_net = stored.metadata.net
        if net and stored_net and net != stored_net and not partial:
            raise WeightsError(f"{path} holds net {stored_net}. Received: net={net!r}")
        self.net = get_net(net or stored_net or found.net.name)
        self.names = self.family.names(found.net, found.prefix)
        if head is not None:
            layer = self._layer_named(head, found.prefix)
            self.names = self.family.names(found.net, found.prefix, layer)
        self.size = geometry(self.net, sizes_of(self.names, shapes))
        self.kernels: dict[str, Kernel] = {}
        self.left: dict[str, str] = {}

    def preprocessing(
        self, given: Preprocessing | None, mean: tuple[float, float, float] | None = None
    ) -> tuple[Preprocessing, str]:
        """The preprocessing as given, else as the file states it, else as assumed.

        Args:
            given: the preprocessing.
            mean: its mean, also where the rest of it is not given.

        Returns:
            The preprocessing, and for which files it is assumed; empty if it is not.

        Raises:
            WeightsError: none is given, and the file does not determine it.
        """
        known = given or self.stored.metadata.preprocessing
        if known is None and self.stored.is_of_vgg:
            known, assumed_for = PREPROCESSINGS["rgb"], "" if mean else "models of vgg_keras"
        elif known is None:
            known, assumed_for = self._of_family(), f"files with the names of {self.family.name}"
        else:
            assumed_for = ""
        return (replace(known, mean=mean) if mean else known), assumed_for

    def _of_family(self) -> Preprocessing:
        if reason := self._reason_to_ask():
            raise WeightsError(
                f"{self.path} does not tell the preprocessing of its net's images: {reason}. Give "
                f"preprocessing=NAME, one of {', '.join(PREPROCESSINGS)}."
            )
        return PREPROCESSINGS[self.family.preprocessing]

    def _reason_to_ask(self) -> str:
        """Why the preprocessing cannot be inferred from the kind of file; empty if it can."""
        if self.stored.ambiguity:
            return self.stored.ambiguity
        if not re.search(self.family.assumed_for, self.path.name):
            return UNKNOWN_INPUT
        if self.has_own_head and not self.family.assumed_with_head:
            return "its FC layers are a head of its own"
        # Also FC layers that are not wanted tell it, so they are looked at here.
        biases = [t for layer in FC_NAMES if (t := self._tensor((layer, "bias")))]
        if biases and not any(t.dtype not in _BYTES or is_finite(_float32(t)) for t in biases):
            return "its FC layers hold no numbers, so that it is not the net of a classifier"
        return ""

    @property
    def has_own_head(self) -> bool:
        """Whether the file has other layers after the conv. layers than these nets have."""
        known = set(self.names.values())
        kernels = kernels_of(self.net, *self.size)
        surplus = {n for n, tensor in self.stored.tensors.items() if len(tensor.shape) > 1} - known
        misfits = [
            layer
            for layer in FC_NAMES
            if (tensor := self._tensor((layer, "kernel")))
            and not self.family.fits(tensor.shape, self.family.shapes(kernels[layer], True))
        ]
        return bool(surplus or misfits)

    def _layer_named(self, head: str, prefix: str) -> str:
        """The name of a layer in the file, which is given with or without the common prefix."""
        hidden = {self.names.get((layer, PARTS[0])) for layer in FC_NAMES[:2]}
        layers = [name for name in self._head_layers() if name + self.family.parts[0] not in hidden]
        for layer in (head, prefix + head):
            if layer in layers:
                return layer
        choices = ", ".join(layers[:_MOST_PROBLEMS]) or "no layers"
        raise WeightsError(f"{self.path}: head must be one of {choices}. Received: head={head!r}")

    def _head_layers(self) -> list[str]:
        """Names of the layers of the file that are not conv. layers of the net."""
        ending = self.family.parts[0]
        conv = {name for (layer, _), name in self.names.items() if layer not in FC_NAMES}
        names = [n for n in self.stored.tensors if n.endswith(ending) and n not in conv]
        return [name.removesuffix(ending) for name in names]

    def choose(self, kernels: Mapping[str, Kernel] | None) -> None:
        """Selects the layers to read and checks them.

        Raises:
            WeightsError: the file does not hold exactly the wanted layers, or with `partial` none
                of them.
        """
        present = {key for key, name in self.names.items() if name in self.stored.tensors}
        layers_present = {layer for layer, _ in present}
        is_of_file = kernels is None
        if kernels is None:
            kernels = kernels_of(self.net, *self.size)
            if not layers_present & set(FC_NAMES):
                kernels = {k: v for k, v in kernels.items() if k not in FC_NAMES}
        if self.partial:
            kernels = {k: v for k, v in kernels.items() if k in layers_present}
        known = {self.names[key] for key in present if key[0] in kernels}
        # Numbers without a shape are counters, as of steps or averaged weights.
        surplus = [
            n for n, tensor in self.stored.tensors.items() if tensor.shape and n not in known
        ]
        problems = {
            layer: problem
            for layer, kernel in kernels.items()
            if (problem := "; ".join(self._problems(layer, kernel)))
        }
        self.kernels = {k: v for k, v in kernels.items() if k not in problems}
        if self.partial:
            self.left = dict.fromkeys(surplus, "no wanted layer has this name") | problems
        elif problems or surplus:
            reasons = [*problems.values(), *(f"{name} is surplus" for name in surplus)]
            if is_of_file and self.has_own_head and set(problems) <= set(FC_NAMES):
                reasons = ["its FC layers are a head of its own"]
            self._refuse(reasons)
        if not self.kernels:
            reasons = [f"{name}: {reason}" for name, reason in self.left.items()]
            raise WeightsError(f"{self.path} has none of the wanted layers: {_listed(reasons)}.")

    def layers(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Reads the selected layers."""
        layers = {}
        for layer, kernel in self.kernels.items():
            # The kernel is read last and not kept: that of `fc1` has three quarters of all weights.
            bias = np.ascontiguousarray(self._take((layer, "bias")).reshape(-1), np.float32)
            layers[layer] = (
                self.family.to_ours(self._take((layer, "kernel")), kernel, layer in FC_NAMES),
                bias,
            )
            for part, array in zip(PARTS, layers[layer], strict=True):
                if not is_finite(array):
                    self.left[layer] = f"{self._both_names((layer, part))} {_NOT_FINITE}"
            if layer in self.left:
                del layers[layer]
                if not self.partial:
                    self._refuse([self.left[layer]])
        return layers

    def size_of(self, layers: Collection[str]) -> tuple[int, int, float]:
        """The number of classes, crop size and width, as far as these layers determine them."""
        num_classes, crop_size, width = self.size
        return (
            num_classes if FC_NAMES[-1] in layers else 1000,
            crop_size if FC_NAMES[0] in layers else 224,
            width,
        )

    def _take(self, key: Key) -> np.ndarray:
        return self.stored.tensors.pop(self.names[key]).read()

    def _tensor(self, key: Key) -> StoredTensor | None:
        return self.stored.tensors.get(self.names.get(key, ""))

    def _problems(self, layer: str, kernel: Kernel) -> Iterator[str]:
        """The reasons why a layer cannot be read."""
        allowed = {"kernel": self.family.shapes(kernel, layer in FC_NAMES), "bias": (kernel[-1:],)}
        for part, shapes in allowed.items():
            name, tensor = self._both_names((layer, part)), self._tensor((layer, part))
            if tensor is None:
                yield f"{name} is missing"
            elif not self.family.fits(tensor.shape, shapes):
                yield f"{name} must have shape {shapes[0]}, and has shape {tensor.shape}"
            elif tensor.dtype not in _BYTES:
                yield f"{name} must be float, and has dtype {tensor.dtype}"

    def _both_names(self, key: Key) -> str:
        """Name of a tensor in this package, with its name in the file if that is different."""
        ours, theirs = "/".join(key), self.names.get(key)
        return ours if theirs in (ours, None) else f"{ours} ({theirs})"

    def _refuse(self, problems: Sequence[str]) -> None:
        advice = "With partial=True, only the layers that fit are read."
        if any(name.endswith("running_mean") for name in self.stored.tensors):
            advice = "It has batch normalisation, which the nets of the paper do not have."
        elif self.has_own_head:
            others = ", ".join(self._head_layers()[:_MOST_PROBLEMS])
            advice = (
                f"Its conv. layers are read as net {self.net.name} at width {self.size[2]:g}, and "
                f"are followed by {others}. {advice} With head=NAME, another of these layers is "
                f"read as the last one."
            )
        raise WeightsError(
            f"{self.path}, with the names of {self.family.name}, does not hold exactly net "
            f"{self.net.name}: {_listed(problems)}. {advice}"
        )


def _listed(problems: Iterable[str]) -> str:
    problems = list(problems)
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _float32(tensor: StoredTensor) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.asarray(tensor.read(), np.float32)


def declared_bytes(tensor: StoredTensor) -> int:
    """Size of a tensor according to its shape and dtype."""
    return math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 1)
