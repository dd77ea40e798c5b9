"""The commands of `vgg-keras`: thin, they read arguments, call the library, show what it says."""
