"""Greets whoever the event names.

curl -d '{"name":"Ada"}' 127.0.0.1:8080/invoke/hello
"""


def handle(event, context):
    """{"name": "Ada"} gives {"message": "Hello, Ada!"}; without a name, the world is greeted."""
    name = event.get("name") if isinstance(event, dict) else None
    return {"message": f"Hello, {name or 'world'}!"}
