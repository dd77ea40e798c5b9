"""Memory of a training step under JAX, as XLA plans it, compared with that of the activations.

    python benchmarks/memory.py [--out FILE]

No step is run: XLA gives the memory that a compiled step needs in addition to its arguments
(weights, momentum, the batch). Activations are the outputs of all conv. layers and poolings, in
float32, which the backward pass needs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # compiles faster

import jax
import keras
import numpy as np
from measuring import machine, report

from vgg_keras import Recipe, vgg
from vgg_keras.forecast import activations
from vgg_keras.nets import get_net, weight_layers
from vgg_keras.tasks import compile_model

CASES = (("D", 1 / 8, 64, 8), ("D", 1 / 8, 64, 32), ("D", 1 / 8, 128, 8), ("E", 1 / 8, 64, 32))
STATE = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def planned(net: str, width: float, crop: int, batch_size: int) -> int:
    """Bytes that a step needs temporarily."""
    model = vgg(net, 1000, crop, width, classifier_activation=None)
    compile_model(model, Recipe())
    model.optimizer.build(model.trainable_variables)
    batch = np.zeros((batch_size, crop, crop, 3), "float32"), np.zeros(batch_size, "int64")
    model._symbolic_build(data_batch=batch)
    state = model._get_jax_state(**dict.fromkeys(STATE, True))
    compiled = jax.jit(model.train_step).lower(state, batch).compile()
    keras.utils.clear_session()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="JSON file for the results.")
    arguments = parser.parse_args()
    names = ("net", "width", "crop", "batch", "planned_mb", "activations_mb", "ratio")
    rows = []
    for case in CASES:
        net, width, crop, batch_size = case
        layers = weight_layers(get_net(net), 1000, crop, width)
        needed = planned(*case)
        stored = batch_size * 4 * activations(layers, crop, width)
        rows.append((*case, needed / 1e6, stored / 1e6, needed / stored))
    result = {"benchmark": "memory of a training step", **machine()}
    result["cases"] = [dict(zip(names, row, strict=True)) for row in rows]
    report(result, rows, names, arguments.out)


if __name__ == "__main__":
    main()
