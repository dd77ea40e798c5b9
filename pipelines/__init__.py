"""Data sets, image operations, and training and evaluation streams, as `tf.data` datasets.

This package knows no particular net. Everything takes plain numbers (scale, crop size, mean), and
any Keras classifier takes the streams.

The public names are listed in `__init__.pyi`. Each is imported on first use, so that importing this
package does not import TensorFlow.

    data = open_source("folder:photos")
    train = training_stream(
        data["train"],
        crop_size=224,
        train_scale=256,
        batch_size=64,
        statistics=compute_statistics(data["train"]),
    )
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
