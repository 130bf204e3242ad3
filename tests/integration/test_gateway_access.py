"""Keys at a real gateway: who is let in, how much, what functions see of it, and where no key may ever turn up."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness import Gateway, command, eventually, free_port, handler, in_parallel, server

from gateway.access.key_file import KeyFile
from gateway.access.keys import create, parse_quota
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
HEADERS = "def handle(event, context): return dict(context.headers)"
WEB = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
SLEEP = """
import time
def handle(event, context):
    time.sleep(event)
"""
FAIL = """
def handle(event, context):
    raise ValueError("as told")
"""
FUNCTIONS = {
    "headers": handler(HEADERS),
    "sleep": handler(SLEEP, max_instances=2, timeout="2s"),
    "fail": handler(FAIL),
    "env": command("env"),
    "web": server(WEB),
}


def hearth(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """One run of the command."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
    return subprocess.run(
        [HEARTH, *words], capture_output=True, text=True, env={**clean, **variables}, timeout=60, check=False
    )


class Keyed:
    """A gateway, and keys in its data folder."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.file = KeyFile(gateway.data)

    def key(self, name: str, *scopes: str, **quota: str) -> str:
        """A new key, once the gateway knows it."""
        limits = parse_quota(quota.get("rate"), quota.get("burst"), quota.get("concurrency"))
        text, key = create(name, parse_scopes(scopes), limits, None, 0.0)
        before = self.changes()
        self.file.add(key)
        eventually(lambda: self.changes() > before)
        return text

    def changes(self) -> int:
        """How often the gateway has taken keys up."""
        return self.gateway.log.count("keys have changed")

    def call(self, function: str, key: str, content: bytes = b"", **headers: str) -> httpx.Response:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        with stranger(self.gateway) as client:
            fields["authorization"] = f"Bearer {key}"
            return client.post(f"/invoke/{function}", content=content, headers=fields)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A gateway with an admin key, with which the gateway's own client asks."""
    with Gateway(tmp_path_factory.mktemp("access"), FUNCTIONS, prewarm={"python": 2}) as gateway:
        keyed = Keyed(gateway)
        admin = keyed.key("operator", "admin")
        gateway.http.headers["x-hearth-key"] = admin
        yield keyed


def slug(response: httpx.Response) -> str:
    return str(response.json()["type"]).rpartition(":")[2]


def stranger(gateway: Gateway) -> httpx.Client:
    """A client without a key."""
    return httpx.Client(base_url=gateway.url, timeout=30, trust_env=False)


# -- who is let in ---------------------------------------------------------------------------------------------


