"""functions.yaml: what is accepted, and where and how each fault is told.

In a faulty file `§` stands before the place that the fault must name; it is taken out before the file
is written.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pool.engine.base import Mount
from scheduler.definitions.file import (
    Defaults,
    Definitions,
    DefinitionsError,
    Fault,
    FunctionDefinition,
    Kind,
    load,
)
from scheduler.definitions.language.key_types import RetryKeys

IMAGE = "version: 1\nfunctions:\n  f:\n    image: busybox\n"
"""A sound file; further lines of four spaces are further keys of its function."""
SERVER = IMAGE + "    port: 80\n"
HANDLER = "version: 1\nfunctions:\n  f: {runtime: python, source: code, handler: 'main:handle'}\n"
DEFAULTS = "version: 1\nfunctions: {}\ndefaults:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the file is to be; beside it are source folders, sound and not, and a folder for volumes."""
    for folder in ("code/package", "linked", "empty", "data/sub", "private"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "code" / "main.py").write_text("")
    (tmp_path / "code" / "package" / "__init__.py").write_text("")
    (tmp_path / "linked" / "main.py").symlink_to("../code/main.py")
    (tmp_path / "data" / "out").symlink_to("../private")
    return tmp_path / "functions.yaml"


def read(file: Path, text: str) -> Definitions:
    file.write_text(text.replace("DIR", str(file.parent)))
    return load(file, allowed_volumes=[file.parent / "data"], allowed_capabilities=["setgid", "setuid"])


def faults(file: Path, text: str) -> list[Fault]:
    with pytest.raises(DefinitionsError) as caught:
        read(file, text)
    return caught.value.faults


def place_of_mark(text: str) -> tuple[int, int]:
    before = text[: text.index("§")]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


