"""Nets as SavedModels: `export` writes one, `verify` compares it with the net.

```python
path = export(net, "exports/vgg16")
checks, load_seconds = verify(path, net)
```

The names are loaded on first use, so that importing this package does not import TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from vgg_keras.serving.export import export as export
    from vgg_keras.serving.localise import Localisers as Localisers
    from vgg_keras.serving.source import load_localisers as load_localisers
    from vgg_keras.serving.source import load_source as load_source
    from vgg_keras.serving.verify import Check as Check
    from vgg_keras.serving.verify import verify as verify

# `export` and `verify` are the functions, also after an import of the modules of that name:
# lazy_loader sees to it.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "export": ["export"],
        "localise": ["Localisers"],
        "source": ["load_localisers", "load_source"],
        "verify": ["Check", "verify"],
    },
)
