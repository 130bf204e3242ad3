"""Batch runs over HTTP: starting jobs, and how they stand."""
