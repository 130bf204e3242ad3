"""Sets a machine up: the engine, and the images that functions need. It runs before a gateway does."""
