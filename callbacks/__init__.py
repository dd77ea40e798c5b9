"""Keras callbacks for any classifier.

`PlateauDecay` and `WarmStart` are of the paper's recipe; `Checkpoint`, `Journal` and `Progress`
keep a run that can be killed, read and watched.
"""

from vgg_keras.callbacks.checkpoint import Checkpoint
from vgg_keras.callbacks.journal import Journal
from vgg_keras.callbacks.plateau import PlateauDecay
from vgg_keras.callbacks.progress import Progress
from vgg_keras.callbacks.warm_start import WarmStart

__all__ = ["Checkpoint", "Journal", "PlateauDecay", "Progress", "WarmStart"]
