"""The hearth command beside a real gateway: what people type, and what they see."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BUSYBOX_IMAGE, GATEWAY_LABEL, EngineView, Gateway, command, eventually, handler, server

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
ECHO = """
def handle(event, context):
    print("heard", event)
    if event == "fail":
        raise ValueError("as told")
    return event
"""
WEB = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{self.path} {self.headers.get('x-mine')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


def hearth(
    *words: str | Path, stdin: bytes = b"", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """One run of the command, as a shell would do it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
    return subprocess.run(
        [HEARTH, *words],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**clean, **variables},
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "count": command("wc", "-w"),
        "web": server(WEB),
        "absent": {"image": "absent.invalid/image:latest", "command": ["true"]},
    }
    with Gateway(tmp_path_factory.mktemp("cli"), functions, {"python": 1}) as running:
        eventually(lambda: "Hearth serves on" in running.log)
        yield running


def test_serve_prints_urls_states_faults_and_a_line_that_works(gateway: Gateway) -> None:
    lines = gateway.log.splitlines()
    start = lines.index(f"Hearth serves on {gateway.url}")
    printed = "\n".join(lines[start:])
    for path in ("/docs", "/pool", "/metrics"):
        assert gateway.url + path in printed
    assert "absent    command  failed" in printed
    assert "docker pull absent.invalid/image:latest" in printed
    line = next(line for line in lines if line.startswith("Try:  ")).removeprefix("Try:  ")
    done = subprocess.run(line, shell=True, capture_output=True, timeout=30, check=True)
    assert json.loads(done.stdout) == {"name": "Ada"}


def test_log_lines_are_json_where_there_is_no_terminal_and_a_warm_call_has_none(gateway: Gateway) -> None:
    for _ in range(3):
        assert gateway.call("echo", 1).status_code == 200
    before = gateway.log
    for _ in range(20):
        assert gateway.call("echo", 1).headers["x-hearth-start"] == "warm"
    assert gateway.log == before
    entries = [json.loads(line) for line in before.splitlines() if line.startswith("{")]
    assert any("absent" in entry["message"] and entry["level"] == "warning" for entry in entries)
    assert {"time", "level", "logger", "message"} <= set(entries[0])
    assert "Started server process" not in before


def test_invoke_all_kinds_of_functions(gateway: Gateway, tmp_path: Path) -> None:
    done = hearth("invoke", "echo", "--data", '{"a": 1}', HEARTH_URL=gateway.url)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"a": 1}, b"")
    large = tmp_path / "large"
    large.write_bytes(b"word " * 200_000)
    done = hearth("invoke", "count", "--file", large, "--url", gateway.url)
    assert (done.returncode, done.stdout.strip()) == (0, b"200000")
    done = hearth("invoke", "count", "-", "--url", gateway.url, stdin=b"one two")
    assert (done.returncode, done.stdout.strip()) == (0, b"2")
    done = hearth("invoke", "web", "--path", "/a/b?c=d", "-H", "X-Mine: yes", "--url", gateway.url)
    assert (done.returncode, done.stdout) == (0, b"/a/b?c=d yes")


def test_invoke_tells_who_is_to_blame(gateway: Gateway) -> None:
    done = hearth("invoke", "echo", "--data", '"fail"', "--url", gateway.url)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"blame: function): ValueError: as told" in done.stderr
    done = hearth("invoke", "nobody", "--url", gateway.url)
    assert done.returncode == 2
    assert b"(404, blame: caller)" in done.stderr
    done = hearth("invoke", "absent", "--url", gateway.url)
    assert done.returncode == 1
    assert b"docker pull absent.invalid/image:latest" in done.stderr


def test_the_id_that_invoke_shows_leads_to_the_log(gateway: Gateway) -> None:
    done = hearth("invoke", "echo", "-d", '"ears"', "-i", "--url", gateway.url)
    fields = dict(line.split(": ", 1) for line in done.stderr.decode().splitlines() if ": " in line)
    assert b" start, queue " in done.stderr
    log = hearth("logs", fields["x-invocation-id"], "--url", gateway.url)
    assert (log.returncode, log.stdout) == (0, b"heard ears\n")
    assert hearth("logs", "unheard-of", "--url", gateway.url).returncode == 2


