"""Accepting calls that are run later, and carrying them out."""
