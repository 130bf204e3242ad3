"""The edge: HTTP, OpenAPI, problems, the command line, settings and the composition root."""
