"""The store in one SQLite file: a module for each area, a writer thread, reader threads."""
