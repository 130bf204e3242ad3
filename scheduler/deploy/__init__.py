"""From a definition to a function in service."""
