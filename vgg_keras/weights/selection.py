"""Finds the layers of a net in a file, checks them, and reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vgg_keras.errors import WeightsError
from vgg_keras.nets import FC_NAMES, get_net
from vgg_keras.pipelines.checks import is_finite
from vgg_keras.weights.naming import (
    CONVENTIONS,
    PARTS,
    Kernel,
    Key,
    geometry,
    identify,
    kernels_of,
    sizes_of,
)
from vgg_keras.weights.preprocessing import PREPROCESSINGS, Preprocessing
from vgg_keras.weights.stored import Stored, StoredTensor

_BYTES = {"float16": 2, "float32": 4, "float64": 8, "bfloat16": 2}
_MOST_PROBLEMS = 6


class LayerReader:
    """Finds the layers of a net in a file, checks them, and reads them."""

    def __init__(self, path: Path, stored: Stored, net: str | None, partial: bool):
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
        self.family, best_match = found
        stored_net = stored.metadata.net
        if net and stored_net and net != stored_net and not partial:
            raise WeightsError(f"{path} holds net {stored_net}. Received: net={net!r}")
        self.net = get_net(net or stored_net or best_match.name)
        self.names = self.family.names(best_match)
        self.size = geometry(self.net, sizes_of(self.names, shapes))
        self.kernels: dict[str, Kernel] = {}
        self.left: dict[str, str] = {}

    def preprocessing(self, given: Preprocessing | None) -> Preprocessing:
        """The preprocessing as given, else as the file states it, else that of its family.

        Raises:
            WeightsError: none is given, and the file does not determine it.
        """
        if given is None and self.stored.ambiguity:
            raise WeightsError(
                f"{self.path} does not state the preprocessing of its net: "
                f"{self.stored.ambiguity}. Give the argument preprocessing: "
                f"{', '.join(PREPROCESSINGS)}."
            )
        family = PREPROCESSINGS[self.family.preprocessing]
        return given or self.stored.metadata.preprocessing or family

    def choose(self, kernels: Mapping[str, Kernel] | None) -> None:
        """Selects the layers to read and checks them.

        Raises:
            WeightsError: the file does not hold exactly the wanted layers, or with `partial` none
                of them.
        """
        present = {key for key, name in self.names.items() if name in self.stored.tensors}
        layers_present = {layer for layer, _ in present}
        if kernels is None:
            kernels = kernels_of(self.net, *self.size)
            if not layers_present & set(FC_NAMES):
                kernels = {k: v for k, v in kernels.items() if k not in FC_NAMES}
        if self.partial:
            kernels = {k: v for k, v in kernels.items() if k in layers_present}
        known = {self.names[key] for key in present if key[0] in kernels}
        surplus = [name for name in self.stored.tensors if name not in known]
        problems = {
            layer: problem
            for layer, kernel in kernels.items()
            if (problem := "; ".join(self._problems(layer, kernel)))
        }
        self.kernels = {k: v for k, v in kernels.items() if k not in problems}
        if self.partial:
            self.left = dict.fromkeys(surplus, "no wanted layer has this name") | problems
        elif problems or surplus:
            self._refuse([*problems.values(), *(f"{name} is surplus" for name in surplus)])
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
                    self.left[layer] = f"{self._both_names((layer, part))} holds NaN or Inf"
            if layer in self.left:
                del layers[layer]
                if not self.partial:
                    self._refuse([self.left[layer]])
        return layers

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
        advice = "With `partial`, only the layers that fit are read."
        if any(name.endswith("running_mean") for name in self.stored.tensors):
            advice = "It has batch normalisation, which the nets of the paper do not have."
        raise WeightsError(
            f"{self.path}, with the names of {self.family.name}, does not hold exactly net "
            f"{self.net.name}: {_listed(problems)}. {advice}"
        )


def _listed(problems: Iterable[str]) -> str:
    problems = list(problems)
    more = len(problems) - _MOST_PROBLEMS
    return "; ".join(problems[:_MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def declared_bytes(tensor: StoredTensor) -> int:
    """Size of a tensor according to its shape and dtype."""
    return math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 1)
