"""JPEG bytes in, tensors out: sources, image operations, training and evaluation streams.

Nothing here knows of a particular net. Everything takes plain numbers (scale, crop size,
mean) and gives `tf.data` datasets that any Keras classifier takes.
"""
