"""Batch runs: a job is many accepted calls, its tasks, which it begins a few at a time."""
