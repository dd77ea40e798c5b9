"""Tests an installed wheel beside modules with the names of our folders; run by `.ci/run`.

python wheel.py WHEEL
"""

import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SCRIPT = """
import callbacks, pipelines, saved_models
import numpy as np
from vgg_keras import Recipe, TrainedNet, evaluate, train
from vgg_keras.pipelines import open_source
assert callbacks.MINE and pipelines.MINE and saved_models.MINE
recipe = Recipe(data="shapes", crop_size=32, width=1 / 16, train_scale=32, batch_size=800, epochs=1)
net = TrainedNet.load(train(recipe, "run", data_dir="data"))
print(evaluate(net, open_source("shapes", "data"), protocol="centre").result())
"""


def main(wheel: str) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name.split("-")[0] for name in tops} == {"vgg_keras"}, tops  # and its .dist-info
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in ("callbacks.py", "saved_models.py", "pipelines/__init__.py", "script.py"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(SCRIPT if name == "script.py" else "MINE = True\n")
        os.execv(sys.executable, [sys.executable, "script.py"])


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
