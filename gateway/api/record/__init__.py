"""The record of calls over HTTP: those that run, the latest that went well, and the latest that failed."""
