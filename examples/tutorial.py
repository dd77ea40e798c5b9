# %% [markdown]
# # From a released net to your own net on a server
#
# This tutorial classifies a photo with a released net and shows where in the photo the answer comes
# from. Then it fine-tunes the net on ten classes, tests it as the paper does, exports it and asks a
# server. It takes a few minutes on a CPU.
#
# The notebook `examples/tutorial.ipynb` and the script `examples/tutorial.py` have the same steps:
#
# ```
# pip install . jupyterlab           # in a clone of this repository
# jupyter lab examples/tutorial.ipynb
# python examples/tutorial.py
# ```

# %%
import dataclasses
from importlib.resources import files
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from vgg_keras import RECIPES, TrainedNet, evaluate, export, train, verify
from vgg_keras.ilsvrc import label
from vgg_keras.pipelines import open_source, read_images
from vgg_keras.report.answers import draw_answers
from vgg_keras.report.figures import prediction_sheet, save_figure
from vgg_keras.report.maps import draw_predicted
from vgg_keras.saved_models.client import classify, connect
from vgg_keras.saved_models.errors import RequestError

tf.get_logger().setLevel("ERROR")  # without messages about the files of an export

# %% [markdown]
# ## Settings
#
# As they are, the settings suit a CPU. For your own images change `DATA` to
# `"folder:photos?val=0.1"`, a folder that has a folder of images for each class. With a GPU set
# `CROP_SIZE` to 224, `TRAIN_SCALE` to 256, `FC_EPOCHS` to 1 and `EPOCHS` to 10: after the first
# epoch all layers are trained.
#
# The stored outputs are those of one run without network, which took 402 seconds on two busy CPU
# cores (seed 0). Its `WEIGHTS` was a net with the VGG team's conv. layers, whose FC layers were
# trained on 300 images of ten of ILSVRC's classes (Imagenette). `imagenet:D` has 1,000 classes, so
# its answers to the photo are others, and the errors of the fine-tuned net differ too. In place of
# TensorFlow Serving the server of this project's tests answered, which has the same loader.

# %% tags=["parameters"]
WEIGHTS = "imagenet:D"  # the VGG team's net of 16 layers: 553 MB, downloaded on first use
PHOTO = files("sklearn.datasets.images") / "china.jpg"
DATA = "folder:pictures/shapes?val=0.25"  # drawn below; a quarter is held out for tests
CROP_SIZE, TRAIN_SCALE = 64, (64, 80)
FC_EPOCHS, EPOCHS = 6, 6  # trains only the FC layers
SERVER = "http://localhost:8501/v1/models/ten-classes"

# %% [markdown]
# ## Classify a photo
#
# This photo comes with scikit-learn. [danielbuechele][photo] took it; its licence is [CC BY 2.0][].
# Its smaller side is rescaled to the *test scale* Q. Here the answers of two scales are averaged.
#
# [photo]: https://www.flickr.com/photos/danielbuechele/6061409035
# [CC BY 2.0]: https://creativecommons.org/licenses/by/2.0/
#
# In the shell: `vgg-keras predict --weights imagenet:D photo.jpg --test-scales 256,384`


# %%
def print_top(class_names, probabilities):
    for name, probability in zip(class_names, probabilities, strict=True):
        print(f"{100 * probability:5.1f} %  {label(name)}")


net = TrainedNet.load(WEIGHTS)
predicted = net.predict(PHOTO, test_scales=(256, 384), verbose=0)
(classes,), (posteriors,) = predicted.top(3)
print_top([predicted.class_names[k] for k in classes], posteriors)

# %% [markdown]
# ## See the score map
#
# The net slides over the whole photo. At each position it gives a score for each class, and the
# answer is the average over this *class score map* (§3.2 of the paper). On the right are the crops
# that the paper's multi-crop test takes instead.
#
# In the shell: add `--score-maps pictures` to the command


# %%
def show(file):
    """The image file in a size that suits a notebook."""
    image = Image.open(file).convert("RGB")
    image.thumbnail((900, 900))
    return image


(score_map,) = draw_predicted(net, predicted, "pictures/score_maps")
show(score_map)

# %% [markdown]
# ## See Grad-CAM
#
# Grad-CAM weights the activations of the last conv. layer by the gradient of the score. It shows
# the pixels that speak for the class.
#
# In the shell: add `--pictures pictures --grad-cam` to the command

# %%
(grad_cam,) = draw_answers(net, predicted, "pictures/grad_cam", with_grad_cam=True)
show(grad_cam)

# %% [markdown]
# ## Put the images of ten classes into folders
#
# Shapes that this project draws stand for your own photos, 40 of each class: `shapes/arrow/9.jpg`,
# `shapes/circle/0.jpg` and so on. With your own `DATA` leave this cell out.

