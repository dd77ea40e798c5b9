"""Keras callbacks for any classifier.

`PlateauDecay` and `WarmStart` are of the paper's recipe; `Checkpoint`, `Journal` and `Progress`
keep a run that can be killed, read and watched.
"""

from callbacks.checkpoint import Checkpoint
from callbacks.journal import Journal
from callbacks.plateau import PlateauDecay
from callbacks.progress import Progress
from callbacks.warm_start import WarmStart

__all__ = ["Checkpoint", "Journal", "PlateauDecay", "Progress", "WarmStart"]
