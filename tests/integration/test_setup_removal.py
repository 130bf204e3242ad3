"""`hearth setup --remove` on the engine in use: everything that somebody needs stays, and is said to."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from harness import EngineView

from gateway.setup.engine import Places
from gateway.setup.record import SetupRecord
from gateway.setup.removal import SetupRemoval
from tests.support.containers import containers

pytestmark = pytest.mark.engine


async def test_an_image_in_use_and_an_engine_with_containers_stay(
    tmp_path: Path, busybox_image: str, test_label: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = EngineView().socket
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    tag = f"hearth-test/busybox:{test_label['org.hearth.test']}"
    places = Places(
        **{place.name: tmp_path / place.name for place in fields(Places)} | {"socket": Path(socket)}
    )
    record = SetupRecord(
        tmp_path / "record.json", images={f"unix://{socket}": [tag, "hearth-test/gone:latest"]}
    )
    shutil.copy("/bin/sleep", tmp_path / "dockerd")
    daemon = subprocess.Popen([tmp_path / "dockerd", "60"])  # bears the name of one that setup has started
    places.state.write_text(json.dumps({"dockerd": daemon.pid}))
    try:
        async with containers() as docker:
            made = await docker.create({"Image": busybox_image, "Labels": test_label})
            try:
                removal = SetupRemoval(record, places, None)
                assert removal.look() == [
                    ("images", f"{tag}, hearth-test/gone:latest"),
                    ("engine", "dockerd"),
                ]
                removal.run()
            finally:
                await docker.remove(made)
        assert daemon.poll() is None, "it still serves containers"
    finally:
        daemon.kill()
        daemon.wait()
    (image, why), (engine, reason) = removal.left
    assert (image, engine) == ("image", "engine")
    assert why.startswith(f"{tag}: in use.") and reason.startswith("it has containers: ")
    assert SetupRecord.load(record.place).images == {f"unix://{socket}": [tag]}, "for the next time"
