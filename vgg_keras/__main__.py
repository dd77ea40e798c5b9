"""`python -m vgg_keras`: the same as the command `vgg-keras`."""

from vgg_keras.cli import main

main()
