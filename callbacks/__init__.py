"""Keras callbacks for any classifier.

`PlateauDecay` and `WarmStart` implement the paper's training recipe (§3.1). `Checkpoint`, `Journal`
and `Progress` save a run, record it and show it. `RaiseOnDivergence` and `WarnOfChance` report
training that fails. `OneTraining` joins several calls of `fit`.

    model.fit(..., callbacks=[PlateauDecay(), Checkpoint("runs/mine")])

The names are loaded on first use, so that importing this package does not import Keras.
"""

from typing import TYPE_CHECKING

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["Checkpoint"],
        "divergence": ["RaiseOnDivergence", "WarnOfChance"],
        "journal": ["Journal", "read_journal"],
        "plateau": ["PlateauDecay"],
        "progress": ["Progress"],
        "stages": ["OneTraining"],
        "warm_start": ["WarmStart", "read_layers"],
    },
)

if TYPE_CHECKING:  # the same names for type checkers and editors
    from vgg_keras.callbacks.checkpoint import Checkpoint as Checkpoint
    from vgg_keras.callbacks.divergence import RaiseOnDivergence as RaiseOnDivergence
    from vgg_keras.callbacks.divergence import WarnOfChance as WarnOfChance
    from vgg_keras.callbacks.journal import Journal as Journal
    from vgg_keras.callbacks.journal import read_journal as read_journal
    from vgg_keras.callbacks.plateau import PlateauDecay as PlateauDecay
    from vgg_keras.callbacks.progress import Progress as Progress
    from vgg_keras.callbacks.stages import OneTraining as OneTraining
    from vgg_keras.callbacks.warm_start import WarmStart as WarmStart
    from vgg_keras.callbacks.warm_start import read_layers as read_layers
