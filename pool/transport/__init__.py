"""The ways to an instance: HTTP over a socket that the shim dialled, HTTP into a namespace, streams of a command."""
