"""`jobs:` of functions.yaml: what is sound, every fault at its place; docs/jobs.md says every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scheduler.definitions.container_keys import ContainerKeys
from scheduler.definitions.file import Definitions, DefinitionsError, load
from scheduler.definitions.jobs import KEYS, MAX_TASKS, JobDefinition
from scheduler.jobs.model import JobStatus, TaskState

DOCUMENT = (Path(__file__).parents[4] / "docs" / "jobs.md").read_text()
HEAD = "version: 1\nfunctions: {f: {image: busybox}}\njobs:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "functions.yaml"


def read(file: Path, jobs: str) -> Definitions:
    file.write_text(HEAD + jobs)
    return load(file)


def test_a_job_has_the_keys_that_it_is_given_and_the_defaults_of_the_others(file: Path) -> None:
    jobs = read(
        file,
        "  a: {image: busybox, command: [echo, 1.10], count: 10, retries: 20, memory: 100MB, cpu_shares: 10}\n"
        "  b: {function: f, inputs: [1, two, {three: 3}], parallel: 2, on_failure: f, timeout: 5s}\n"
        "  c: {image: busybox}\n",
    ).jobs
    assert list(jobs) == ["a", "b", "c"]
    assert jobs["a"].command == ("echo", "1.10") and jobs["a"].memory == 100_000_000
    assert (jobs["a"].tasks, jobs["b"].tasks, jobs["c"].tasks) == (10, 3, None)
    assert jobs["b"].inputs == (1, "two", {"three": 3}) and jobs["b"].timeout == 5.0
    assert (jobs["c"].retries, jobs["c"].remove, jobs["c"].user) == (0, "all", "own")


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("  a: §{count: 1}", "has nothing to run; write `image`"),
        ("  a: §hello", "must be a mapping with the job's keys, not 'hello'"),
        ("  A: §{image: x}", "must be 1 to 63 lower-case letters"),
        ("  a: {image: x, cuont: §1}", "there is no key 'cuont'; did you mean `count`?"),
        ("  a: {image: x, count: §0}", "must be a whole number from 1 to 1000000, not 0"),
        ("  a: {image: x, inputs: §[]}", "must be a list of 1 to 1000000 inputs"),
        ("  a: {image: x, inputs: [1], count: §1}", "`inputs` has one task for each; remove one of the two"),
        ("  a: {image: x, function: §f}", "either `image` or `function`"),
        ("  a: {function: §g}", "there is no function 'g'"),
        ("  a: {function: f, on_success: §g}", "there is no function 'g'"),
        ("  a: {function: f, memory: §1GiB}", "belongs to a job with `image`"),
        ("  a: {function: f, remove: §none}", "belongs to a job with `image`"),
        ("  a: {image: x, remove: §some}", "must be 'all', 'succeeded' or 'none', not 'some'"),
        ("  a: {image: x, memory: §100}", "has no unit"),
        ("  a: {image: x, retries: §-1}", "must be a whole number from 0 to 1000"),
        ("  a: {image: x, volumes: [§'/etc:/data']}", "may not be mounted"),
        (
            "  a: {image: x, writable: {/data: 1MiB}, volumes: [§'relative:/data']}",
            "HOST must be an absolute path",
        ),
    ],
)
def test_each_fault_is_told_at_its_place(file: Path, marked: str, message: str) -> None:
    before = (HEAD + marked).partition("§")[0]
    line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
    with pytest.raises(DefinitionsError) as caught:
        read(file, marked.replace("§", "") + "\n")
    (fault,) = [fault for fault in caught.value.faults if message in fault.message]
    assert (fault.line, fault.column) == (line, column), caught.value.faults


# -- docs/jobs.md -----------------------------------------------------------------------------------------------


def table(first: str) -> dict[str, list[str]]:
    """The rows of the table whose first column is called so, by what is in that column."""
    rows = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    assert rows is not None, first
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[1].splitlines()]
    return {row[0].strip("` "): row[1:] for row in cells}


def test_every_key_is_documented_with_its_default() -> None:
    own = set(KEYS) - set(ContainerKeys.model_fields)
    rows = table("key")
    assert set(rows) == own
    shown = JobDefinition(image="x").model_dump(mode="json")
    for key in own:
        default = "none" if shown[key] is None or key == "image" else str(shown[key])
        assert rows[key][1].strip("`") == default, key
    sentence = re.search(r"A job with `image` also has(.*?)\[functions.yaml\]", DOCUMENT, re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) - {"image"} == set(ContainerKeys.model_fields)


def test_states_and_numbers_are_true() -> None:
    assert set(table("`status` of a job")) == {status.value for status in JobStatus}
    sentence = re.search(r"A task is (.*?)\. It is tried", DOCUMENT, re.DOTALL)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == {state.value for state in TaskState}
    assert f"1 to {MAX_TASKS}" in DOCUMENT


def test_the_example_is_sound(file: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example is not None
    file.write_text(example[1])
    assert load(file).jobs["dice"].tasks == 10
