"""Containers that Hearth 0.1 has left warm are adopted: their versions, shapes and records are what they were.

The digests below were printed by its last commit. A change of one makes every warm container of a user cold at the
next release. Change one only together with `FORMAT` in `pool/adoption/records.py`, and tell users in CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pool.adoption.records import Records, read
from pool.clock import VirtualClock
from pool.engine.base import Image
from pool.workload import Order, Workload
from scheduler.definitions.file import FunctionDefinition, load
from scheduler.definitions.source_folder import SourceCode
from scheduler.deploy.revision_digest import version_digest
from scheduler.deploy.workloads import container_of, generic_container, order_head

FUNCTIONS = """\
version: 1
functions:
  plain: {runtime: python, source: code, handler: handler:handle}
  shaped: {runtime: python, source: code, handler: handler:handle, memory: 256MiB, env: {A: b}, concurrency: 4,
           retries: {attempts: 5}}
  site: {image: "site:1", port: 8000, command: [serve], env: {A: b}, writable: {/var/tmp: 8MiB}, cpus: 0.5}
  tool: {image: "tool:1", command: [wc, -w], user: "1000"}
"""
CODE = SourceCode((("handler.py", b"def handle(event, context): return event\n"),))
IMAGE = Image(
    "sha256:" + "1" * 64, ("site:1",), {"org.hearth.runtime": "python"}, 1000, (), frozenset({"PATH"}), ""
)
LOG_LIMIT = 65536
VERSIONS = {
    "plain": "6e5bc41868921ef88229656c2988caa91311c2e7ffc4f47d05f59378a0efcfd9",
    "shaped": "298478e434de50319d3e3b91e4ffba4fc9553d1fa79c2eb5958ca0c899a9afc8",
    "site": "14821991c9087f4e267edddaf75db3b5b871c550d2e26451f34cf643b974ba2e",
    "tool": "36254d708ccc671fd8320eddc87267b4e1a849f7436fe8af07862f292943508d",
}
"""That of the tool is another one since `reuse` of a command became false: 0.1 left no container of a command."""
SHAPES = {
    "plain": "9af1bea78a30c89ea2416a2ba40e2584bf1a7d582c2da981431544ad6d0bafaa",
    "shaped": "1c5b0be8f22abf19e048c9757628284a26a627e3fc061c4376919d7d27037102",
    "site": "b27de2798a65cd57de668e2c178016f4eb296c6871966c2a2ffe56195b604d03",
    "tool": "287c708d030a363c13c93b4930d8f362495653cbb09ab7b165c3a4357bd52a6c",
}
GENERIC_SHAPE = "c3c2a9893457ec23bcc9ac284f5ce8515f9b083c328fb29d845926b7ef95d77f"
RECORD = {
    "id": "ab12",
    "image": "sha256:1",
    "memory": 134217728,
    "shape": "s",
    "function": "plain",
    "version": "v",
    "born_generic": True,
    "created_at": 1795900000.5,
    "ready": True,
    "served": 7,
    "format": 1,
}
"""A record as 0.1 wrote it."""


@pytest.fixture
def definitions(tmp_path: Path) -> dict[str, FunctionDefinition]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "handler.py").write_bytes(dict(CODE.files)["handler.py"])
    (tmp_path / "functions.yaml").write_text(FUNCTIONS)
    return load(tmp_path / "functions.yaml").functions


@pytest.mark.parametrize("name", VERSIONS)
def test_a_function_has_the_version_and_shape_that_it_had(
    definitions: dict[str, FunctionDefinition], name: str, tmp_path: Path
) -> None:
    definition = definitions[name]
    source = CODE if definition.source is not None else None
    version = version_digest(definition, source, IMAGE.id)
    container = container_of(definition, IMAGE)
    order = Order(order_head(definition, version, LOG_LIMIT), tmp_path / "code") if source else None
    workload = Workload(
        function=name, version=version, contract=definition.contract, container=container, order=order
    )
    assert (version, Records.shape_of(container, workload)) == (VERSIONS[name], SHAPES[name])


def test_a_prewarmed_instance_has_the_shape_that_it_had() -> None:
    assert Records.shape_of(generic_container(IMAGE), None) == GENERIC_SHAPE


def test_a_record_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "ab12.json"
    file.write_text(json.dumps(RECORD))
    record = read(file)
    assert record is not None
    assert (record.function, record.served, record.born_generic) == ("plain", 7, True)
    records = Records(tmp_path, VirtualClock())
    assert set(records.load()) == {"ab12"}
    records.update("ab12", ready=True, served=8)
    assert json.loads(file.read_text()) == RECORD | {"served": 8}
