"""Accepted calls: calls that are kept on disk and run later."""