def test_without_a_key_only_what_is_open_answers(keyed: Keyed) -> None:
    with stranger(keyed.gateway) as client:
        for path in ("/healthz", "/readyz", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        names = client.get("/openapi.json").text
        for path in (
            "/functions",
            "/pool",
            "/pool/instances",
            "/metrics",
            "/invocations/x/logs",
            "/nowhere",
            "/",
        ):
            answer = client.get(path)
            assert (answer.status_code, slug(answer)) == (401, "unauthorized"), path
            assert answer.headers["www-authenticate"] == 'Bearer realm="hearth"'
        answer = client.post("/invoke/headers")
        assert (answer.status_code, slug(answer)) == (401, "unauthorized")
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-invocation-id"])
        assert client.post("/invoke/%68eaders").status_code == 401
        assert client.post("/%69nvoke/headers").status_code == 401
    assert '"sleep"' not in names
    assert '"sleep"' in keyed.gateway.http.get("/openapi.json").text


def test_scopes_hold_for_each_way_to_a_function_and_each_route(keyed: Keyed) -> None:
    key = keyed.key("narrow", "invoke:head*")
    assert keyed.call("headers", key).status_code == 200
    for path in ("web", "web/", "fail", "nobody", "he%61ders", "", "/headers"):
        assert slug(keyed.call(path, key)) == "forbidden", path
    assert slug(keyed.call("headersx", key)) == "no-such-function"
    bearer = {"authorization": f"Bearer {key}"}
    with stranger(keyed.gateway) as client:
        client.headers.update(bearer)
        for path in ("/functions", "/pool", "/metrics", "/nowhere"):
            assert slug(client.get(path)) == "forbidden"
        assert slug(client.delete("/pool/instances/x")) == "forbidden"
        answer = client.get("/functions")
        assert "needs read" in answer.json()["detail"]
        assert "insufficient_scope" in answer.headers["www-authenticate"]
    reader = keyed.key("reader", "read")
    with stranger(keyed.gateway) as client:
        client.headers["authorization"] = f"Bearer {reader}"
        assert client.get("/functions").status_code == client.get("/metrics").status_code == 200
        assert client.delete("/pool/instances/x").status_code == 403
        assert client.post("/invoke/headers").status_code == 403


def test_a_revoked_key_ends_within_seconds_and_others_do_not(keyed: Keyed) -> None:
    gone, stays = keyed.key("gone", "invoke:*"), keyed.key("stays", "invoke:*")
    keyed.file.revoke("gone")
    eventually(lambda: keyed.call("headers", gone).status_code == 401, 5)
    assert keyed.call("headers", stays).status_code == 200


# -- limits ----------------------------------------------------------------------------------------------------


def test_a_rate_refuses_and_the_function_is_not_touched(keyed: Keyed) -> None:
    key = keyed.key("slow", "invoke:headers", rate="3/h")
    with stranger(keyed.gateway) as client:
        client.headers["authorization"] = f"Bearer {key}"
        served = keyed.gateway.metric("hearth_starts_total", function="headers")
        answers = [client.post("/invoke/headers") for _ in range(10)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 7
        assert {slug(answer) for answer in refused} == {"quota-exceeded"}
        assert all(1000 < int(answer.headers["retry-after"]) <= 1200 for answer in refused)
        now = keyed.gateway.metric("hearth_starts_total", function="headers")
        assert now - served == 10 - len(refused)


def test_a_batch_of_events_counts_as_its_events(keyed: Keyed) -> None:
    key = keyed.key("publisher", "invoke:headers", rate="5/h")
    attributes = {"specversion": "1.0", "source": "/test", "type": "counted"}
    with stranger(keyed.gateway) as client:
        client.headers["authorization"] = f"Bearer {key}"
        batch = [{**attributes, "id": str(number)} for number in range(7)]
        fields = {"content-type": "application/cloudevents-batch+json"}
        answer = client.post("/events", content=json.dumps(batch), headers=fields)
        assert (answer.status_code, answer.json()["events"]) == (202, 7)
        answer = client.post("/events", content=json.dumps(batch[:1]), headers=fields)
        assert (answer.status_code, slug(answer)) == (429, "quota-exceeded")
        assert 2100 < int(answer.headers["retry-after"]) <= 2160, "two of the seven, and one for this"


def test_calls_at_once_are_limited_before_the_queue_and_given_back_however_they_end(keyed: Keyed) -> None:
    key = keyed.key("few", "invoke:*", concurrency="2")
    before = keyed.gateway.metric("hearth_access_refusals_total", reason="concurrency")
    answers = in_parallel(lambda _: keyed.call("sleep", key, b"1").status_code, 8)
    assert sorted(answers) == [200] * 2 + [429] * 6
    after = keyed.gateway.metric("hearth_access_refusals_total", reason="concurrency")
    assert after - before == 6
    # A timeout, an exception, a bad body, a call without a function, and clients that leave: each is given back.
    assert keyed.call("sleep", key, b"30").status_code == 504
    assert keyed.call("fail", key).status_code == 500
    assert keyed.call("sleep", key, b"{", content_type="application/json").status_code == 400
    assert keyed.call("nobody", key).status_code == 404
    for _ in range(2):
        raw = keyed.gateway.raw()
        raw.request("POST", "/invoke/sleep", b"1", {"authorization": f"Bearer {key}"})
        raw.close()
    eventually(
        lambda: (
            sorted(in_parallel(lambda _: keyed.call("sleep", key, b"0.3").status_code, 3)) == [200, 200, 429]
        ),
        20,
    )


# -- what a function sees --------------------------------------------------------------------------------------


def test_our_credential_never_reaches_a_function(keyed: Keyed) -> None:
    key = keyed.key("seen", "invoke:*")
    own = {"authorization": f"Bearer {key}"}
    both = {"authorization": "Basic mine", "x-hearth-key": key}
    with stranger(keyed.gateway) as client:
        for method, path in (("POST", "/invoke/headers"), ("POST", "/invoke/env"), ("GET", "/invoke/web/x")):
            seen = client.request(method, path, headers=own)
            assert seen.status_code == 200
            assert key[4:12] not in seen.text and "authorization" not in seen.text.lower()
            seen = client.request(method, path, headers=both)
            assert seen.status_code == 200
            assert key[4:12] not in seen.text
            assert ("Basic mine" in seen.text) is (path != "/invoke/env"), "of commands, RFC 3875 says"


def test_without_keys_authorization_belongs_to_the_function(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"headers": FUNCTIONS["headers"]}) as gateway:
        seen = gateway.http.post("/invoke/headers", headers={"authorization": "Bearer mine"}).json()
        assert seen["authorization"] == "Bearer mine"


# -- where no key, secret and body may be ----------------------------------------------------------------------


def test_no_key_and_no_body_gets_into_a_log_a_metric_or_an_error(tmp_path: Path) -> None:
    text, _ = create("marked", parse_scopes(["invoke:*"]), parse_quota("50/h", None, "1"), None, 0.0)
    body = "marked-body-" + "b" * 20
    basic = "Basic marked-basic-" + "c" * 20
    wrong = text[:-6] + "zzzzzz"
    functions = {**FUNCTIONS, "absent": {"image": "absent.invalid/i:latest", "command": ["true"]}}
    settings = {"api_keys": f"{text} invoke:* name=marked rate=50/h concurrency=1", "log_level": "debug"}
    said: list[str] = []
    with Gateway(tmp_path, functions, settings=settings) as gateway:
        operator, kept = create("operator", parse_scopes(["admin"]), parse_quota(None, None, None), None, 0.0)
        KeyFile(gateway.data).add(kept)
        admin = {"authorization": f"Bearer {operator}"}
        eventually(lambda: gateway.http.get("/pool", headers=admin).status_code == 200)

        def ask(path: str, credential: str, method: str = "POST", **more: str) -> int:
            headers = {"authorization": credential, **more}
            answer = gateway.http.request(method, path, content=json.dumps(body), headers=headers)
            said.append(f"{answer.headers} {answer.text}")
            return answer.status_code

        right = f"Bearer {text}"
        statuses = [
            ask("/invoke/headers", f"Bearer {wrong}"),
            ask("/invoke/headers", text),
            ask("/invoke/headers", basic),
            ask("/functions", f"Bearer {wrong}", "GET"),
            ask("/functions", right, "GET"),
            ask("/invoke/nobody", right),
            ask("/invoke/env/x", right),
            ask("/invoke/absent", right),
            ask("/invoke/fail", right),
            ask("/invoke/sleep", right),
            ask("/invoke/headers", right, **{"content-type": "application/json", "x-hearth-key": text}),
            ask("/nowhere", right, "GET"),
            ask("/healthz", f"Bearer {wrong}", "PUT"),
        ]
        assert statuses == [401, 401, 401, 401, 403, 404, 405, 502, 500, 500, 200, 403, 401]
        said[10] = ""  # the function's own answer: it echoes what it was given
        busy = threading.Thread(target=lambda: gateway.http.post("/invoke/sleep", content="1", headers=admin))
        busy.start()
        while ask("/invoke/headers", right) == 200:
            said.pop()
        busy.join()
        assert "quota-exceeded" in said[-1]
        head = f"POST /invoke/headers HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {right}\r\n"
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
        connection.connect()
        connection.sock.sendall(f"{head}Content-Length: x\r\n\r\n".encode())
        said.append(connection.sock.recv(65536).decode())
        connection.close()
        said += [gateway.http.get(path, headers=admin).text for path in ("/metrics", "/functions", "/pool")]
        listed = hearth(
            "keys", "list", "--json", "--data-dir", gateway.data, HEARTH_API_KEYS=settings["api_keys"]
        )
        assert "marked" in listed.stdout
        said += [listed.stdout, listed.stderr, (gateway.data / "keys.json").read_text()]
        environment = Path(f"/proc/{gateway.process.pid}/environ").read_text()
        assert text in environment, "that is how it was given; hashes are for those who mind"
    for marker in (text[13:], wrong[13:], operator[13:], body, basic):
        assert not any(marker in one for one in said), next(one for one in said if marker in one)
        assert marker not in gateway.log


# -- starting --------------------------------------------------------------------------------------------------


def test_a_public_address_without_a_key_is_refused_with_two_ways_out(tmp_path: Path) -> None:
    (tmp_path / "functions.yaml").write_text("version: 1\nfunctions: {}\n")
    data = tmp_path / "data"
    words = ("serve", "--host", "0.0.0.0", "--functions", tmp_path / "functions.yaml", "--data-dir", data)
    refused = hearth(*words)
    assert refused.returncode == 2
    assert "hearth keys create NAME" in refused.stderr and "--host 127.0.0.1" in refused.stderr
    assert not data.exists(), "nothing is touched"
    data.mkdir()
    (data / "keys.json").write_text("damaged")
    damaged = hearth(*words)
    assert (damaged.returncode, "it is not JSON" in damaged.stderr) == (2, True)


def test_with_a_key_a_public_address_is_served_to_its_holders(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "functions.yaml").write_text("version: 1\nfunctions: {}\n")
    data = tmp_path / "data"
    made = hearth("keys", "create", "me", "--scope", "read", "--data-dir", data, "--new-folder")
    words = ["serve", "--host", "0.0.0.0", "--port", str(port), "--data-dir", str(data)]
    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen(
            [HEARTH, *words, "--functions", tmp_path / "functions.yaml"], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            def ready() -> bool:
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            eventually(ready, 30)
            assert client.get("/functions").status_code == 401
            key = made.stdout.strip()
            assert client.get("/functions", headers={"authorization": f"Bearer {key}"}).json() == []
            url = f"http://127.0.0.1:{port}"
            assert hearth("functions", "--url", url).returncode == 2
            assert hearth("functions", "--url", url, HEARTH_API_KEY=key).returncode == 0
            (tmp_path / "key").write_text(made.stdout)
            assert hearth("functions", "--url", url, "--key-file", tmp_path / "key").returncode == 0
    finally:
        gateway.terminate()
        assert gateway.wait(30) == 0, (tmp_path / "log").read_text()


def test_the_examples_of_the_documentation_work(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    (lines,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    with Gateway(tmp_path, {"shop-cart": handler("def handle(event, context): return 'bought'")}) as gateway:
        variables = {"HEARTH_DATA_DIR": str(gateway.data), "HEARTH_URL": gateway.url}
        variables["PATH"] = f"{HEARTH.parent}:{os.environ['PATH']}"
        script = 'set -eu; curl() { command curl --fail --silent --show-error "$@"; }\n'
        script += lines.replace("http://127.0.0.1:8080", gateway.url)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("bought") and "revoked shop" in done.stdout
        refused = hearth("functions", "--url", gateway.url)
        assert (refused.returncode, "HEARTH_API_KEY" in refused.stderr) == (2, True)


def test_a_flood_of_bad_keys_runs_nothing_and_makes_no_series(keyed: Keyed) -> None:
    def series() -> int:
        return len(keyed.gateway.http.get("/metrics").text.splitlines())

    with stranger(keyed.gateway) as client:
        client.post("/invoke/headers", headers={"authorization": "Bearer hth_aaaaaaaa_" + "a" * 32})
        before, log = series(), keyed.gateway.log
        refused = keyed.gateway.metric("hearth_access_refusals_total", reason="unknown")
        for number in range(500):
            id = f"aaaaa{number:03}".translate(str.maketrans("0189", "efgh"))
            headers = {"authorization": f"Bearer hth_{id}_" + "a" * 32}
            assert client.post("/invoke/headers", headers=headers).status_code == 401
        assert keyed.gateway.metric("hearth_access_refusals_total", reason="unknown") - refused == 500
        assert series() == before
        assert keyed.gateway.log == log
