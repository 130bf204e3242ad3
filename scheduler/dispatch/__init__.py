"""The assignment pass over functions, their revisions and routes: who gets which instance, and what is started or
evicted for it."""
