"""Plain processes in the place of containers, for developing: no isolation."""
