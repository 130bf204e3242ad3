"""Compiles what is not Python."""
