"""Triggers, events and webhooks over HTTP."""
