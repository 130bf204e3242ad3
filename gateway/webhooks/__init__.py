"""Webhooks: whose signed message it is that comes in, and the event that it becomes."""
