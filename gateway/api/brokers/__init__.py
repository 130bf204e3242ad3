"""Connections to message brokers over HTTP."""