# %%
drawn = open_source("shapes")["val"]
labels = drawn.all_labels()
for i, image in read_images(drawn).items():
    file = Path("pictures/shapes", drawn.class_names[labels[i]], f"{i}.jpg")
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, quality=95)

# %%
data = open_source(DATA)
print({name: len(split) for name, split in data.splits.items()}, *data.class_names)

# %% [markdown]
# ## Fine-tune the net
#
# The recipe `fine-tune` takes all layers of the net that have the same shape here. The others start
# from random weights: the last layer, because there are other classes, and with crops of another
# size the first FC layer. *S*, the training scale, is the smaller side of the rescaled images from
# which the crops are taken; here it is drawn at random for each image.
#
# Run the cell again if it was interrupted: it continues after the last finished epoch.
#
# In the shell: `vgg-keras train --recipe fine-tune --init-from imagenet:D --data folder:photos
# --val-fraction 0.1 --out runs/ten-classes`

# %%
recipe = dataclasses.replace(
    RECIPES["fine-tune"],
    net=net.architecture.net,
    width=net.architecture.width,
    init_from=WEIGHTS,
    data=DATA,
    crop_size=CROP_SIZE,
    train_scale=TRAIN_SCALE,
    batch_size=16,
    fc_epochs=FC_EPOCHS,
    epochs=EPOCHS,
)
tuned = TrainedNet.load(train(recipe, "runs/ten-classes"))

# %% [markdown]
# ## Test as the paper does
#
# - *centre*: the net sees the central crop of each image. Most other projects report this.
# - *dense*: the net slides over the whole image, and over its mirror image.
#
# In the shell: `vgg-keras evaluate --run runs/ten-classes --data folder:photos --val-fraction 0.1`;
# `--multi-scale` averages the class probabilities at three test scales

# %%
for protocol in ("centre", "dense"):
    tested = evaluate(tuned, data, protocol=protocol, verbose=0)
    result = tested.result()
    print(
        f"{protocol:6}  Q = {result['test_scales'][0]}  top-1 error {result['top1_error']:.1f} %  "
        f"top-5 error {result['top5_error']:.1f} %  of {result['images']} images"
    )

# %% [markdown]
# Some of the images, with the three most probable classes:

# %%
indices = np.linspace(0, len(tested) - 1, 12).astype(int)
images = read_images(data["val"], indices)
sheet = prediction_sheet(
    [images[i] for i in indices],
    tested.posteriors[indices],
    tested.labels[indices],
    tested.class_names,
)
save_figure(sheet, "pictures/predictions.png")
show("pictures/predictions.png")

# %% [markdown]
# ## Export the net
#
# The export is a SavedModel for TensorFlow Serving. It takes image files as they are, and decodes,
# rescales and classifies them. `verify` loads it in another process, and compares the answers of
# each signature with those of the net.
#
# In the shell: `vgg-keras export --run runs/ten-classes --out exports/ten-classes` and `vgg-keras
# verify exports/ten-classes/1`

# %%
version = export(tuned, "exports/ten-classes")
checks, _ = verify(version, tuned, verbose=0)
for check in checks:
    verdict = "passed" if check.passed else "FAILED"
    print(f"{check.signature:16} {verdict}, greatest difference {check.difference:.0e}")

# %% [markdown]
# ## Ask a server
#
# Start a server in the folder that has `compose.yaml` and `exports/`:
#
# ```
# MODEL=ten-classes docker compose up -d
# ```
#
# The cell sends the first image of the sheet above.
#
# In the shell: `vgg-keras request --url http://localhost:8501/v1/models/ten-classes photo.jpg`

# %%
photo = Path("pictures/photo.jpg")
Image.fromarray(images[0]).save(photo, quality=95)
try:
    (answer,) = classify(connect(SERVER), [photo.read_bytes()])
    print_top(answer.class_names[:3], answer.probabilities[:3])
except RequestError as error:
    print(f"{error}\nStart a server, then run this cell again.")

# %% [markdown]
# The net itself gives the same answer:

# %%
predicted = tuned.predict(photo, verbose=0)
(classes,), (posteriors,) = predicted.top(3)
print_top([predicted.class_names[k] for k in classes], posteriors)

# %% [markdown]
# ## Go on
#
# - [Fine-tuning](../docs/fine_tuning.md): what the recipe does, and what it reaches on photos
# - [Your own data](../docs/own_data.md): arrays, files, TFRecords, data sets of TFDS
# - [Evaluating as the paper does](../docs/evaluation.md): protocols, fusion of nets, reports
# - [Serving](../docs/serving.md): signatures, batching, ONNX and LiteRT
