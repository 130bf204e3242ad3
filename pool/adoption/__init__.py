"""Containers that an earlier process has left, and taking them into use again."""