def test_functions_and_ps_show_what_is_there(gateway: Gateway) -> None:
    assert gateway.call("echo", 1).status_code == 200
    rows = {line.split()[0]: line.split() for line in text(hearth("functions", "--url", gateway.url))}
    assert rows["echo"][1:4] == ["handler", "ready", "any"]
    assert len(rows["echo"][4]) == 12
    assert rows["absent"][1:3] == ["command", "failed"]
    listed = json.loads(hearth("functions", "--json", "--url", gateway.url).stdout)
    assert {f["name"] for f in listed} == {"echo", "count", "web", "absent"}

    lines = text(hearth("ps", "--function", "echo", "--url", gateway.url))
    instance = lines[1].split()
    assert instance[1] == "echo"
    assert instance[2] in ("idle", "frozen")
    assert instance[3] == "0"
    assert any(line.startswith("Prewarmed on image") for line in lines)
    assert lines[-1].startswith("Memory declared: ")
    log = hearth("logs", "--instance", instance[0], "--url", gateway.url)
    assert (log.returncode, log.stderr) == (0, b"")


def text(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def test_a_port_that_is_taken_and_a_folder_in_use_are_told_in_a_sentence(
    gateway: Gateway, tmp_path: Path
) -> None:
    port = gateway.url.rpartition(":")[2]
    serve = ("serve", "--functions", gateway.file)
    done = hearth(*serve, "--port", port, "--data-dir", tmp_path / "own")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; --port takes another"
    ]
    done = hearth(*serve, "--port", "0", "--data-dir", gateway.data)
    assert done.returncode == 1
    assert f"process {gateway.process.pid}" in done.stderr.decode()
    assert gateway.call("echo", 1).status_code == 200  # and neither harmed who was there


