"""Which engine is meant, and how a connection to it is encrypted."""