FAULTY = [
    # No YAML, or not what a definitions file is made of
    ("§", "the file is empty"),
    ("§# only a comment\n", "the file is empty"),
    ("§- a\n- b\n", "must be a mapping with version, defaults, prewarm, functions, "),
    ("§hello", "must be a mapping with version, defaults, prewarm, functions, "),
    ("---\n§", "not nothing"),
    ("version: 1\nfunctions: §]\n", "not YAML"),
    ("version: 1\nfunctions: {a: {image: x}\n§", "not YAML: while parsing a flow mapping"),
    ('version: 1\nfunctions: {}\nx: "open\n§', "not YAML: while scanning a quoted scalar"),
    ("version: 1\nfunctions:\n§\tf: {image: x}\n", "a tab cannot indent YAML"),
    ("version: 1\nfunctions: a§: b\n", "not YAML: mapping values are not allowed here"),
    ("version: 1\nfunctions: {}\n§--- \nversion: 1\n", "a second document starts here"),
    ("version: 1\nfunctions: §\x07\n", "character U+0007 is not allowed"),
    ('version: 1\nfunctions: "\\U§FFFFFFFF"\n', "not YAML: a number is out of range"),
    (
        "version: 1\nfunctions: {}\nx: " + "[" * 16 + "§" + "[" * 24 + "]" * 40 + "\n",
        "nested deeper than 16 levels",
    ),
    ('version: 1\nfunctions: {}\nprewarm: §"\\ud800"\n', "half of a surrogate pair"),
    ("version: 1\n§version: 1\nfunctions: {}\n", "the key 'version' is here twice"),
    ("version: 1\nfunctions:\n  f: {image: x}\n  §f: {image: y}\n", "the key 'f' is here twice"),
    (IMAGE + "    memory: 64MiB\n    §memory: 64MiB\n", "the key 'memory' is here twice"),
    (IMAGE + "    env: {A: 1, §A: 2}\n", "the key 'A' is here twice"),
    (IMAGE + "    env: {A: 1, §'A': 2}\n", "the key 'A' is here twice"),
    ("version: 1\nfunctions:\n  8: §{image: x}\n", 'the key of this value is not text; quote it, like "8":'),
    ("version: 1\nfunctions:\n  true: §{image: x}\n", "the key of this value is not text"),
    ("version: 1\nfunctions:\n  ? [a, b]\n  : §{image: x}\n", "the key of this value is not text"),
    ("version: 1\nfunctions: {}\ndefaults: &a {}\nprewarm: §*a\n", "aliases (*a) are not supported"),
    (
        "version: 1\nfunctions:\n  f:\n    <<: §{image: x}\n    image: y\n",
        "merge keys (<<) are not supported",
    ),
    (
        "version: 1\nfunctions: §!!python/name:os.system {}\n",
        "tags ('tag:yaml.org,2002:python/name:os.system')",
    ),
    ("version: 1\nfunctions: {}\nprewarm: {python: §!!int 2}\n", "are not supported; remove it"),
    # The root
    ("§functions: {}\n", "`version` is missing; write `version: 1`"),
    ("§version: 1\n", "`functions` is missing; write `functions: {}`"),
    ("version: §2\nfunctions: {}\n", "version: must be 1, not 2"),
    ("version: §'1'\nfunctions: {}\n", "version: must be 1, not '1'"),
    ("version: §true\nfunctions: {}\n", "version: must be 1, not true"),
    ("version: §1.0.0\nfunctions: {}\n", "version: must be 1, not '1.0.0'"),
    ("version: 1\nfunctions: §[]\n", "functions: must be a mapping, or {} for an empty one, not a list"),
    ("version: 1\nfunctions:§\n", "functions: must be a mapping, or {} for an empty one, not nothing"),
    ("version: 1\nfunctions: {}\ndefaults: §3\n", "defaults: must be a mapping"),
    ("version: 1\nfunctions: {}\nfunction: §{}\n", "there is no key 'function'; did you mean `functions`?"),
    ("version: 1\nfunctions: {}\nzzz: §1\n", "'zzz'; allowed: version, defaults, prewarm, functions"),
    ("version: 1\nfunctions: {}\nprewarm: {pyhton: §2}\n", "no runtime 'pyhton'; did you mean `python`?"),
    ("version: 1\nfunctions: {}\nprewarm: {ruby: §2}\n", "no runtime 'ruby'; allowed: python"),
    ("version: 1\nfunctions: {}\nprewarm: {python: §-1}\n", "must be a whole number from 0 to 1000, not -1"),
    (
        "version: 1\nfunctions: {}\nprewarm: {python: §two}\n",
        "must be a whole number from 0 to 1000, not 'two'",
    ),
    (
        "version: 1\nfunctions: {}\nprewarm: {python:§ }\n",
        "must be a whole number from 0 to 1000, not nothing",
    ),
    # Names and kinds
    (
        "version: 1\nfunctions:\n  Hello: §{image: x}\n",
        "functions.Hello.name: must be 1 to 63 lower-case letters",
    ),
    ("version: 1\nfunctions:\n  1a: §{image: x}\n", "must be 1 to 63 lower-case letters"),
    ("version: 1\nfunctions:\n  a/b: §{image: x}\n", "not 'a/b'"),
    ("version: 1\nfunctions:\n  '': §{image: x}\n", "not ''"),
    (f"version: 1\nfunctions:\n  {'a' * 64}: §{{image: x}}\n", "must be 1 to 63 lower-case letters"),
    ('version: 1\nfunctions:\n  "a\\n": §{image: x}\n', r"not 'a\n'"),
    (
        "version: 1\nfunctions:\n  f:§\n",
        "functions.f: must be a mapping with the function's keys, not nothing",
    ),
    ("version: 1\nfunctions:\n  f: §busybox\n", "must be a mapping with the function's keys, not 'busybox'"),
    (
        "version: 1\nfunctions:\n  f: §{}\n",
        "has no code; write `runtime`, `source` and `handler`, or `image`",
    ),
    ("version: 1\nfunctions:\n  f:\n    §timeout: 1s\n", "functions.f: has no code"),
    (IMAGE + "    name: §g\n", "there is no key 'name'"),
    (IMAGE + "    timout: §3s\n", "there is no key 'timout'; did you mean `timeout`?"),
    (IMAGE + "    zzz: §3s\n", "there is no key 'zzz'; allowed: memory, cpus,"),
    (IMAGE + "    env_file: §.env\n", "no key 'env_file'; write its variables under `env`, like env: {"),
    (IMAGE + "    environment: §[A=1]\n", "no key 'environment'; write the variables under `env`"),
    (IMAGE + "    secrets: §[token]\n", "no key 'secrets'; write each as a variable under `env`, or mount"),
    (
        IMAGE + "    schedule: §'0 3 * * *'\n",
        "no key 'schedule'; write a trigger beside `functions`: triggers",
    ),
    (IMAGE + "    description: §what it does\n", "no key 'description'; write it as a label: labels: {"),
    (IMAGE + "    memory:§\n", "functions.f.memory: has no value"),
    (IMAGE + "    max_age: §null\n", "functions.f.max_age: has no value"),
    (
        "version: 1\nfunctions:\n  f: {runtime: python, image: §busybox}\n",
        "either `runtime` (Python code) or `image`",
    ),
    ("version: 1\nfunctions:\n  f: §{runtime: python, handler: 'main:f'}\n", "`source` is missing"),
    ("version: 1\nfunctions:\n  f: §{runtime: python, source: code}\n", "`handler` is missing"),
    ("version: 1\nfunctions:\n  f: §{source: code, handler: 'main:f'}\n", "`runtime` is missing"),
    # Handlers
    (HANDLER.replace("python", "§pyton"), "no runtime 'pyton'; did you mean `python`?"),
    (HANDLER.replace("python", "§3"), "runtime: must be the name of a runtime, not 3"),
    (HANDLER.replace("code", "§nowhere"), "source: there is no folder 'nowhere'"),
    (HANDLER.replace("code", "§code/main.py"), "source: there is no folder 'code/main.py'"),
    (HANDLER.replace("code", "§''"), "source: must be the path of a folder, relative to this file, not ''"),
    (
        HANDLER.replace("code", "§[code]"),
        "source: must be the path of a folder, relative to this file, not a list",
    ),
    (HANDLER.replace("code", '§"a\\0b"'), "source: must be the path of a folder"),
    (HANDLER.replace("code", "§" + "a" * 5000), "source: there is no folder"),
    (HANDLER.replace("code", "§linked"), "main.py is a link that leaves the folder; replace it by a copy"),
    (HANDLER.replace("'main:handle'", "§handle"), "handler: must be module:callable, like handler:handle"),
    (HANDLER.replace("'main:handle'", "§'main.py:handle()'"), "handler: must be module:callable"),
    (HANDLER.replace("'main:handle'", "§'../main:handle'"), "handler: must be module:callable"),
    (HANDLER.replace("'main:handle'", "§'mian:handle'"), "handler: there is no 'mian.py' in 'code'"),
    (HANDLER.replace("'main:handle'", "§'package.main:handle'"), "there is no 'package/main.py' in 'code'"),
    (HANDLER.replace("}", ", port: §80}"), "port: belongs to a function with `image`; remove it"),
    (HANDLER.replace("}", ", command: §[a]}"), "command: belongs to a function with `image`"),
    (HANDLER.replace("}", ", health: §/h}"), "health: belongs to a function with `image`"),
    (
        HANDLER.replace("}", ", content_type: §text/plain}"),
        "content_type: belongs to a command",
    ),
    # Images
    (IMAGE.replace("busybox", "§Busybox"), "image: must be an image's name in lower case"),
    (IMAGE.replace("busybox", "§'a b'"), "image: must be an image's name"),
    (IMAGE.replace("busybox", "§3"), "image: must be an image's name"),
    (IMAGE + "    source: §code\n", "source: belongs to a function with `runtime`"),
    (IMAGE + "    handler: §'main:handle'\n", "handler: belongs to a function with `runtime`"),
    (IMAGE + "    health: §/healthz\n", "health: belongs to a function with `port`"),
    (IMAGE + "    concurrency: §2\n", "concurrency: needs `reuse: true` with a command"),
    (SERVER + "    stream: §true\n", "stream: belongs to a command"),
    (IMAGE + "    command: §wc -w\n", "command: must be a list of words, like [wc, -w], not 'wc -w'"),
    (IMAGE + "    command: §[]\n", "command: must be a list of words"),
    (IMAGE + "    command: §[wc, null]\n", "command: must be text or a number, not nothing"),
    (IMAGE + "    content_type: §html\n", "content_type: must be a media type"),
    (IMAGE + '    content_type: §"text/html\\r\\nx: y"\n', "content_type: must be a media type"),
    (SERVER.replace("80", "§0"), "port: must be a whole number from 1 to 65535, not 0"),
    (SERVER.replace("80", "§65536"), "port: must be a whole number from 1 to 65535"),
    (SERVER.replace("80", "§'80'"), "port: must be a whole number from 1 to 65535, not '80'"),
    (SERVER.replace("80", "§010"), "port: must be a whole number from 1 to 65535, not '010'"),
    (SERVER.replace("80", "§80:80"), "port: must be a whole number from 1 to 65535, not '80:80'"),
    (SERVER + "    health: §healthz\n", "health: must be a path that starts with /"),
    (SERVER + '    health: §"/a b"\n', "health: must be a path that starts with /"),
    (SERVER + "    content_type: §text/plain\n", "content_type: belongs to a command"),
    (SERVER + "    env: §{PORT: 8080}\n", "env: PORT is set from `port`; remove it"),
    # Durations, sizes, numbers, switches
    (IMAGE + "    timeout: §30\n", "timeout: 30 has no unit; write 30s, 30m or 30ms"),
    (IMAGE + "    timeout: §0s\n", "timeout: must be from 1ms to 24h, not 0s"),
    (IMAGE + "    timeout: §soon\n", "timeout: 'soon' is not a duration"),
    (IMAGE + "    timeout: §1:30\n", "timeout: '1:30' is not a duration"),
    (IMAGE + "    queue_timeout: §25h\n", "queue_timeout: must be from 0s to 24h, not 25h"),
    (IMAGE + "    keep_alive: §-1s\n", "keep_alive: '-1s' is not a duration"),
    (IMAGE + "    freeze_after: §2\n", "freeze_after: 2 has no unit; write 2s"),
    (IMAGE + "    freeze_after: §31d\n", "freeze_after: must be from 0s to 30d, or never, not 744h"),
    (IMAGE + "    max_age: §500ms\n", "max_age: must be from 1s to 365d, not 500ms"),
    (IMAGE + "    memory: §128\n", "memory: 128 has no unit; write 128MiB or 128MB"),
    (IMAGE + "    memory: §128M\n", "memory: '128M' is not a size"),
    (IMAGE + "    memory: §1MiB\n", "memory: must be from 6MiB to 1TiB, not 1MiB"),
    (IMAGE + "    pids: §15\n", "pids: must be a whole number from 16 to 32768, not 15"),
    (IMAGE + "    nofile: §1048577\n", "nofile: must be a whole number from 64 to 1048576, not 1048577"),
    (IMAGE + "    shm_size: §1KiB\n", "shm_size: must be from 64KiB to 64GiB, not 1KiB"),
    (
        IMAGE + "    user: image\n    capabilities: §setuid\n",
        "capabilities: must be a list, like [chown, setuid, setgid], not 'setuid'",
    ),
    (
        IMAGE + "    user: image\n    capabilities: §[setuid, sys_admin]\n",
        "capabilities: must be some of chown, dac_override, fowner, kill, net_bind_service, setgid, setuid, not "
        "'sys_admin'",
    ),
    (
        IMAGE + "    user: image\n    capabilities: [setuid, §chown]\n",
        "capabilities.1: chown is not allowed; HEARTH_ALLOWED_CAPABILITIES has setgid, setuid; add it there",
    ),
    (
        IMAGE + "    capabilities: §[setuid]\n",
        "capabilities: only root in an image can use them; write `user: image` too, or remove it",
    ),
    (DEFAULTS + "  user: image\n  capabilities: [§chown]\n", "defaults.capabilities.0: chown is not allowed"),
    (IMAGE + "jobs:\n  j:\n    image: x\n    capabilities: §[setuid]\n", "write `user: image` too"),
    (
        IMAGE + "jobs:\n  j: {image: x, user: image, capabilities: [§chown]}\n",
        "jobs.j.capabilities.0: chown is not allowed",
    ),
    (IMAGE + "    tmp_size: §0B\n", "tmp_size: must be from 64KiB to 64GiB, not 0B"),
    (IMAGE + "    max_body: §2TiB\n", "max_body: must be from 0B to 1TiB, not 2TiB"),
    (
        IMAGE + "    max_response: §[1MiB]\n",
        "max_response: must be a size, a number with a unit, like 128MiB",
    ),
    (IMAGE + "    cpus: §0\n", "cpus: must be a number from 0.01 to 256, not 0"),
    (IMAGE + "    cpus: §.inf\n", "cpus: must be a number from 0.01 to 256"),
    (IMAGE + "    cpus: §half\n", "cpus: must be a number from 0.01 to 256, not 'half'"),
    (IMAGE + "    concurrency: §0\n", "concurrency: must be a whole number from 1 to 1000, not 0"),
    (IMAGE + "    concurrency: §1.5\n", "concurrency: must be a whole number from 1 to 1000, not 1.5"),
    (IMAGE + "    queue_size: §true\n", "queue_size: must be a whole number from 1 to 100000, not true"),
    (IMAGE + "    max_instances: §0\n", "max_instances: must be a whole number from 1 to 1000, not 0"),
    (IMAGE + "    max_instances: §1001\n", "max_instances: must be a whole number from 1 to 1000"),
    (SERVER + "    min_instances: §17\n", "min_instances: is 17, more than `max_instances`, 16"),
    (
        SERVER + "    max_instances: 2\n    min_instances: §3\n",
        "min_instances: is 3, more than `max_instances`, 2",
    ),
    (IMAGE + "    max_invocations: §0\n", "max_invocations: must be a whole number from 1, or none, not 0"),
    (SERVER + "    reuse: §false\n    concurrency: 2\n", "`concurrency` must be 1 with it"),
    (IMAGE + "    reuse: §yes\n", "reuse: must be true or false, not 'yes'"),
    (IMAGE + "    web: §1\n", "web: must be true or false, not 1"),
    (IMAGE + "    network: §host\n", "network: must be 'none' or 'egress', not 'host'"),
    (IMAGE + "    network: §null\n", "network: has no value"),
    (IMAGE + "    sandbox: §a/b\n", "sandbox: must be the name of an OCI runtime"),
    # env, labels, user
    (IMAGE + "    env: {DEBUG: §true}\n", "env.DEBUG: must be text or a number, not true; quote it"),
    (IMAGE + "    env: {DEBUG:§ }\n", "env.DEBUG: must be text or a number, not nothing; quote it"),
    (IMAGE + "    env: {LIST: §[a]}\n", "env.LIST: must be text or a number, not a list"),
    (IMAGE + "    env: {1A: §x}\n", "env.1A: must be letters, digits and _"),
    (IMAGE + "    env: {A=B: §x}\n", "to be a variable's name, not 'A=B'"),
    (IMAGE + '    env: {A: §"a\\0b"}\n', "env.A: must be text without NUL"),
    (IMAGE + "    env: §[A=1]\n", "env: must be a mapping, like {key: value}, not a list"),
    (
        IMAGE + "    labels: {team: §on call, up: yes, x: true}\n".replace("§", "").replace("x: ", "x: §"),
        "labels.x: must",
    ),
    (IMAGE + "    labels: {'a b': §c}\n", "to be a label, not 'a b'"),
    (IMAGE + "    user: §0\n", "user: must not be 0: functions do not run as root"),
    (IMAGE + "    user: §1000:0\n", "user: must not be 0"),
    (IMAGE + "    user: §root\n", "user: must be UID or UID:GID in numbers, image"),
    # Accepted calls
    (IMAGE + "    retries: §3\n", "retries: must be a mapping, like {key: value}, not 3"),
    (
        IMAGE + "    retries: {attempts: §0}\n",
        "retries.attempts: must be a whole number from 1 to 100, not 0",
    ),
    (IMAGE + "    retries: {atempts: §2}\n", "retries.atempts: is not a known key here; remove it"),
    (IMAGE + "    retries: {backoff: §1}\n", "retries.backoff: 1 has no unit"),
    (
        IMAGE + "    retries: {on: [crash, §crashes]}\n",
        "must be one of platform, timeout, crash, 429, 5xx or a",
    ),
    (IMAGE + "    retries: {on: [§200]}\n", "or a status from 400 to 599, not 200"),
    (IMAGE + "    retries: {on: §crash}\n", "must be a list, like [platform, timeout, 503], not 'crash'"),
    (IMAGE + "    max_event_age: §31d\n", "max_event_age: must be from 1s to 30d"),
    (IMAGE + "    on_success: §g\n", "on_success: there is no function 'g'"),
    (IMAGE + "    on_failure: §G\n", "on_failure: must be 1 to 63 lower-case letters"),
    (IMAGE + "    callback: §ftp://a.example/\n", "callback: must begin with https:// or http://"),
    (
        IMAGE + "    callback: §https://a.example/\n",
        "callback: a callback to a.example is not allowed; HEARTH_CALLBACK_ALLOW has nothing",
    ),
    # Mounts
    (IMAGE + "    writable: {/: §1MiB}\n", "writable./: must not be / or in /proc, /sys, /dev"),
    (IMAGE + "    writable: {/proc/x: §1MiB}\n", "must not be / or in /proc"),
    (IMAGE + "    writable: {/run/hearth: §1MiB}\n", "must not be / or in /proc"),
    (IMAGE + "    writable: {/function: §1MiB}\n", "must not be / or in /proc"),
    (IMAGE + "    writable: {cache: §1MiB}\n", "must be an absolute path"),
    (
        IMAGE + "    writable: {/a/../b: §1MiB}\n",
        "must be written without '..', '.', '//' or a last '/', as /b",
    ),
    (IMAGE + "    writable: {//proc: §1MiB}\n", "must be written without"),
    (IMAGE + "    writable: {/tmp: §1MiB}\n", "/tmp is always writable; set its size with `tmp_size`"),
    (IMAGE + "    writable: {/cache: §1}\n", "writable./cache: 1 has no unit"),
    (IMAGE + "    writable: §[/cache]\n", "writable: must be a mapping"),
    (IMAGE + "    volumes: §DIR/data:/data\n", "volumes: must be a list"),
    (IMAGE + "    volumes: [§/data]\n", "volumes.0: must be HOST:TARGET, HOST:TARGET:ro or HOST:TARGET:rw"),
    (IMAGE + "    volumes: [§'DIR/data:/b:z', DIR/data:/a]\n", "volumes.0: must be HOST:TARGET"),
    (IMAGE + "    volumes: [§'data:/data']\n", "volumes.0: HOST must be an absolute path"),
    (IMAGE + "    volumes: [§'DIR/data:data']\n", "volumes.0: must be an absolute path"),
    (IMAGE + "    volumes: [§'DIR/data:/sys']\n", "volumes.0: must not be / or in /proc"),
    (
        IMAGE + "    volumes: [§'/etc:/data']\n",
        "volumes.0: '/etc' may not be mounted; HEARTH_ALLOWED_VOLUMES has /",
    ),
    (IMAGE + "    volumes: [§'DIR/data/../private:/data']\n", "may not be mounted"),
    (IMAGE + "    volumes: [§'DIR/data/out:/data']\n", "may not be mounted"),
    (IMAGE + "    volumes: §['DIR/data:/a', 'DIR/data/sub:/a']\n", "volumes: mounts '/a' twice"),
    (IMAGE + "    writable: {/a: 1MiB}\n    volumes: §['DIR/data:/a']\n", "or it is in `writable` too"),
    # Defaults
    (DEFAULTS + "  timeout: §30\n", "defaults.timeout: 30 has no unit"),
    (DEFAULTS + "  image: §busybox\n", "defaults.image: there is no key 'image'"),
    (DEFAULTS + "  environment: §{A: b}\n", "defaults.environment: there is no key 'environment'; write the"),
    (DEFAULTS + "  handler: §'a:b'\n", "defaults.handler: there is no key 'handler'"),
    (DEFAULTS + "  env: {A: §true}\n", "defaults.env.A: must be text or a number"),
    (DEFAULTS + "  min_instances: §17\n", "defaults.min_instances: is 17"),
    (DEFAULTS + "  volumes: [§'/etc:/data']\n", "defaults.volumes.0: '/etc' may not be mounted"),
    (
        "version: 1\ndefaults: {concurrency: 4}\nfunctions:\n  f:\n    §image: busybox\n",
        "needs `reuse: true` with a command: else each call has a container of its own (it comes from `defaults`)",
    ),
]


