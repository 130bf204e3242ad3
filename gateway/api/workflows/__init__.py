"""Runs of workflows over HTTP, and their pictures."""
