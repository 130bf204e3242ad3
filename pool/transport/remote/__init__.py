"""The way to containers of an engine that shares no folder with the gateway."""
