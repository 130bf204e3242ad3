"""Showing on a terminal how something in a gateway goes on."""
