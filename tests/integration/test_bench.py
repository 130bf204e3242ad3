"""The benchmark script as people run it, on the real engine."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.figures import Latencies
from bench.instances import BENCH_LABEL
from bench.neighbours import ATTACKS
from bench.references import listens, nginx, payload
from bench.runs import SCENARIOS, missing_programs
from bench.scenarios import QUICK
from bench.targets import TARGETS
from bench.wrk import load
from gateway.setup.images import ROOT
from pool.engine.docker import DockerEngine
from pool.engine.labels import GATEWAY_LABEL

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

COMMAND = [sys.executable, str(ROOT / "bench/load.py"), "--start", "--quick"]


@pytest.fixture(scope="module")
def programs() -> None:
    """nginx and wrk, installed as `make bench` does it."""
    subprocess.run(["sh", str(ROOT / "bench/tools.sh")], check=True, timeout=300)
    assert missing_programs(SCENARIOS) == {}


async def run_that_uses(scratch: Path, engine: DockerEngine) -> str | None:
    """Id of the run whose reference container is up now; by its folder, since others may run benchmarks too."""
    names = {f"hearth-bench-{folder.name}" for folder in scratch.glob("hearth-bench-*/run/*")}
    for container in await engine.containers({BENCH_LABEL: ""}):
        if container.name in names:
            return container.labels[BENCH_LABEL]
    return None


async def test_a_quick_run_measures_everything_and_leaves_nothing(
    docker_engine: DockerEngine, programs: None, tmp_path: Path
) -> None:
    file, scratch = tmp_path / "result.json", tmp_path / "tmp"
    scratch.mkdir()
    done = subprocess.run(
        [*COMMAND, "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(scratch)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    check_shape(result)
    check_figures(result)
    assert "prewarmed / raw start" in done.stdout
    assert "Warm calls, beside direct ones: done" in done.stderr
    assert "| warm req/s / nginx, 16 clients |" in file.with_suffix(".md").read_text()
    for name in ("latency", "burst", "targets"):
        assert file.with_name(f"result-{name}.png").read_bytes().startswith(b"\x89PNG")
    assert list(scratch.iterdir()) == []
    assert await docker_engine.containers({BENCH_LABEL: result["run"]}) == []


def check_shape(result: dict[str, Any]) -> None:
    """What a reader of result files relies on."""
    machine = result["machine"]
    assert machine["cores"] >= 1
    assert machine["memory"] > 2**28
    assert machine["cgroup"] in (1, 2)
    assert machine["engine"]
    assert machine["kernel"]
    assert "--quick" in result["command"]
    assert (result["schema"], result["faults"], result["not_run"]) == (2, {}, {})
    assert set(result["targets"]) == set(TARGETS)
    assert set(result["series"]) == {
        *(
            "warm-1",
            "warm-16",
            "warm-direct",
            "wrk-gateway",
            "wrk-nginx",
            "open-loop",
            "open-loop-maximum",
            "open-loop-nginx",
        ),
        *("prewarmed", "cold", "raw-start", "burst", "burst-raw", "http-image", "http-handler"),
        *("http-connect", "http-namespace"),
        *("async-direct", "async-accept", "async-drain"),
        *("command", "command-raw", "command-kept", "command-exec"),
        *("ready", "not-ready", "fresh", "fresh-max", "fresh-raw", "clients-alone", "clients-beside-idle"),
        *("download-gateway", "download-nginx", "upload-gateway", "upload-nginx"),
        *("many-functions", "one-function"),
        *("neighbour-alone", *(f"neighbour-{name}" for name in list(ATTACKS)[: QUICK.attacks])),
    }
    for series in result["series"].values():
        latencies = Latencies.decode(series["histogram"])
        assert len(latencies) == series["count"] > 0
        assert latencies.summary() == series["latency_ms"]
        summary = list(series["latency_ms"].values())
        assert summary == sorted(summary)


def check_figures(result: dict[str, Any]) -> None:
    """Relations that hold on any machine, however busy it is."""
    series, ratios = result["series"], result["ratios"]
    assert (
        len(series["prewarmed"]["samples_ms"]) == ratios["prewarmed_to_raw_start"]["pairs"] == QUICK.samples
    )
    assert len(series["burst"]["samples_ms"]) == ratios["burst_to_raw_starts"]["pairs"] == QUICK.bursts
    assert series["prewarmed"]["starts"] == {"prewarmed": QUICK.samples}
    assert series["cold"]["starts"] == {"cold": QUICK.samples}
    assert set(series["warm-16"]["starts"]) <= {"warm", "prewarmed", "cold"}
    assert series["warm-1"]["starts"] == {"warm": series["warm-1"]["count"]}
    assert series["burst"]["count"] == QUICK.burst * QUICK.bursts
    assert series["burst"]["samples_ms"][0] >= series["burst"]["latency_ms"]["p50"]
    assert ratios["warm_to_direct"]["value"] > 1
    assert ratios["warm_to_direct"]["added"] > 0
    assert 0 < ratios["warm_to_nginx"]["value"] < 1
    assert series["fresh"]["starts"] == {"prewarmed": QUICK.fresh_samples}
    assert series["ready"]["starts"] == {"prewarmed": QUICK.ready_samples}
    assert series["not-ready"]["starts"] == {"cold": QUICK.ready_samples}
    assert set(series["fresh-max"]["starts"]) <= {"prewarmed", "cold"}
    assert series["command"]["starts"] == {"prewarmed": QUICK.fresh_samples}
    assert set(series["command-kept"]["starts"]) <= {"cold", "warm"}
    assert ratios["command_to_exec"]["value"] > 1
    assert len(series["burst"]["timeline"]) == len(series["burst-raw"]["timeline"]) == QUICK.burst
    # Half of the maximum was asked for, and all of it was answered.
    asked = sum(series["open-loop-maximum"]["rates"]) / 2
    assert 0.5 < sum(series["open-loop"]["rates"]) / asked < 1.5
    assert 0 < ratios["prewarmed_to_cold"]["value"] < 1
    assert 0 < ratios["prewarmed_to_raw_start"]["value"] < 1
    assert ratios["cold_to_raw_start"]["value"] > 0.1


async def test_interrupted_it_removes_what_it_has_started(
    docker_engine: DockerEngine, tmp_path: Path
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    command = [*COMMAND, "--scenario", "cold", "--samples", "200", "--json", str(tmp_path / "result.json")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(scratch)},
    )
    try:
        assert process.stderr is not None
        said = ""
        while "First calls" not in said:
            line = process.stderr.readline()
            assert line, f"it ended too soon: {said}"
            said += line
        ends = time.monotonic() + 60
        while (run := await run_that_uses(scratch, docker_engine)) is None:  # interrupted while one is up
            assert time.monotonic() < ends
        gateways = [file.read_text().strip() for file in scratch.glob("**/data/identity")]
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGINT, said
    assert "Stopping" in said
    assert not (tmp_path / "result.json").exists()
    assert list(scratch.iterdir()) == []
    assert await docker_engine.containers({BENCH_LABEL: run}) == []
    assert len(gateways) == 1
    assert await docker_engine.containers({GATEWAY_LABEL: gateways[0]}) == []


async def test_wrk_through_nginx_checks_every_answer(programs: None, tmp_path: Path) -> None:
    code, path = payload(tmp_path / "code"), tmp_path / "calls.sock"
    command = [sys.executable, "-I", "-S", "-E", str(code / "bench/responder.py"), f"unix:{path}"]
    process = subprocess.Popen(command)
    try:
        async with asyncio.timeout(30):
            while not await listens(path):
                await asyncio.sleep(0.02)
        async with nginx(tmp_path / "nginx", [path]) as address:
            right = await load(address, "/invoke/hello", 4, 1)
            process.kill()
            wrong = await load(address, "/invoke/hello", 4, 1)
    finally:
        process.kill()
        process.wait()
    assert right.faults == {}
    assert len(right.latencies) >= right.requests > 100  # wrk adds those that a stall kept from being sent
    assert right.rate == pytest.approx(right.requests, rel=0.2)
    assert wrong.faults["wrong answer"] == wrong.requests > 0
    assert wrong.rate == 0
    assert not (tmp_path / "nginx/nginx.pid").exists()
