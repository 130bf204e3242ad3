"""Spares: instances that are kept ready ahead of calls."""
