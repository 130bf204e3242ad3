"""Stores on disk, one folder for each database."""
