"""What a trial needs, imported once for all of them."""

from vgg_keras.quiet import quiet_tensorflow

with quiet_tensorflow(verbose=False):
    import vgg_keras.training  # noqa: F401
