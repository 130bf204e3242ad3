"""Images as attackers, with init beside them: an attack hurts its own call or its own function, and nobody else's.

The code of an attack is `images/NAME.py`; its docstring says what it tries. `attack()` returns what it has won.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BASE_IMAGE, Gateway, handler, in_parallel

from gateway.http.problems import TYPES

pytestmark = pytest.mark.engine

IMAGES_FOLDER = Path(__file__).parent / "images"
WITHOUT_RIGHTS = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all")
ATTACKS = sorted(file.stem for file in IMAGES_FOLDER.glob("*.py"))
ECHO = "def handle(event, context):\n    return event\n"
EXIT_STATUS = 3
RUN = f"""
import os
got = attack()
os.write(2, f"\\ngot {{got}}".encode())
os._exit({EXIT_STATUS})
"""
SERVE = """
import http.server, json
class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = json.dumps(attack()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", 8000), Server).serve_forever()
"""
WAYS: dict[str, dict[str, object]] = {
    "fresh": {},
    "reused": {"reuse": True, "concurrency": 2, "max_instances": 1},
    "server": {"port": 8000},
}
UNREAD = "x" * 300_000
"""Input that no command reads: init gives its place up after the run, and dials anew."""


def image(attack: str, way: str) -> dict[str, object]:
    """A function that is such an image. The ones that are commands always end with a status other than 0."""
    code = (IMAGES_FOLDER / f"{attack}.py").read_text() + (SERVE if way == "server" else RUN)
    return {"image": BASE_IMAGE, "command": ["python3", "-c", code], "timeout": "8s", **WAYS[way]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Without rights: then calls of servers go by way of init, too."""
    functions = {name_of(attack, way): image(attack, way) for attack in ATTACKS for way in WAYS}
    functions["neighbour"] = handler(ECHO)
    functions["other-image"] = {"image": BASE_IMAGE, "command": ["cat"], "reuse": True}
    folder, settings = tmp_path_factory.mktemp("images"), {"log_disk": "4MiB"}
    with Gateway(folder, functions, settings=settings, wrapper=WITHOUT_RIGHTS) as running:
        running.call("neighbour", 0)
        yield running


def name_of(attack: str, way: str) -> str:
    return f"{attack}-{way}".replace("_", "-")


@pytest.mark.usefixtures("nobody_notices")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_image_hurts_only_itself(gateway: Gateway, attack: str, way: str):
    # The later calls find what the first has left: nothing, unless it is the same container.
    name, at_once = name_of(attack, way), 2 if way == "reused" else 1
    first = in_parallel(lambda _: gateway.call(name, UNREAD), at_once)
    later = in_parallel(lambda _: gateway.call(name, UNREAD), at_once)
    for response in (*first, *later):
        if response.status_code == 200:
            # Where others run beside it, it may take a place that init leaves, for calls of its own function.
            assert way == "server" or (way, attack) == ("reused", "forge_status"), response.text
            assert response.text in ("[]", "forged")
            continue
        problem = response.json()
        slug = problem["type"].removeprefix("urn:hearth:problem:")
        assert problem["blame"] == "function", problem
        assert response.status_code == TYPES[slug][0]
        if way == "fresh":
            # What floods the log has garbage as its last line.
            won = "" if attack == "flood_sockets" else "got []"
            assert slug == "command-failed"
            assert f"exit status {EXIT_STATUS}: " in problem["detail"] and problem["detail"].endswith(won), (
                problem
            )
        else:
            assert "got ['" not in problem["detail"], problem
    assert gateway.call("other-image", "well").json() == "well"
