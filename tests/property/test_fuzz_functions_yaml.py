"""Whatever is in functions.yaml, it is either definitions or faults that have a place and say something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.definitions.brokers import BROKER_KINDS, MessageHandling
from scheduler.definitions.file import Defaults, Definitions, DefinitionsError, FunctionDefinition, Kind, load
from scheduler.definitions.jobs import KEYS as JOB_KEYS
from scheduler.definitions.jobs import MAX_TASKS
from tests.support.wire import LOOK_HARDER

KEYS = sorted(
    {*Defaults.model_fields, *FunctionDefinition.model_fields, "version", "functions", "prewarm", "x", ""}
)
WORDS = [
    "python",
    "main:handle",
    "code",
    "../code",
    "/",
    "busybox",
    "hearth-example/api:latest",
    "30s",
    "1h30m",
    "-1s",
    "99999999999d",
    "128MiB",
    "0B",
    "1e400",
    "egress",
    "none",
    "yes",
    "/data:/data:ro",
    "/healthz",
    "\u2028",
    "\U0001f600" * 40,
    "a" * 5000,
    "\0",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 100_000),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=20),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
SOUND: list[dict[str, Any]] = [
    {"runtime": "python", "source": "code", "handler": "main:handle"},
    {"image": "busybox", "command": ["wc", "-w"]},
    {"image": "busybox", "port": 80, "health": "/", "concurrency": 4},
]
JOBS: list[dict[str, Any]] = [
    {"image": "busybox", "command": ["true"], "count": 3, "remove": "none"},
    {"function": "f", "inputs": [1, "two"]},
]
SOURCE_KEYS = sorted(
    {
        *MessageHandling.model_fields,
        *(key for model, _ in BROKER_KINDS.values() for key in model.model_fields),
    }
)
SOURCES: list[dict[str, Any]] = [
    {"redis": {"url": "redis://h:6379/0", "stream": "orders"}},
    {"nats": {"url": "nats://h", "stream": "ORDERS"}, "in_hand": 1},
    {"mqtt": {"url": "mqtt://h", "topic": "a/#"}, "source": "/shop"},
]
EXAMPLES = (Path(__file__).parents[2] / "functions.yaml").read_text()
SNIPPETS = [
    "\t",
    "\r",
    ":",
    "- ",
    "&a ",
    "*a",
    "<<: *a",
    "!!python/object:os.system ",
    "? ",
    "|",
    ">-",
    "%YAML 9.9",
    "---",
    "...",
    "{",
    "]",
]
SNIPPETS += [
    "'",
    '"',
    "#",
    "\ufeff",
    "\x85",
    "\0",
    "\ud7ff",
    "0x1F",
    "1_000",
    ".inf",
    "~",
    "  " * 40,
    "{" * 50,
    "\n",
]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Sound documents in which some keys have got other values."""
    functions = {}
    for name in draw(st.lists(st.sampled_from(["f", "g-1", "F", "", "a" * 64]), max_size=3, unique=True)):
        keys = dict(draw(st.sampled_from(SOUND)))
        functions[name] = keys | draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2))
    document: dict[str, Any] = {"version": 1, "functions": functions}
    document["defaults"] = draw(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2))
    if draw(st.booleans()):
        source = dict(draw(st.sampled_from(SOURCES)))
        kind = next(iter(source))
        source[kind] = source[kind] | draw(st.dictionaries(st.sampled_from(SOURCE_KEYS), VALUES, max_size=2))
        source |= draw(st.dictionaries(st.sampled_from([*SOURCE_KEYS, *BROKER_KINDS]), VALUES, max_size=1))
        document["sources"] = {draw(st.sampled_from(["s", "S"])): source}
    if draw(st.booleans()):
        given = draw(st.dictionaries(st.sampled_from(JOB_KEYS), VALUES, max_size=2))
        document["jobs"] = {draw(st.sampled_from(["j", "J", ""])): draw(st.sampled_from(JOBS)) | given}
    return document | draw(
        st.dictionaries(
            st.sampled_from(["version", "prewarm", "functions", "sources", "jobs", "x"]), VALUES, max_size=1
        )
    )


@st.composite
def edited_text(draw: st.DrawFn) -> str:
    """The examples' own file after a few slips of the hand."""
    text = draw(st.sampled_from([EXAMPLES, "version: 1\nfunctions:\n  f:\n    image: busybox\n"]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at + draw(st.sampled_from([0, 0, 1, 20])) :]
    return text


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("definitions")
    (folder / "code").mkdir()
    (folder / "code" / "main.py").write_text("")
    return folder / "functions.yaml"


def check(file: Path, data: bytes) -> None:
    """Definitions that make sense, or faults that help."""
    file.write_bytes(data)
    try:
        found = load(file, allowed_volumes=[Path("/data")])
    except DefinitionsError as error:
        lines = data.decode(errors="replace").count("\n") + data.count(b"\r") + 2
        assert error.faults
        for fault in error.faults:
            assert fault.file == file
            assert 1 <= fault.line <= lines + data.count(b"\xc2\x85") + data.count(b"\xe2\x80")
            assert fault.column >= 1
            assert fault.message.strip()
            assert len(fault.message) < 1500, "a message is to be read"
            assert "\n" not in str(fault)
            str(fault).encode()
            assert "object at 0x" not in fault.message
        return
    assert isinstance(found, Definitions)
    for definition in found.functions.values():
        assert definition.kind in Kind
        assert definition.timeout > 0
        assert definition.memory > 0
        assert 0 <= definition.min_instances <= definition.max_instances
        assert definition.concurrency >= 1
    for job in found.jobs.values():
        assert (job.image is None) != (job.function is None)
        assert job.tasks is None or 1 <= job.tasks <= MAX_TASKS
        json.dumps(job.inputs)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
@example(b"\xff\xfev\x00")
def test_any_bytes(file: Path, data: bytes) -> None:
    check(file, data)


@LOOK_HARDER
@given(documents())
def test_documents_with_other_values(file: Path, document: dict[str, Any]) -> None:
    check(file, json.dumps(document).encode())


@LOOK_HARDER
@given(edited_text())
def test_slips_of_the_hand(file: Path, text: str) -> None:
    check(file, text.encode())
