"""Scenes of the commands of the machine that serves."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from gateway.assembly.server import Serving
from gateway.cli.commands.serving.serve import print_ready
from gateway.cli.leftovers import Leftovers
from gateway.cli.machine.checks import Check
from gateway.cli.printed.printer import OutputPrinter
from pool.observe.journal.records import OutputPiece
from scheduler.deploy.declared import Declared
from tests.support.cli_scenes.records import CALL, DIGEST, NO_MODULE
from tests.support.cli_scenes.stage import Scene

YAML = """\
version: 1
functions:
  hello: {runtime: python, source: functions/hello, handler: handler:handle}
  thumbnail: {runtime: python, source: functions/thumbnail, handler: handler:handle}
"""
HANDLER = "def handle(event, context):\n    return event\n"
SHOP = {
    "functions.yaml": YAML,
    "functions/hello/handler.py": HANDLER,
    "functions/thumbnail/handler.py": HANDLER,
}
IDENTITY = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
KEYS = f"""\
{{"version": 1, "keys": [
 {{"hash": "hth_4xkq2m7p:sha256:{DIGEST}", "name": "shop", "scopes": ["invoke:shop-*", "read"],
  "rate": "100/s", "concurrency": 20, "created": "2026-11-29T02:12:05Z", "expires": "2036-11-26T02:12:05Z"}},
 {{"hash": "hth_7ydw3kqa:sha256:{DIGEST[::-1]}", "name": "ada", "scopes": ["admin"]}}
]}}
"""


async def ready(serving: Serving) -> None:
    """Say what a gateway says when its functions can be called."""
    declared = {name: Declared(one) for name, one in serving.definitions.functions.items()}
    for name, one in declared.items():
        one.state = "ready" if name == "hello" else "failed"
        one.fault = None if name == "hello" else NO_MODULE
    runtime: Any = SimpleNamespace(
        settings=serving.settings,
        scheduler_floor=SimpleNamespace(registry=SimpleNamespace(declared=declared)),
        gateway_floor=SimpleNamespace(access=SimpleNamespace(keys=serving.settings.api_keys or None)),
    )
    print_ready(runtime, "http://127.0.0.1:8080")
    printer = OutputPrinter("text")
    printer.offer([OutputPiece(0.0, "hello", DIGEST, CALL, "be5e875eabc7", b"greeting Ada\n")])
    printer.close()
    log = logging.getLogger("hearth")
    log.warning("invocation %s of hello: handler-raised: ValueError: no name was given", CALL)
    log.info("Stopping: 3 calls still run; press Ctrl-C again to end them at once")
    log.info("Stopping: removing instances")
    serving.folder.close()


async def checked(*_: object) -> list[Check]:
    """Return what doctor finds on a machine where something is slower and something is missing."""
    return [
        Check("engine", "ok", "Docker 20.10.24 with API 1.41"),
        Check(
            "live-restore",
            "warning",
            "off: a restart of the engine ends all containers",
            'add "live-restore": true to /etc/docker/daemon.json and reload the engine',
        ),
        Check("images", "missing", "no image of the runtime python", "build it: hearth setup", vital=True),
        Check("memory", "ok", "12 GiB of 16 GiB for functions"),
        Check("disk", "ok", "41 GiB free for images in /var/lib/docker, 12 GiB for data in .hearth"),
    ]


async def leftovers(*_: object) -> list[Leftovers]:
    """Return the leftovers of two gateways."""
    return [
        Leftovers(
            IDENTITY,
            containers={"1": "hearth-be5e875eabc7", "2": "hearth-0c11f2a94d3b"},
            networks=["hearth-egress-3fa85f64"],
            images={DIGEST: "hearth-function-thumbnail:b7a038a77d46"},
        ),
        Leftovers(OTHER, containers={"3": "hearth-9a7703c2be41"}),
    ]


async def removed(_: object, left: Leftovers) -> list[tuple[str, str | None]]:
    """Remove leftovers, all of them."""
    return [(name, None) for _, name in left.named()]


SERVE = "gateway.cli.commands.serving.serve"
PRUNE = "gateway.cli.commands.serving.prune"
SERVING = {
    f"{SERVE}.run": ready,
    "gateway.cli.log_format.time": SimpleNamespace(strftime=lambda *_: "03:12:05", localtime=lambda _: None),
}
PRUNING = {
    f"{PRUNE}.find": leftovers,
    f"{PRUNE}.remove": removed,
    f"{PRUNE}.check_engine_address": lambda: None,
}
DATA = {".hearth/identity": f"{IDENTITY}\n"}


FIXED_KEY = {"gateway.access.keys.secrets.token_bytes": lambda count: bytes(range(count))}

SCENES = [
    Scene("serve", files=SHOP, patches=SERVING),
    Scene("serve", note="in an empty folder"),
    Scene("serve --host 0.0.0.0", files=SHOP, patches=SERVING, note="without a key"),
    Scene("serve", files={"functions.yaml": "version: 1\nfunctions:\n  f: {image: x, prot: 80}\n"}),
    Scene("prune", stdin="y\n", files=DATA, patches=PRUNING),
    Scene("prune --all", stdin="n\n", files={}, patches=PRUNING),
    Scene("doctor", patches={"gateway.cli.commands.serving.doctor.run": checked}),
    Scene("keys list", files={**DATA, ".hearth/keys.json": KEYS}),
    Scene("keys list", files=DATA, note="without a key"),
    Scene("keys create me --scope invoke:shop-* --rate 100/s", files=DATA, patches=FIXED_KEY),
    Scene("keys create me --scope invoke:*", note="in a folder that no gateway has used"),
    Scene("keys revoke shop", files={**DATA, ".hearth/keys.json": KEYS}),
]
