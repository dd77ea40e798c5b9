"""Images in memory -> a net trained by `model.fit` -> tested as in the paper, exported and saved.

    python examples/own_data.py

`vgg-keras evaluate --run nets/shapes --data shapes --multi-scale` then prints the same errors.
"""

import keras

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

data = open_source("shapes")  # stands for your own: uint8 arrays (H, W, 3), labels, class names
splits = {
    name: Split.from_arrays(list(read_images(split).values()), split.all_labels(), data.class_names)
    for name, split in data.splits.items()
}
colours = compute_statistics(splits["train"])
crops = {"crop_size": 64, "batch_size": 32}

model = vgg("A", num_classes=len(data.class_names), crop_size=64, width=0.125, dropout=0.2)
sgd = keras.optimizers.SGD(0.01, momentum=0.9)
model.compile(sgd, "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(
    training_stream(splits["train"], train_scale=(64, 80), statistics=colours, **crops),
    steps_per_epoch=steps_per_epoch(splits["train"], batch_size=32),
    epochs=8,
    validation_data=validation_stream(splits["val"], test_scale=72, mean=colours.mean, **crops),
    callbacks=[
        keras.callbacks.EarlyStopping("val_accuracy", patience=3),
        keras.callbacks.ModelCheckpoint("best.keras", "val_accuracy", save_best_only=True),
    ],
    shuffle=False,  # the stream is shuffled already
)

best = keras.models.load_model("best.keras")
net = TrainedNet.of_model(
    best, mean=colours.mean, class_names=data.class_names, train_scale=(64, 80)
)
print(evaluate(net, splits["val"], protocol="dense", multi_scale=True).result())
checks, _ = verify(export(net, "exports/shapes"), net)
print("verified:", all(check.passed for check in checks))
net.save("nets/shapes")
