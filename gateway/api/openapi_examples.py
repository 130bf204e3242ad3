"""Examples in the OpenAPI document for fields whose views give none, so that the page shows no `string` and no 0."""

from __future__ import annotations

from typing import Any

from gateway.api.openapi import EXAMPLE_ID

VERSION = "3f9a1c0b7d2e"
OF_FIELDS: dict[str, Any] = {
    "age": 12.4,
    "attempt": 1,
    "attempts": 1,
    "cancelled": 0,
    "command": ["wc", "-w"],
    "container": "9c1f4d7be203",
    "count": 3,
    "cursor": None,
    "declared": ["nightly"],
    "definition": {"schedule": "0 3 * * *", "function": "report"},
    "detail": "",
    "error": None,
    "events": 1,
    "exec": 0.41,
    "failed": 0,
    "fault": None,
    "function": "hello",
    "functions": {},
    "id": EXAMPLE_ID,
    "idle": 0.8,
    "image": "sha256:5d0da3dc9764",
    "in_hand": 2,
    "in_use": 1,
    "index": 0,
    "input": "steps.names.output",
    "invocation": EXAMPLE_ID,
    "key": "shop",
    "lag": 0,
    "logs": f"/invocations/{EXAMPLE_ID}/logs",
    "map": None,
    "memory": 134217728,
    "memory_budget": 2147483648,
    "memory_declared": 402653184,
    "name": "hello",
    "on_failure": None,
    "output": None,
    "owner": None,
    "parallel": None,
    "part": None,
    "queue": 0.03,
    "queued": 0,
    "ready": 2,
    "result": None,
    "retries": 2,
    "revision": VERSION,
    "running": 1,
    "served": 41,
    "start": 0.0,
    "start_seconds": 0.0,
    "started_because": None,
    "starting": 0,
    "status": 200,
    "succeeded": 2,
    "total": 0.44,
    "trigger": "nightly",
    "url": f"/invocations/{EXAMPLE_ID}",
    "version": VERSION,
    "waiting": 0,
    "wanted": 2,
    "when": None,
}
"""Examples by the name of a field."""
OF_TEXTS = {
    "application/x-ndjson": '{"function":"hello","text":"Hello"}\n',
    "image/svg+xml": '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    "text/event-stream": 'data: {"function":"hello","text":"Hello"}\n\n',
    "text/plain": "a line that the function has printed\n",
}
"""Examples of answers that are text, by content type."""
OF_ANYTHING = {"message": "Hello, Ada!"}
"""Example of an answer that a function has made."""
HAS_EXAMPLE = frozenset({"$ref", "const", "default", "enum", "example", "examples", "format"})


def add_examples(shown: dict[str, Any]) -> None:
    """Give an example to each field of an answer, and to each text, that has none."""
    for schema in shown["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            if name in OF_FIELDS and not is_clear(field):
                field["examples"] = [OF_FIELDS[name]]
    for methods in shown["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for kind, content in response.get("content", {}).items():
                    if not content.keys() & {"example", "examples"}:
                        if kind in OF_TEXTS:
                            content["example"] = OF_TEXTS[kind]
                        elif not content.get("schema"):
                            content["example"] = OF_ANYTHING


def is_clear(field: dict[str, Any]) -> bool:
    """Return whether a field needs no example: it has one, or what it holds has."""
    if field.keys() & HAS_EXAMPLE:
        return True
    if field.get("type") == "array":
        return is_clear(field.get("items", {}))
    return any(is_clear(choice) for choice in field.get("anyOf", [])[:1])
