"""The language of functions.yaml: reading it, and every fault with its place."""
