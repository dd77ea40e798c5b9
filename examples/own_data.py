"""Trains a net on images in memory with `model.fit`, then tests, exports and saves it.

    python examples/own_data.py

Then `vgg-keras evaluate --run nets/shapes --data shapes --multi-scale` prints the same errors.
"""

import keras
from keras.callbacks import EarlyStopping, ModelCheckpoint
from keras.optimizers import SGD

from vgg_keras import TrainedNet, evaluate, export, verify, vgg
from vgg_keras.pipelines import (
    Split,
    compute_statistics,
    open_source,
    read_images,
    steps_per_epoch,
    training_stream,
    validation_stream,
)

data = open_source("shapes")  # stands for your own uint8 arrays (H, W, 3), labels and class names
images, names = {s: list(read_images(data[s]).values()) for s in data.splits}, data.class_names

train, val = (Split.from_arrays(images[s], data[s].all_labels(), names) for s in ("train", "val"))
stats, steps = compute_statistics(train), steps_per_epoch(train, batch_size=32)
crops = training_stream(train, crop_size=64, train_scale=(64, 80), batch_size=32, statistics=stats)
val_crops = validation_stream(val, crop_size=64, test_scale=72, batch_size=32, mean=stats.mean)

model = vgg("A", num_classes=len(names), crop_size=64, width=0.125, dropout=0.2)
model.compile(SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
mine = [EarlyStopping(patience=3), ModelCheckpoint("best.keras", save_best_only=True)]
model.fit(crops, steps_per_epoch=steps, epochs=8, validation_data=val_crops, callbacks=mine)

best = keras.models.load_model("best.keras")
net = TrainedNet.of_model(best, mean=stats.mean, class_names=names, train_scale=(64, 80))
print(evaluate(net, val, protocol="dense", multi_scale=True).result())
assert all(check.passed for check in verify(export(net, "exports/shapes"), net)[0])
net.save("nets/shapes")
