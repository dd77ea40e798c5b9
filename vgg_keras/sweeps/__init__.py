"""Search over depth, width and training scale with Keras Tuner."""
