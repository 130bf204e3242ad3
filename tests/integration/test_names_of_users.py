"""What programs in containers find out about their user: name, home, and folders to write to. On the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib as installed
import pytest
from harness import BASE_IMAGE, Gateway, command, eventually, handler, server

pytestmark = pytest.mark.engine

PACKAGES = Path(installed.__file__).parents[1]
ASK = """
import getpass, json, os, pathlib, pwd, sys

def ask():
    entry = pwd.getpwuid(os.getuid())
    os.environ.pop("USER", None), os.environ.pop("LOGNAME", None)  # so that the file is asked
    file = pathlib.Path.home() / "file"
    file.write_text("kept")
    others = [known.pw_name for known in pwd.getpwall()]
    return {"name": getpass.getuser(), "home": entry.pw_dir, "kept": str(file), "group": entry.pw_gid, "all": others}
"""
PLOT = """
import io, json, os, pathlib, sys

def plot():
    sys.path.append("/packages")
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    pyplot.plot([1, 2, 3])
    drawn = io.StringIO()
    pyplot.savefig(drawn, format="svg")
    numba = pathlib.Path(os.environ["NUMBA_CACHE_DIR"])
    numba.mkdir(parents=True)
    places = [matplotlib.get_configdir(), matplotlib.get_cachedir(), os.environ["XDG_CACHE_HOME"]]
    fonts = [file.name for file in pathlib.Path(places[1]).glob("fontlist*")]
    return {"svg": "</svg>" in drawn.getvalue(), "places": places, "fonts": len(fonts), "home": os.environ["HOME"]}
"""
SERVER = f"""{ASK}
import http.server
class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.dumps(ask()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("", 8000), Server).serve_forever()
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("users")
    (folder / "passwd").write_text("mine:x:1:1::/srv:/bin/false\n")
    packages = {"volumes": [f"{PACKAGES}:/packages"], "memory": "256MiB"}
    functions = {
        "handler": handler(f"{ASK}\ndef handle(event, context):\n    return ask()\n"),
        "server": server(SERVER),
        "numbered": server(SERVER, user="1234:5"),
        # The image has no /etc/passwd at all.
        "shell": command("sh", "-c", "id -un; cd; pwd; touch file && echo kept; cat /etc/passwd"),
        "own-file": command("cat", "/etc/passwd", volumes=[f"{folder}/passwd:/etc/passwd"]),
        "plots": handler(f"{PLOT}\ndef handle(event, context):\n    return plot()\n", **packages),
        # The image knows this one, and its home is not there.
        "nobody": {
            "image": BASE_IMAGE,
            "command": ["python3", "-c", f"{PLOT}\nprint(json.dumps(plot()))"],
            "user": "65534",
            **packages,
        },
    }
    settings = {"allowed_volumes": f"{folder}:{PACKAGES}"}
    with Gateway(folder, functions, prewarm={"python": 1}, settings=settings) as running:
        yield running


@pytest.mark.parametrize(("function", "group"), [("handler", 65532), ("server", 65532), ("numbered", 5)])
def test_a_user_that_the_image_does_not_know_has_a_name_and_a_home(
    gateway: Gateway, function: str, group: int
) -> None:
    found = gateway.call(function).json()
    assert (found["name"], found["home"], found["kept"]) == ("function", "/tmp", "/tmp/file")
    assert found["group"] == group
    assert {"root", "nobody"} <= set(found["all"]), "the image's own lines are still there"


def test_an_image_without_users_has_one(gateway: Gateway) -> None:
    name, home, kept, *lines = gateway.call("shell").text.splitlines()
    assert (name, home, kept) == ("function", "/tmp", "kept")
    assert len(lines) == 1 and lines[0].endswith(":function:/tmp:/bin/sh")


def test_a_file_of_the_functions_own_stays(gateway: Gateway) -> None:
    assert gateway.call("own-file").text == "mine:x:1:1::/srv:/bin/false\n"


@pytest.mark.parametrize(("function", "home"), [("plots", "/tmp"), ("nobody", "/nonexistent")])
def test_libraries_have_a_folder_for_what_they_keep(gateway: Gateway, function: str, home: str) -> None:
    found = json.loads(gateway.call(function).text)
    assert found == {
        "svg": True,
        "places": ["/tmp/.cache/matplotlib", "/tmp/.cache/matplotlib", "/tmp/.cache"],
        "fonts": 1,
        "home": home,
    }


def test_the_files_go_with_their_containers(gateway: Gateway) -> None:
    def owners() -> set[str]:
        return {file.stem for file in (gateway.data / "etc").iterdir()}

    gateway.call("shell")
    eventually(lambda: owners() <= {instance["id"] for instance in gateway.instances()})
