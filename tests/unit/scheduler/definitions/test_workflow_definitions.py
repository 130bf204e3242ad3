"""`workflows:` of functions.yaml: what is sound, and every fault with its place."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from scheduler.definitions.file import Definitions, DefinitionsError, load

HEAD = """\
version: 1
functions:
  f: {image: x}
  g: {image: x}
workflows:
"""


def read(tmp_path: Path, workflows: str) -> Definitions:
    file = tmp_path / "functions.yaml"
    file.write_text(HEAD + textwrap.indent(textwrap.dedent(workflows), "  "))
    return load(file)


def faults(tmp_path: Path, workflows: str) -> list[str]:
    """`LINE:COLUMN: message` of each fault; the first line of `workflows` is line 6."""
    with pytest.raises(DefinitionsError) as caught:
        read(tmp_path, workflows)
    return [f"{fault.line}:{fault.column}: {fault.message}" for fault in caught.value.faults]


def test_a_list_of_functions_is_a_pipeline(tmp_path: Path) -> None:
    made = read(tmp_path, "p: [f, g, f]").workflows["p"]
    assert {name: (step.function, step.needs) for name, step in made.steps.items()} == {
        "f": ("f", ()),
        "g": ("g", ("f",)),
        "f-2": ("f", ("g",)),
    }
    assert made.last() == ["f-2"]
    assert made.functions() == ["f", "g"]


def test_every_key_of_a_step_is_read(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        """
        w:
          steps:
            a: {function: f, timeout: 5s, retries: {attempts: 5}}
            b:
              function: g
              needs: [a]
              when: input.wanted
              map: steps.a.output[?size > `10`]
              input: "{item: item, number: index, all: steps.a.output, run: input}"
              parallel: 2
              may_fail: true
          output: "{a: steps.a.status, b: steps.b.output}"
          on_failure: g
        """,
    ).workflows["w"]
    a, b = made.steps["a"], made.steps["b"]
    assert (a.timeout, a.retries and a.retries.attempts, a.retries and a.retries.backoff) == (5.0, 5, 1.0)
    assert (b.needs, b.parallel, b.may_fail) == (("a",), 2, True)
    assert made.functions() == ["f", "g"]


def test_a_cycle_is_named_at_the_place_of_one_of_its_needs(tmp_path: Path) -> None:
    told = faults(
        tmp_path,
        """\
        w:
          steps:
            a: {function: f, needs: [c]}
            b: {function: f, needs: [a]}
            c: {function: f, needs: [b]}
        """,
    )
    assert len(told) == 1
    place, _, message = told[0].partition(": ")
    assert place in ("8:32", "9:32", "10:32")
    circles = ("a -> c -> b -> a", "b -> a -> c -> b", "c -> b -> a -> c")
    assert message.endswith(tuple(f"is a circle: {one}; remove one of these needs" for one in circles))


def test_a_step_that_needs_itself_is_a_circle(tmp_path: Path) -> None:
    (told,) = faults(tmp_path, "w: {steps: {a: {function: f, needs: [a]}}}")
    assert told == "6:40: workflows.w.steps.a.needs.0: is a circle: a -> a; remove one of these needs"


@pytest.mark.parametrize(
    ("workflow", "told"),
    [
        ("w: 3", "6:6: workflows.w: must be a list of functions, or a mapping with `steps`, not 3"),
        ("w: []", "6:6: workflows.w: must hold 1 to 1000 functions, not 0"),
        ("w: [f, h]", "6:10: workflows.w.1: there is no function 'h'; allowed: f, g"),
        ("w: [f, 3]", "6:10: workflows.w.1: must be a function's name, not 3"),
        (
            "w: {steps: {}}",
            "6:14: workflows.w.steps: must be a mapping of 1 to 1000 steps by name, not a mapping",
        ),
        (
            "w: {steps: {a: {}}}",
            "6:18: workflows.w.steps.a: `function` is missing; write the name of the function to call",
        ),
        ("w: {steps: {a: f}}", "6:18: workflows.w.steps.a: must be a mapping with the step's keys, not 'f'"),
        (
            "w: {steps: {a: {function: h}}}",
            "6:29: workflows.w.steps.a.function: there is no function 'h'; allowed: f, g",
        ),
        (
            "w: {steps: {a: {function: f, need: [b]}}}",
            "6:38: workflows.w.steps.a.need: there is no key 'need'; did you mean `needs`?",
        ),
        (
            "w: {steps: {a: {function: f, needs: [b]}}}",
            "6:40: workflows.w.steps.a.needs.0: there is no step 'b'; allowed: a",
        ),
        (
            "w: {steps: {a: {function: f, needs: b}}}",
            "6:39: workflows.w.steps.a.needs: must be a list of steps, like [fetch], not 'b'",
        ),
        (
            'w: {steps: {a: {function: f, input: "input."}}}',
            "6:39: workflows.w.steps.a.input: is not a JMESPath expression: Expecting: ",
        ),
        (
            "w: {steps: {a: {function: f, when: true}}}",
            "6:38: workflows.w.steps.a.when: must be a JMESPath expression in text, like steps.fetch.output, not ",
        ),
        (
            "w: {steps: {a: {function: f}, b: {function: f, input: steps.a.output}}}",
            "6:57: workflows.w.steps.b.input: reads the step 'a', which is not in `needs`; it needs no step",
        ),
        (
            "w: {steps: {a: {function: f}}, output: steps.b.output}",
            "6:42: workflows.w.output: reads the step 'b', which is not in `needs`; it needs a",
        ),
        (
            "w: {steps: {a: {function: f, input: item.x}}}",
            "6:39: workflows.w.steps.a.input: begins with `item`, which does not exist; it can begin with input, "
            "steps.NAME",
        ),
        (
            "w: {steps: {a: {function: f, input: length(steps)}}}",
            "6:39: workflows.w.steps.a.input: takes `steps` as a whole; name the step, as in steps.NAME.output",
        ),
        (
            "w: {steps: {a: {function: f, parallel: 3}}}",
            "6:42: workflows.w.steps.a.parallel: is for a step with `map`, which calls its function many times",
        ),
        (
            "w: {steps: {a: {function: f}}, on_failure: h}",
            "6:46: workflows.w.on_failure: there is no function 'h'; allowed: f, g",
        ),
        (
            "w: {steps: {A: {function: f}}}",
            "6:18: workflows.w.steps.A: must be 1 to 63 lower-case letters, digits, - or _ with a letter first, "
            "to be a step's name, not 'A'",
        ),
        (
            "W: [f]",
            "6:6: workflows.W: 'W' must be 1 to 63 lower-case letters, digits, - or _ with a letter first, "
            "to be a workflow's name",
        ),
        ("w: {steps: {a: {function: f, timeout: 5}}}", "6:41: workflows.w.steps.a.timeout: 5 has no unit"),
    ],
)
def test_faults_have_their_place_and_say_how_to_mend_them(tmp_path: Path, workflow: str, told: str) -> None:
    found = faults(tmp_path, workflow)
    assert len(found) == 1, found
    assert found[0].startswith(told), found[0]


def test_several_faults_are_told_together(tmp_path: Path) -> None:
    assert len(faults(tmp_path, "w: {steps: {a: {function: h, needs: [x], wen: y}}, out: z}")) == 4