def test_the_table_is_long_enough_and_has_no_case_twice() -> None:
    assert len({text for text, _ in FAULTY}) == len(FAULTY) >= 60


@pytest.mark.parametrize(("marked", "message"), FAULTY, ids=range(len(FAULTY)))
def test_each_fault_is_told_once_with_its_place(file: Path, marked: str, message: str) -> None:
    line, column = place_of_mark(marked)
    found = faults(file, marked.replace("§", ""))
    assert [(fault.line, fault.column) for fault in found] == [(line, column)], found
    assert message in found[0].message
    assert str(found[0]) == f"{file}:{line}:{column}: {found[0].message}"
    assert "\n" not in str(found[0]) and "Traceback" not in str(found[0])


def test_all_faults_are_told_at_once_by_position(file: Path) -> None:
    text = """\
version: 2
prewarm: {ruby: 1}
defaults: {timeout: 30, memory: 128MiB}
functions:
  good: {image: busybox}
  bad:
    image: busybox
    image: other
    cpus: none
    colour: red
    env: {A: true, B: b}
  Worse: {port: 80}
  alias: *none
"""
    assert [(fault.line, fault.column, fault.message.split(";")[0]) for fault in faults(file, text)] == [
        (1, 10, "version: must be 1, not 2"),
        (2, 17, "prewarm.ruby: there is no runtime 'ruby'"),
        (3, 21, "defaults.timeout: 30 has no unit"),
        (8, 5, "the key 'image' is here twice"),
        (9, 11, "functions.bad.cpus: must be a number from 0.01 to 256, not 'none'"),
        (10, 13, "functions.bad.colour: there is no key 'colour'"),
        (11, 14, "functions.bad.env.A: must be text or a number, not true"),
        (12, 10, "functions.Worse.name: must be 1 to 63 lower-case letters, digits, - or _ with a letter "
         "first, to be a function's name, not 'Worse'"),
        (12, 10, "functions.Worse: has no code"),
        (13, 10, "aliases (*none) are not supported"),
    ]  # fmt: skip


