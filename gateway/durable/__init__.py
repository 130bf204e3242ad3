"""Accepted calls over HTTP: taking them in, running them, showing how they stand."""
