"""Writes to /tmp until nothing more fits: 64 MiB, and then an error of its own. The host's disk has no part in it."""


def handle(event, context):
    written = 0
    try:
        with open("/tmp/full", "wb", buffering=0) as file:
            while True:
                written += file.write(b"x" * 2**20)
    except OSError as error:
        return {"written": written, "error": error.strerror}