def test_the_message_is_all_faults_a_line_each(file: Path) -> None:
    file.write_text("version: 2\nfunctions: []\n")
    with pytest.raises(DefinitionsError) as caught:
        load(file)
    assert str(caught.value).splitlines() == [
        f"{file}:1:10: version: must be 1, not 2",
        f"{file}:2:12: functions: must be a mapping, or {{}} for an empty one, not a list",
    ]


@pytest.mark.parametrize(
    ("make", "line", "column", "message"),
    [
        (lambda file: None, 1, 1, "this file does not exist"),
        (lambda file: file.mkdir(), 1, 1, "is not a file"),
        (lambda file: os.mkfifo(file), 1, 1, "is not a file"),
        (lambda file: file.symlink_to(file), 1, 1, "this file does not exist"),
        (lambda file: file.symlink_to("/proc/self/mem"), 1, 1, "cannot be read: "),
        (lambda file: file.write_bytes(b"version: 1\n# \xff\n"), 2, 3, "byte 0xff is not UTF-8"),
        (lambda file: file.write_bytes("# äöü".encode() + b"\xc3"), 1, 6, "byte 0xc3 is not UTF-8"),
        (lambda file: file.write_text("#" * (2**20 + 1)), 1, 1, "is larger than 1048576 bytes"),
    ],
)
def test_files_that_cannot_be_read(file: Path, make: object, line: int, column: int, message: str) -> None:
    make(file)  # type: ignore[operator]
    with pytest.raises(DefinitionsError) as caught:
        load(file)
    (fault,) = caught.value.faults
    assert (fault.file, fault.line, fault.column) == (file, line, column)
    assert fault.message.startswith(message)


