"""Names of the files in the folder of a run or of a saved net."""

from __future__ import annotations

RECIPE = "recipe.json"  # makes a folder a run
NET = "net.json"  # makes a folder a saved net
STATISTICS = "statistics.json"
CLASSES = "classes.json"
ENVIRONMENT = "environment.json"
JOURNAL = "journal.jsonl"
BAD_IMAGES = "bad_images.json"
LOCK = ".lock"
BEST_WEIGHTS = "best.weights.h5"  # of both; as `vgg_keras.callbacks.Checkpoint` writes it
LAST_WEIGHTS = "last.weights.h5"
EVALUATION_CACHE = "evaluation"
LOCALISATION_CACHE = "localisation"
