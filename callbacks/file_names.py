"""Names of the files in a run folder that callbacks write; importing them does not import Keras."""

BEST_WEIGHTS = "best.weights.h5"
LAST_WEIGHTS = "last.weights.h5"