def test_a_bomb_of_aliases_costs_nothing(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    found = faults(file, "\n".join(lines))
    assert all(
        "aliases" in fault.message or "no key" in fault.message or "missing" in fault.message
        for fault in found
    )


# What is sound


DEFAULT = {
    "timeout": 30.0,
    "queue_timeout": 10.0,
    "queue_size": 1000,
    "memory": 128 * 2**20,
    "cpus": 1.0,
    "cpu_shares": None,
    "pids": 128,
    "nofile": 1024,
    "concurrency": 1,
    "min_instances": 0,
    "max_instances": 16,
    "keep_alive": 600.0,
    "freeze_after": 2.0,
    "max_age": 86400.0,
    "max_invocations": None,
    "reuse": False,
    "env": {},
    "network": "none",
    "tmp_size": 64 * 2**20,
    "shm_size": 64 * 2**20,
    "writable": {},
    "volumes": (),
    "user": "own",
    "max_body": 6 * 2**20,
    "max_response": 64 * 2**20,
    "capabilities": (),
    "sandbox": None,
    "web": False,
    "labels": {},
    "retries": RetryKeys(),
    "max_event_age": 21600.0,
    "on_success": None,
    "on_failure": None,
    "callback": None,
    "runtime": None,
    "source": None,
    "handler": None,
    "image": "busybox",
    "port": None,
    "command": None,
    "health": None,
    "content_type": None,
    "stream": False,
    "schemas": None,
}


def test_every_default_is_in_the_table_of_defaults() -> None:
    assert set(DEFAULT) == set(FunctionDefinition.model_fields) - {"name"}


@pytest.mark.parametrize("key", DEFAULT)
def test_the_default_of_each_key(file: Path, key: str) -> None:
    assert getattr(read(file, IMAGE).functions["f"], key) == DEFAULT[key]


SOUND = [
    ("timeout", "1ms", 0.001),
    ("queue_timeout", "0s", 0.0),
    ("queue_size", "1", 1),
    ("memory", "1GiB", 2**30),
    ("cpus", "0.5", 0.5),
    ("cpus", "2", 2.0),
    ("concurrency", "1000", 1000),
    ("min_instances", "16", 16),
    ("max_instances", "1000", 1000),
    ("keep_alive", "30d", 2592000.0),
    ("freeze_after", "0s", 0.0),
    ("freeze_after", "never", None),
    ("max_age", "1s", 1.0),
    ("max_invocations", "5", 5),
    ("max_invocations", "none", None),
    ("max_invocations", "null", None),
    ("reuse", "false", False),
    ("env", "{A: yes, B: 1.10, C: 0755, D: 8, NO: '', F: 1e3, G: 9999999999999999999999}",
     {"A": "yes", "B": "1.10", "C": "0755", "D": "8", "NO": "", "F": "1e3", "G": "9" * 22}),
    ("network", "egress", "egress"),
    ("network", "none", "none"),
    ("tmp_size", "1MB", 1_000_000),
    ("pids", "32768", 32_768),
    ("nofile", "64", 64),
    ("shm_size", "1GiB", 2**30),
    ("capabilities", "[]", ()),
    ("writable", "{/var/cache: 16MiB}", {"/var/cache": 2**24}),
    ("volumes", "['DIR/data:/data']", (Mount("DIR/data", "/data", read_only=True),)),
    ("volumes", "['DIR/data/sub:/data:rw']", (Mount("DIR/data/sub", "/data", read_only=False),)),
    ("user", "image", "image"),
    ("user", "own", "own"),
    ("user", "1000", "1000:1000"),
    ("user", "1000:100", "1000:100"),
    ("max_body", "0B", 0),
    ("max_response", "1TiB", 2**40),
    ("sandbox", "runsc", "runsc"),
    ("web", "true", True),
    (
        "retries",
        "{attempts: 5, backoff: 100ms, on: [503, timeout]}",
        RetryKeys.model_validate({"attempts": 5, "backoff": "100ms", "on": [503, "timeout"]}),
    ),
    ("on_failure", "f", "f"),
    ("labels", "{team: edge, com.example/cost: 1.20}", {"team": "edge", "com.example/cost": "1.20"}),
    ("health", "/healthz?full=1", "/healthz?full=1"),
    ("command", "[serve, --port, 80, --rate, 1.50]", ("serve", "--port", "80", "--rate", "1.50")),
    ("image", "registry.example:5000/a/b_c:v1.2", "registry.example:5000/a/b_c:v1.2"),
    ("image", f"x@sha256:{'0' * 64}", f"x@sha256:{'0' * 64}"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "text", "value"), SOUND)
def test_values_that_are_sound(file: Path, key: str, text: str, value: object) -> None:
    lines = {"image": "busybox", "port": "80"} | {key: text}
    written = "".join(f"    {name}: {lines[name]}\n" for name in lines)
    function = read(file, f"version: 1\nfunctions:\n  f:\n{written}").functions["f"]
    if isinstance(value, tuple) and value and isinstance(value[0], Mount):
        value = tuple(Mount(m.source.replace("DIR", str(file.parent)), m.target, m.read_only) for m in value)
    assert getattr(function, key) == value


def test_a_capability_counts_once(file: Path) -> None:
    text = IMAGE + "    user: image\n    capabilities: [setuid, setgid, setuid]\n"
    assert read(file, text).functions["f"].capabilities == ("setuid", "setgid")


def test_kinds(file: Path) -> None:
    functions = read(
        file, HANDLER + "  h: {image: x, port: 80}\n  c: {image: x, content_type: text/html}\n"
    ).functions
    assert [(f.name, f.kind) for f in functions.values()] == [
        ("f", Kind.HANDLER),
        ("h", Kind.HTTP),
        ("c", Kind.COMMAND),
    ]
    assert functions["f"].source == file.parent / "code"
    assert functions["c"].content_type == "text/html"


def test_a_command_runs_in_a_fresh_container_unless_it_says_otherwise(file: Path) -> None:
    commands = "  c: {image: x}\n  kept: {image: x, reuse: true, concurrency: 4}\n  h: {image: x, port: 80}\n"
    functions = read(file, HANDLER + commands).functions
    assert {name for name, function in functions.items() if not function.reuse} == {"c"}
    given = "version: 1\ndefaults: {reuse: true}\nfunctions: {c: {image: x}}\n"
    assert read(file, given).functions["c"].reuse


def test_a_handler_in_a_package(file: Path) -> None:
    assert read(file, HANDLER.replace("main:", "package:")).functions["f"].handler == "package:handle"


def test_defaults_are_part_of_each_function_and_give_way_to_its_own(file: Path) -> None:
    text = "version: 1\ndefaults: {timeout: 5s, env: {A: 1, B: 2}}\nfunctions:\n"
    read_back = read(file, text + "  a: {image: x}\n  b: {image: x, timeout: 1m, env: {C: 3}}\n")
    a, b = read_back.functions.values()
    assert (a.timeout, a.env) == (5.0, {"A": "1", "B": "2"})
    assert (b.timeout, b.env) == (60.0, {"C": "3"})
    assert read_back.defaults.timeout == 5.0


def test_a_faulty_default_is_told_once(file: Path) -> None:
    text = (
        "version: 1\ndefaults: {timeout: 5, min_instances: 99}\nfunctions: {a: {image: x}, b: {image: x}}\n"
    )
    assert [(fault.line, fault.column) for fault in faults(file, text)] == [(2, 21), (2, 39)]


def test_the_least_file_and_its_order(file: Path) -> None:
    assert read(file, "version: 1\nfunctions: {}\n") == Definitions()
    names = list(read(file, "version: 1\nfunctions: {z: {image: x}, a: {image: x}}\n").functions)
    assert names == ["z", "a"]


def test_a_byte_order_mark_and_windows_line_ends(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfversion: 1\r\nfunctions:\r\n  f: {image: x, cpus: a}\r\n")
    with pytest.raises(DefinitionsError) as caught:
        load(file)
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(3, 23)]


def test_other_runtimes_can_be_known(file: Path) -> None:
    file.write_text("version: 1\nprewarm: {ruby: 1}\nfunctions: {}\n")
    assert load(file, runtimes={"ruby"}).prewarm == {"ruby": 1}


def test_no_volume_is_allowed_unless_a_setting_says_so(file: Path) -> None:
    file.write_text(IMAGE + "    volumes: ['/data:/data']\n")
    with pytest.raises(DefinitionsError, match="HEARTH_ALLOWED_VOLUMES has no folder"):
        load(file)


def test_a_definition_is_immutable_and_checked_when_made_by_hand() -> None:
    function = FunctionDefinition(name="f", image="x")
    with pytest.raises(ValidationError):
        function.timeout = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="`concurrency` must be 1 with it"):
        FunctionDefinition(name="f", image="x", concurrency=2)
    with pytest.raises(ValidationError, match="Extra inputs"):
        FunctionDefinition.model_validate({"name": "f", "image": "x", "timout": "1s"})
    assert FunctionDefinition.model_validate_json(function.model_dump_json(exclude_none=True)) == function


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, True),
        (
            {
                "memory": "1GiB",
                "cpus": 2,
                "env": {"A": "1"},
                "timeout": "1s",
                "concurrency": 8,
                "reuse": False,
            },
            None,
        ),
        ({"memory": "1GiB", "cpus": 2, "env": {"A": "1"}, "timeout": "1s", "concurrency": 8}, True),
        ({"tmp_size": "1MiB"}, False),
        ({"tmp_size": "65536KiB"}, True),
        ({"pids": 129}, False),
        ({"nofile": 2048}, False),
        ({"shm_size": "1GiB"}, False),
        ({"pids": 128, "nofile": 1024, "shm_size": "64MiB", "capabilities": []}, True),
        ({"writable": {"/a": "1MiB"}}, False),
        ({"volumes": ["/a:/a"]}, False),
        ({"user": "1"}, False),
        ({"user": "65532:65532"}, False),
        ({"user": "own"}, True),
        ({"network": "egress"}, False),
        ({"sandbox": "runsc"}, False),
    ],
)
def test_which_functions_a_prewarmed_instance_can_become(
    keys: dict[str, object], expected: bool | None
) -> None:
    given = {"name": "f", "runtime": "python", "source": Path("/code"), "handler": "m:f", **keys}
    if expected is None:
        with pytest.raises(ValidationError, match="gives each call an instance of its own"):
            FunctionDefinition.model_validate(given)
    else:
        assert FunctionDefinition.model_validate(given).shape_is_default() is expected


