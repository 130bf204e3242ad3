"""Call, stream, map and submit with hearth-client. It needs a gateway with the examples of functions.yaml.

    make serve                                       # in another terminal
    python3 -m venv app
    app/bin/pip install ./clients/python
    app/bin/python examples/client/calls.py

HEARTH_URL names another gateway, HEARTH_API_KEY a key for it.
"""

from hearth import CallerFault, Client


def main() -> None:
    """Show one of everything."""
    with Client() as hearth:
        print("call:", hearth.call("hello", {"name": "Ada"}))

        response = hearth.invoke("hello", {"name": "Ada"})
        print("start:", response.start, "id:", response.invocation_id)

        for event in hearth.stream("countdown", {"from": 2}).events():
            print("event:", event.data)

        people = [{"name": name} for name in ("Ada", "Grace", "Edsger")]
        for greeting in hearth.map("hello", people, concurrency=2):
            print("map:", greeting["message"])

        future = hearth.submit("hello", {"name": "later"})  # on disk: it runs even if this program ends
        print("submitted:", future.id)
        print("result:", future.result(timeout=30))

        try:
            hearth.call("helo")
        except CallerFault as error:
            print("error:", error)


if __name__ == "__main__":
    main()
