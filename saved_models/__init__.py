"""From a built model to something that can be served. Exports themselves go to `exports/`."""
