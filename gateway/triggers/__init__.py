"""Triggers over HTTP: publishing events, webhooks, looking at triggers and deciding about them."""
