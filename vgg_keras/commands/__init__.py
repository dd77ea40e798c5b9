"""The commands of `vgg-keras`: they read options, call the library, and print results."""
