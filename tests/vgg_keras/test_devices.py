"""Several devices compute 'exactly the same as when training on a single GPU' (§3.3).

The computation is in float64, so that only rounding can differ.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import write_folder

# The script needs its own process: the CPU is divided into devices before TensorFlow starts.
SCRIPT = """
import json, sys
import keras, numpy as np
keras.config.set_dtype_policy("float64")
from vgg_keras.pipelines.evaluation import validation_stream
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.pipelines.training import training_stream
from vgg_keras.distribution import make_strategy
from vgg_keras.evaluation.posteriors import posteriors
from vgg_keras.evaluation.procedure import Procedure
from vgg_keras.models import vgg
from vgg_keras.recipes import Recipe
from vgg_keras.tasks import compile_with
from vgg_keras.trained import TrainedNet

several = make_strategy(4)
source = open_source(sys.argv[1])
def outcome(strategy):
    sizes = {"crop_size": 32, "batch_size": 8}
    with strategy.scope():
        keras.config.set_floatx("float32")  # `vgg` follows the dtype policy alone
        model = vgg("A", 3, 32, 1 / 16, dropout=0.0, classifier_activation=None)
        keras.config.set_floatx("float64")  # of the loss, the metrics and their averages
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        metrics = [keras.metrics.SparseCategoricalCrossentropy(name="c", from_logits=True)]
        compile_with(model, Recipe(learning_rate=1e-3), loss, metrics)
    assert model.get_layer("predictions").kernel.dtype == "float64"
    logs = model.fit(
        training_stream(source["train"], train_scale=(32, 40), statistics=ILSVRC, **sizes),
        steps_per_epoch=3, epochs=2, verbose=0, shuffle=False,
        validation_data=validation_stream(
            source["val"], test_scale=36, mean=ILSVRC.mean, fill_last=True, **sizes),
    ).history
    net = TrainedNet.of_model(model, mean=ILSVRC.mean)
    passes = Procedure("dense", 40).passes(net) + Procedure("multi-crop", 36).passes(net)
    rows = posteriors(net, source["val"], passes, batch_size=4)
    return logs, model.get_weights(), rows

logs, weights, rows = outcome(make_strategy(1))
logs4, weights4, rows4 = outcome(several)
print(json.dumps({
    "devices": several.num_replicas_in_sync,
    "loss": logs["loss"],
    "logs": max(np.abs(np.subtract(logs4[k], logs[k])).max() for k in logs),
    "weights": max(np.abs(a - b).max() for a, b in zip(weights, weights4)),
    "posteriors": float(np.abs(rows4 - rows).max()),
    "spread": float(rows.std()),
}))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    # The 15 validation images make batches of 8 and 7.
    data = write_folder(tmp_path_factory.mktemp("data"), train=9, val=5)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, data],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_training_on_four_devices_equals_training_on_one(found):
    assert found["devices"] == 4
    assert found["loss"][0] != found["loss"][1]
    assert found["logs"] < 1e-12
    assert found["weights"] < 1e-14


def test_evaluation_on_four_devices_equals_evaluation_on_one(found):
    """Some batches have a single image, so that some devices have no work."""
    assert found["spread"] > 0
    assert found["posteriors"] < 1e-7  # rows are stored in float32
