"""The version, alone so that packaging can read it without importing anything."""

__version__ = "0.1.0"
"""Version of the package, as in `vgg_keras.__version__ == "0.1.0"`."""
