"""The imports of a trial, done once by the server that trial processes are forked from."""

from vgg_keras.quiet import quiet_tensorflow

with quiet_tensorflow(verbose=False):
    import vgg_keras.training  # noqa: F401  # imported for its effect
