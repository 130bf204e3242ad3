"""One call, from its head to its answer."""
