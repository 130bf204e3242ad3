"""Queues whose messages are events: each is taken, kept durably, and only then acknowledged."""
