"""Pipelines and DAGs of functions: runs whose steps are accepted calls, each transition on disk before its effect."""
