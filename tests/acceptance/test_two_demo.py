"""examples/two-demo, exactly as it is: every command of its README, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Gateway, eventually

pytestmark = pytest.mark.engine

FOLDER = Path(__file__).parents[2] / "examples" / "two-demo"
README = (FOLDER / "README.md").read_text()
COMMANDS = [block.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]


def test_each_command_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    serve, invoke, run_declared, run_described = COMMANDS
    assert serve == "hearth serve --functions functions.yaml"
    gateway = Gateway(tmp_path, {}, settings={"spare_memory": 0})  # in the end no container is left
    gateway.write("functions.yaml", (FOLDER / "functions.yaml").read_text())
    with gateway:

        def do(command: str) -> str:
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            variables = {**os.environ, "HEARTH_URL": gateway.url, "PATH": path}
            done = subprocess.run(
                ["sh", "-c", command], env=variables, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert re.fullmatch(r"Hello Ada, from container [0-9a-f]{12}\n", do(invoke))
        assert "docker" not in invoke, "nothing but the call makes the container"
        attempts: list[int] = []
        for command in (run_declared, run_described):
            rows = re.findall(r"^(\d+) +(\w+) +(\d+) ", do(command), re.MULTILINE)
            assert [(int(index), status) for index, status, _ in rows] == [
                (i, "succeeded") for i in range(10)
            ]
            attempts += [int(attempt) for _, _, attempt in rows]
        assert max(attempts) > 1, "not one of twenty tasks has failed at random"
        jobs = gateway.http.get("/jobs").json()
        assert [(job["count"], job["retries"], job["tasks"]["succeeded"]) for job in jobs["jobs"]] == [
            (10, 20, 10)
        ] * 2
        eventually(lambda: gateway.containers() == [], 20)


def test_the_second_demo_is_at_most_ten_lines() -> None:
    job = (FOLDER / "functions.yaml").read_text().partition("jobs:\n")[2]
    assert len(job.splitlines()) + 1 <= 10
