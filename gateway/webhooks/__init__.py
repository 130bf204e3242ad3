"""Webhooks: signed messages of other systems that become events."""