def test_faults_of_the_file_end_serve_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "functions.yaml").write_text("version: 1\nfunctions:\n  f: {image: x, memory: 3}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # a fault of the port would be told first otherwise
        port = str(taken.getsockname()[1])
        done = hearth("serve", "--port", port, cwd=tmp_path, DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 2
    assert done.stderr.decode().startswith("functions.yaml:3:25: functions.f.memory: 3 has no unit")
    assert [file.name for file in tmp_path.iterdir()] == ["functions.yaml"]


def test_without_an_engine_serve_says_what_to_do_and_comes_up_when_it_is_there(tmp_path: Path) -> None:
    real = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    link = tmp_path / "engine.sock"
    gateway = Gateway(tmp_path, {"count": command("wc", "-w")})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_HOST", f"unix://{link}")
        gateway.launch()
    try:
        eventually(lambda: "hearth doctor" in gateway.log)
        time.sleep(2.5)
        assert gateway.log.count("trying again") == 1  # and not once a second
        assert gateway.process.poll() is None
        link.symlink_to(real)
        eventually(lambda: "Hearth serves on" in gateway.log)
        assert gateway.call("count", content=b"a b").text.strip() == "2"
        assert gateway.stop() == 0
    finally:
        gateway.clean_up()


def test_on_a_terminal_lines_are_for_people(tmp_path: Path) -> None:
    (tmp_path / "functions.yaml").write_text(
        f"version: 1\nfunctions:\n  count: {{image: '{BUSYBOX_IMAGE}', command: [wc, -w]}}\n"
    )
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [HEARTH, "serve", "--port", "0"], cwd=tmp_path, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while b"Try:" not in shown:
            shown += os.read(main, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main)
    assert b"\x1b[1mFUNCTION" in shown  # the table's head in bold
    assert b'{"time"' not in shown


# -- doctor and prune ---------------------------------------------------------------------------------------------


def test_doctor_finds_this_machine_able_and_leaves_nothing() -> None:
    done = hearth("doctor", "--json")
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert (done.returncode, report["can_run_functions"]) == (0, True)
    assert {"engine", "live-restore", "images", "containers", "freezer", "memory"} <= set(checks)
    assert checks["containers"]["state"] == "ok"
    assert checks["engine"]["found"].startswith(EngineView().request("GET", "/version")["Version"])
    assert all(check["next_step"] for check in checks.values() if check["state"] != "ok")
    assert EngineView().containers("org.hearth.doctor") == []
    assert b"Functions can run." in hearth("doctor").stdout


def test_doctor_says_the_next_step_where_functions_cannot_run() -> None:
    done = hearth("doctor", DOCKER_HOST="unix:///nowhere")
    assert done.returncode == 1
    assert b"hearth setup" in done.stdout
    assert b"Functions cannot run yet." in done.stdout


def test_prune_removes_what_a_killed_gateway_left_and_asks_first(tmp_path: Path) -> None:
    functions = {"echo": handler(ECHO), "out": command("true", network="egress")}
    gateway = Gateway(tmp_path, functions, {"python": 1}, settings={"spare_memory": 0})
    gateway.launch()
    try:
        gateway.wait_until_ready()
        assert gateway.call("echo", 1).status_code == 200
        assert gateway.call("out").status_code == 200
        eventually(lambda: len(gateway.containers()) == 2)
        prune = ("prune", "--data-dir", gateway.data)

        done = hearth(*prune, "--yes")  # it is alive
        assert done.returncode == 0
        assert f"process {gateway.process.pid}" in done.stderr.decode()
        assert len(gateway.containers()) == 2
        assert gateway.call("echo", 1).status_code == 200

        gateway.stop(signal.SIGKILL)
        left = gateway.containers()
        names = {c["Names"][0].removeprefix("/") for c in left}
        (network,) = gateway.engine.networks(f"{GATEWAY_LABEL}={gateway.identity}")
        bridge = f"hth{gateway.identity[:8]}e"
        assert names
        assert bridge in rules()

        done = hearth(*prune, stdin=b"n\n")
        assert done.returncode == 0
        assert all(name in done.stdout.decode() for name in names | {network, bridge})
        assert b"Nothing was removed." in done.stdout
        assert {c["Id"] for c in gateway.containers()} == {c["Id"] for c in left}

        done = hearth(*prune, stdin=b"y\n")
        assert done.returncode == 0, done.stderr
        assert all(f"removed container {name}" in done.stdout.decode() for name in names)
        assert gateway.leftovers() == []
        assert bridge not in rules()
        assert b"No leftovers" in hearth(*prune).stderr
    finally:
        gateway.clean_up()


def test_prune_leaves_what_was_kept_warm_unless_told(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"echo": handler(ECHO)}, settings={"keep_warm": "true"}) as gateway:
        prune = ("prune", "--data-dir", gateway.data, "--yes")
        assert gateway.call("echo", 1).status_code == 200
        [container] = gateway.containers()
        gateway.stop()
        done = hearth(*prune)
        assert (done.returncode, b"1 warm containers stay" in done.stdout) == (0, True)
        assert [c["Id"] for c in gateway.containers()] == [container["Id"]]
        gateway.launch()
        gateway.wait_until_ready()
        assert gateway.call("echo", 1).headers["x-hearth-start"] == "warm"
        gateway.stop()
        done = hearth("prune", "--data-dir", gateway.data, "--warm", stdin=b"n\n")
        assert b"Nothing was removed." in done.stdout
        assert (gateway.data / "records").exists()
        assert hearth(*prune, "--warm").returncode == 0
        assert gateway.leftovers() == []


def rules() -> str:
    """The host's firewall rules."""
    return subprocess.run(["iptables", "-S"], capture_output=True, text=True, check=True).stdout


def test_prune_touches_other_data_folders_only_when_told_and_warns(gateway: Gateway, tmp_path: Path) -> None:
    before = {c["Id"] for c in gateway.engine.containers(f"{GATEWAY_LABEL}={gateway.identity}")}
    assert before
    done = hearth("prune", "--data-dir", tmp_path / "none", "--yes")
    assert done.returncode == 0
    assert b"--all lists them" in done.stdout
    assert not (tmp_path / "none").exists()
    done = hearth("prune", "--data-dir", tmp_path / "none", "--all", stdin=b"n\n")
    assert gateway.identity[:8] in done.stdout.decode()
    assert b"If one is alive, its running calls will fail." in done.stdout
    assert b"Nothing was removed." in done.stdout
    assert before <= {c["Id"] for c in gateway.engine.containers(f"{GATEWAY_LABEL}={gateway.identity}")}
