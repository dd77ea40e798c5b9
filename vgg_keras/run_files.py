"""Names of the files in the folder of a run or of a saved net."""

from __future__ import annotations

from vgg_keras.callbacks.file_names import BEST_WEIGHTS as BEST_WEIGHTS  # a saved net has it too
from vgg_keras.callbacks.file_names import LAST_WEIGHTS as LAST_WEIGHTS

RECIPE = "recipe.json"  # makes a folder a run
NET = "net.json"  # makes a folder a saved net
STATISTICS = "statistics.json"
CLASSES = "classes.json"
ENVIRONMENT = "environment.json"
JOURNAL = "journal.jsonl"
BAD_IMAGES = "bad_images.json"
DATA = "data.json"
LOCK = ".lock"
EVALUATION_CACHE = "evaluation"
LOCALISATION_CACHE = "localisation"
