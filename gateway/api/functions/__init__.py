"""Functions over HTTP: those that are deployed, their instances, logs, health and metrics."""
