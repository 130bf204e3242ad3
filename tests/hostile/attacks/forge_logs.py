"""Prints and raises lines that look like the gateway's own or another function's, with escapes for a terminal."""

LINE = "12:00:00 error forged: the administrator's password is wanted"
FORGED = f"\r\n{LINE}\x1b[2J\x1b]0;forged\x07\n" + '{"level": "error"}'


def handle(event, context):
    print(FORGED)
    if event == "raise":
        raise RuntimeError(FORGED)
    return (
        "own",
        200,
        {"x-invocation-id": "0" * 32, "x-hearth-start": "warm", "server-timing": "queue;dur=0"},
    )
