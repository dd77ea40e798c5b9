"""Registers the layers of the nets with Keras as soon as Keras is imported.

So `import vgg_keras` is enough for `keras.models.load_model` to read a saved net, without importing
Keras itself. `wrapt.when_imported` does the same, but importing wrapt takes longer than all
of `vgg-keras --help`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

from vgg_keras.pipelines.errors import MissingPackageError

_MODULES = ("vgg_keras.layers", "vgg_keras.weight_decay")  # their decorators register the classes


def register_layers() -> None:
    """Registers the layers, now if Keras is imported already, or else when it is."""
    if "keras" in sys.modules:
        _import_modules()
    else:
        sys.meta_path.insert(0, _KerasFinder())


def _import_modules() -> None:
    for module in _MODULES:
        importlib.import_module(module)


class _KerasFinder(importlib.abc.MetaPathFinder):
    """Finds Keras with a loader that registers the layers afterwards.

    It stays until Keras is imported: others may look for Keras without importing it.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras" or self not in sys.meta_path:
            return None
        # Only the finders after this one: one that asks all finders again causes no recursion.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(self, spec.loader)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """The loader of Keras, after which the layers are registered.

    Raises:
        MissingPackageError: the package of Keras's backend is not installed.
    """

    def __init__(self, finder: _KerasFinder, loader: importlib.abc.Loader):
        self._finder = finder
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        module.__loader__ = spec.loader = self._loader
        try:
            self._loader.exec_module(module)
        except ModuleNotFoundError as error:
            # A keras.json that another project wrote can name a backend that is not installed.
            raise MissingPackageError(
                "Keras cannot import its backend. Set the environment variable KERAS_BACKEND, or "
                f'"backend" in keras.json, to "tensorflow" or "jax". Received: {error}'
            ) from error
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _import_modules()
