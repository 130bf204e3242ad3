"""Assignment pass over functions, revisions and routes: gives instances to calls, starts and evicts instances."""
