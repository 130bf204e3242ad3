"""Accepted calls over HTTP."""
