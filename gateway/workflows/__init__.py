"""Workflows over HTTP: starting runs, showing how they stand, drawing them."""