def test_an_image_never_has_the_shape_of_a_prewarmed_instance() -> None:
    assert not FunctionDefinition(name="f", image="x").shape_is_default()


def test_defaults_hold_no_key_that_makes_a_kind() -> None:
    own = set(FunctionDefinition.model_fields) - set(Defaults.model_fields)
    assert own == {
        "name",
        "runtime",
        "source",
        "handler",
        "image",
        "port",
        "command",
        "health",
        "content_type",
        "stream",
        "schemas",
    }


# Whatever is in the file, what comes out is definitions or faults


KEYS = st.sampled_from(
    [*FunctionDefinition.model_fields, "version", "defaults", "prewarm", "functions", "f", "python"]
)
SCRAPS = """
1 0 -1 1.5
30s 30 128MiB true no null ~ [] {} python code main:handle busybox /a /etc:/a 80 ' " & * | > ! << &a *a
!!int !x - ? : , # %YAML --- ... \\
"""
WORDS = st.sampled_from([*SCRAPS.split(), "\t", "\0", "\u00e9", "\u2028", "\ufeff"])
PIECES = st.lists(
    st.one_of(
        KEYS,
        WORDS,
        st.sampled_from([": ", "\n", "\n  ", "\n    ", ", ", "{", "}", "[", "]", "- "]),
        st.text(max_size=3),
    )
).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(max_size=8)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def accept_or_refuse(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    try:
        definitions = load(file, allowed_volumes=[file.parent])
    except DefinitionsError as error:
        assert error.faults
        assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in error.faults)
        assert error.faults == sorted(error.faults, key=lambda fault: (fault.line, fault.column))
        assert len(str(error).splitlines()) >= len(error.faults)
        str(error).encode()
    else:
        assert isinstance(definitions, Definitions)


QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(PIECES)
@example("%YAML 1." + "9" * 5000 + "\n---\n")
@example("? {a: b}\n: c")
@example("version: 1\nfunctions: {f: {source: " + "../" * 3000 + "}}")
@example("[" * 5000)
@example("{" * 5000)
def test_random_text_gives_definitions_or_faults(file: Path, text: str) -> None:
    accept_or_refuse(file, text.encode())


@QUICK
@given(st.binary())
def test_random_bytes_give_definitions_or_faults(file: Path, data: bytes) -> None:
    accept_or_refuse(file, data)


@QUICK
@given(st.dictionaries(KEYS, VALUES, max_size=8), st.dictionaries(KEYS, VALUES, max_size=4))
def test_random_values_give_definitions_or_faults(
    file: Path, keys: dict[str, object], defaults: object
) -> None:
    import json

    text = json.dumps(
        {"version": 1, "defaults": defaults, "functions": {"f": keys}, "prewarm": keys.get("env", {})}
    )
    accept_or_refuse(file, text.encode())
