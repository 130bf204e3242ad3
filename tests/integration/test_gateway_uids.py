"""Each container has a uid of its own, from its creation to its removal; what names a user keeps that."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Gateway, command, eventually, handler, server

from pool.host.uids import DEFAULT_UIDS, UidRange

pytestmark = pytest.mark.engine

UIDS = UidRange(1_700_000_000, 1_700_009_999)
WHO = """
import getpass, os, pathlib, time

def handle(event, context):
    time.sleep(event or 0)
    pathlib.Path("/tmp/file").write_text("kept")
    home, name = os.path.expanduser("~"), getpass.getuser()
    return {"uid": os.getuid(), "groups": sorted({os.getgid(), *os.getgroups()}), "home": home, "name": name}
"""
UID = "import os\n\ndef handle(event, context):\n    return {'uid': os.getuid()}\n"
KEEP = """
import os, pathlib

def handle(event, context):
    file = pathlib.Path("/kept/file")
    if event:
        file.write_text(event)
        file.chmod(0o600)
    return {"uid": os.getuid(), "text": file.read_text()}
"""
SITE = """
import getpass, http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getuid()} {getpass.getuser()} {os.path.expanduser('~')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("uids")
    kept = folder / "kept"
    kept.mkdir()
    kept.chmod(0o777)
    functions = {
        "who": handler(WHO),
        "fixed": handler(UID, user="70001"),
        "keep": handler(KEEP, volumes=[f"{kept}:/kept:rw"]),
        "read": handler(KEEP, volumes=[f"{kept}:/kept:ro"]),
        "site": server(SITE),
        "tool": command("sh", "-c", "id -u; id -G; echo $USER $HOME"),
    }
    settings = {"uids": UIDS, "allowed_volumes": kept}
    with Gateway(folder, functions, prewarm={"python": 1}, settings=settings) as running:
        yield running


def uid_of_process(gateway: Gateway, container: str) -> int:
    """As the host's kernel knows it."""
    pid = gateway.engine.request("GET", f"/containers/{container}/json")["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nUid:")[2].split()[0])


def uids(gateway: Gateway) -> dict[str, int]:
    """Container to the uid of its first process."""
    return {c["Id"]: uid_of_process(gateway, c["Id"]) for c in gateway.containers()}


def test_containers_of_one_function_have_different_uids_and_no_further_group(gateway: Gateway):
    with ThreadPoolExecutor(2) as callers:
        answers = [answer.json() for answer in callers.map(lambda _: gateway.call("who", 1), range(2))]
    assert len({answer["uid"] for answer in answers}) == 2
    for answer in answers:
        assert UIDS.first <= answer["uid"] <= UIDS.last
        assert answer["groups"] == [65532]
        assert (answer["home"], answer["name"]) == ("/tmp", "function")
    everyone = uids(gateway)
    assert len(set(everyone.values())) == len(everyone)


def test_a_generic_one_keeps_its_uid_when_it_becomes_a_function(gateway: Gateway):
    for instance in gateway.instances("who"):
        gateway.http.delete(f"/pool/instances/{instance['id']}")
    eventually(lambda: gateway.prewarmed() == 1 and not gateway.instances("who"))
    [generic] = [i for i in gateway.instances() if i["function"] is None]
    before = uid_of_process(gateway, generic["container"])
    assert gateway.call("who").json()["uid"] == before
    [instance] = gateway.instances("who")
    assert instance["container"] == generic["container"]
    assert uid_of_process(gateway, generic["container"]) == before


def test_the_uid_of_a_container_that_is_gone_is_not_the_next_ones(gateway: Gateway):
    seen = [gateway.call("tool").text.split()[0] for _ in range(4)]
    assert len(set(seen)) == 4


def test_images_that_are_not_ours_run_so_too(gateway: Gateway):
    uid, group, name, home = gateway.call("tool").text.split()
    assert UIDS.first <= int(uid) <= UIDS.last
    assert (group, name, home) == ("65532", "function", "/tmp")
    answer = gateway.http.get("/invoke/site").text.split()
    assert UIDS.first <= int(answer[0]) <= UIDS.last
    assert answer[1:] == ["function", "/tmp"]


def test_a_socket_folder_is_its_own_containers_alone(gateway: Gateway):
    uid = gateway.call("who").json()["uid"]
    gateway.call("fixed")
    owners = {"who": uid, "fixed": 70_001}
    for function, owner in owners.items():
        for instance in gateway.instances(function):
            if uid_of_process(gateway, instance["container"]) != owner:
                continue
            folder = gateway.data / "run" / instance["id"]
            found = {path.name: path.stat() for path in (folder, *folder.iterdir())}
            assert {s.st_uid for s in found.values()} == {owner}
            assert {name: oct(stat.S_IMODE(s.st_mode)) for name, s in found.items()} == {
                instance["id"]: "0o500",
                "calls.sock": "0o600",
                "log.sock": "0o600",
            }
    assert stat.S_IMODE((gateway.data / "run").stat().st_mode) == 0o711


def test_a_declared_user_and_the_owner_of_files_in_a_volume_stay_the_same(gateway: Gateway):
    assert gateway.call("fixed").json()["uid"] == 70_001
    written = gateway.call("keep", "mine").json()
    assert written == {"uid": 65532, "text": "mine"}
    for instance in gateway.instances("keep"):
        gateway.http.delete(f"/pool/instances/{instance['id']}")
    eventually(lambda: not gateway.instances("keep"))
    assert gateway.call("keep", "").json() == written


def test_a_volume_that_is_only_read_gives_no_fixed_uid(gateway: Gateway):
    (gateway.folder / "kept" / "file").write_text("for everybody")
    (gateway.folder / "kept" / "file").chmod(0o644)
    answer = gateway.call("read", "").json()
    assert answer["text"] == "for everybody"
    assert UIDS.first <= answer["uid"] <= UIDS.last
    os.unlink(gateway.folder / "kept" / "file")


def test_a_gateway_that_may_not_give_folders_away_serves_and_adopts_all_the_same(tmp_path: Path):
    """Its containers have uids of their own; their sockets are open to every user."""
    wrapper = ("setpriv", "--bounding-set=-chown")
    with Gateway(tmp_path, {"who": handler(WHO)}, wrapper=wrapper) as limited:
        uid = limited.call("who").json()["uid"]
        assert DEFAULT_UIDS.first <= uid <= DEFAULT_UIDS.last
        [instance] = limited.instances("who")
        folder = limited.data / "run" / instance["id"]
        assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {os.getuid()}
        assert stat.S_IMODE((folder / "calls.sock").stat().st_mode) == 0o666
        limited.stop(signal.SIGKILL)
        limited.launch()
        limited.wait_until_ready()
        answer = limited.call("who")
        assert (answer.headers["x-hearth-start"], answer.json()["uid"]) == ("warm", uid)


def test_what_is_adopted_keeps_its_uid_and_nobody_else_has_it(gateway: Gateway):
    """The last: it ends the gateway, and starts it again."""
    uid = gateway.call("who").json()["uid"]
    eventually(lambda: gateway.prewarmed() == 1)
    before = {i["container"]: uid_of_process(gateway, i["container"]) for i in gateway.instances("who")}
    gateway.stop(signal.SIGKILL)
    gateway.launch()
    gateway.wait_until_ready()
    answer = gateway.call("who")
    assert (answer.headers["x-hearth-start"], answer.json()["uid"]) == ("warm", uid)
    after = uids(gateway)
    assert before.items() <= after.items()
    assert len(set(after.values())) == len(after)
