"""Expressions of workflows, the values that they are evaluated over, and the bodies that steps are called with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definitions.language.expressions import (
    MAX_EXPRESSION_CHARACTERS,
    ExpressionError,
    evaluate,
    is_true,
    steps_named,
)
from scheduler.definitions.workflows import StepDefinition, WorkflowDefinition
from scheduler.work import Body
from scheduler.workflows.evaluation import (
    MAX_ITEMS,
    MAX_STEP_BYTES,
    EndedStep,
    RunFacts,
    StepFault,
    evaluate_output,
    evaluate_step,
    needed_outputs,
    outputs_for_result,
)
from scheduler.workflows.model import StepStatus
from scheduler.workflows.values import EMPTY_BODY, JSON, MAX_BODY_BYTES, TEXT, body_to_value, value_to_body

NAMES = frozenset({"input", "item"})
JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner | st.text() | st.none()) | st.dictionaries(st.text(), inner | st.text()),
    max_leaves=10,
)

# -- expressions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("steps.a.output.x", {"a"}),
        ('steps."a-b".output', {"a-b"}),
        ("length(steps.a.output)", {"a"}),
        ("{x: steps.a.output, y: input.z}", {"a"}),
        ("[steps.a, steps.b.output]", {"a", "b"}),
        ("steps.a.output[?steps.b > `1`].steps.c", {"a"}),
        ("steps.a[0] || steps.b[].x && !(steps.c)", {"a", "b", "c"}),
        ("steps.a.output[*].steps | [0]", {"a"}),
        ("input.list[?steps.z]", set()),
        ("map(&steps.a, input.l)", set()),
        ("`true`", set()),
        ("'text'", set()),
        ("item == steps.a.status", {"a"}),
        ("not_null(steps.a.output[].b, `1`)", {"a"}),
    ],
)
def test_it_is_known_which_steps_an_expression_looks_at(text: str, named: set[str]) -> None:
    assert steps_named(text, NAMES) == named


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps", "name the step"),
        ("steps.*.output", "name the step"),
        ("steps | a", "name the step"),
        ("keys(steps)", "name the step"),
        ("steps.[a, b]", "name the step"),
        ("@", "takes everything together"),
        ("imput.x", "begins with `imput`"),
        ("[*].x", "takes everything together"),
        ("a.", "is not a JMESPath expression"),
        ("", "is not a JMESPath expression"),
        ("nofunc(", "is not a JMESPath expression"),
        ("a" * (MAX_EXPRESSION_CHARACTERS + 1), "4097 characters"),
        ("!" * 4000 + "a", "nested too deep"),
    ],
)
def test_what_is_no_expression_or_looks_at_too_much_is_refused(text: str, told: str) -> None:
    with pytest.raises(ExpressionError, match="^.*" + told):
        steps_named(text, NAMES)


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        steps_named(text, NAMES)
    except ExpressionError as error:
        assert str(error)


@pytest.mark.parametrize("text", ["nofunc(input)", "length(input)", "sort_by(input.l, &x)", "to_number()"])
def test_what_does_not_hold_over_the_values_is_told(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"nofunc|length|sort_by|to_number"):
        evaluate(text, {"input": 3})


def test_truth_is_that_of_jmespath() -> None:
    assert [is_true(value) for value in (None, False, "", [], {})] == [False] * 5
    assert [is_true(value) for value in (0, True, "x", [0], {"a": None}, 0.0)] == [True] * 6


# -- values and bodies ----------------------------------------------------------------------------------------


@given(JSON_VALUES)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    assert body_to_value(value_to_body(value)) == value


@given(st.text(min_size=1))
def test_text_travels_as_text(text: str) -> None:
    assert value_to_body(text) == Body(text.encode(), TEXT)
    assert body_to_value(value_to_body(text)) == text


@given(st.binary(min_size=1))
def test_bytes_travel_with_their_type(data: bytes) -> None:
    body = Body(data, "image/png")
    value = body_to_value(body)
    assert isinstance(value, dict) and value["content_type"] == "image/png"
    assert value_to_body(value) == body


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (Body(b"", JSON), None),
        (Body(b'{"a":1}', "application/json; charset=utf-8"), {"a": 1}),
        (Body(b'{"a":1}', "application/problem+json"), {"a": 1}),
        (Body(b'{"a":1}', ""), {"a": 1}),
        (Body(b'{"a":1}', "application/x-www-form-urlencoded"), {"a": 1}),
        (Body(b"a=1", "application/x-www-form-urlencoded"), "a=1"),
        (Body(b"\xff", "text/plain"), {"content_type": "text/plain", "base64": "/w=="}),
        (Body(b"<p>", "text/html"), "<p>"),
    ],
)
def test_what_a_body_is_to_expressions(body: Body, value: object) -> None:
    assert body_to_value(body) == value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (Body(b"{", JSON), "is not valid JSON"),
        (Body(b"NaN", JSON), "NaN is not a JSON number"),
        (Body(b"[" * 100_000, JSON), "nested too deep"),
        (Body(b"x" * (MAX_BODY_BYTES + 1), "image/png"), f"{MAX_BODY_BYTES} is the most"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(body: Body, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        body_to_value(body)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (float("nan"), "JSON"),
        ("\ud800", "surrogates"),
        ("x" * (MAX_BODY_BYTES + 1), f"{MAX_BODY_BYTES} is the most"),
        ({"content_type": 3, "base64": ""}, "is not text"),
        ({"content_type": "a\nb", "base64": ""}, "no header"),
        ({"content_type": "a/b", "base64": "%"}, "not valid base64"),
    ],
)
def test_a_value_that_no_body_can_hold_is_refused(value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        value_to_body(value)


# -- what a step is called with -------------------------------------------------------------------------------


def step(**keys: object) -> StepDefinition:
    return StepDefinition.model_validate({"function": "f", **keys})


def ended(*answers: object, is_list: bool = False) -> EndedStep:
    return EndedStep(
        StepStatus.SUCCEEDED, [None if a is None else value_to_body(a) for a in answers], is_list
    )


SKIPPED = EndedStep(StepStatus.SKIPPED)
RUN = value_to_body({"n": 1})


def test_without_expressions_bodies_go_on_as_they_are() -> None:
    page = Body(b"<p>", "text/html")
    assert evaluate_step(step(), RunFacts(page, {})) == (page,)
    assert evaluate_step(
        step(needs=["a"]), RunFacts(RUN, {"a": EndedStep(StepStatus.SUCCEEDED, [page])})
    ) == (page,)
    assert evaluate_step(step(needs=["a"]), RunFacts(RUN, {"a": SKIPPED})) == (EMPTY_BODY,)


def test_several_that_are_needed_come_by_name_and_a_list_as_a_list() -> None:
    facts = RunFacts(RUN, {"a": ended(1), "b": ended("x", None, is_list=True), "c": SKIPPED})
    assert evaluate_step(step(needs=["a", "b", "c"]), facts) == (
        value_to_body({"a": 1, "b": ["x", None], "c": None}),
    )
    assert evaluate_step(step(needs=["b"]), facts) == (value_to_body(["x", None]),)


def test_a_step_whose_when_is_not_true_is_skipped() -> None:
    facts = RunFacts(RUN, {"a": SKIPPED, "b": ended(0)})
    assert evaluate_step(step(when="steps.a.output"), facts) is None
    assert evaluate_step(step(when="steps.a.status == 'skipped'", input="input.n"), facts) == (
        value_to_body(1),
    )
    assert (
        evaluate_step(step(when="steps.b.output", map="input.none"), RunFacts(RUN, {"b": ended(False)}))
        is None
    )


def test_each_item_is_called_with_its_own_body_in_order() -> None:
    facts = RunFacts(value_to_body({"l": [3, 1, 2], "k": "x"}), {})
    assert evaluate_step(step(map="input.l"), facts) == (value_to_body(3), value_to_body(1), value_to_body(2))
    mapped = evaluate_step(step(map="input.l", input="{i: index, v: item, k: input.k}"), facts)
    assert mapped is not None
    assert [body_to_value(body) for body in mapped] == [
        {"i": i, "v": v, "k": "x"} for i, v in enumerate([3, 1, 2])
    ]
    assert evaluate_step(step(map="input.l[?@ > `9`]"), facts) == ()


@pytest.mark.parametrize(
    ("keys", "run", "told"),
    [
        ({"map": "input.x"}, {"x": 3}, "map: input.x does not give a list"),
        ({"map": "input"}, [0] * (MAX_ITEMS + 1), "10001 items, and 10000 is the most"),
        ({"map": "input", "input": "length(item)"}, [3], "length"),
        ({"input": "length(input)"}, 3, "length"),
        ({"when": "length(input)"}, 3, "length"),
        ({"input": "join('', [input, input])"}, "x" * (MAX_BODY_BYTES // 2 + 1), "input has .* is the most"),
        (
            {"map": "input", "input": "steps.a.output"},
            [0] * (MAX_STEP_BYTES // MAX_BODY_BYTES + 1),
            f"over {MAX_STEP_BYTES} bytes together",
        ),
    ],
)
def test_what_cannot_be_called_is_told(keys: dict[str, object], run: object, told: str) -> None:
    with pytest.raises(StepFault, match=told):
        evaluate_step(step(**keys), RunFacts(value_to_body(run), {"a": ended("x" * MAX_BODY_BYTES)}))


def test_an_answer_that_is_no_json_is_told_with_its_step() -> None:
    broken = EndedStep(StepStatus.SUCCEEDED, [Body(b"{", JSON)])
    with pytest.raises(StepFault, match="the answer of a is not valid JSON"):
        evaluate_step(step(input="steps.a.output"), RunFacts(RUN, {"a": broken}))
    with pytest.raises(StepFault, match="the run's input is not valid JSON"):
        evaluate_step(step(input="input.x"), RunFacts(Body(b"{", JSON), {}))


def test_a_run_answers_what_its_last_steps_answered_or_what_its_expression_says() -> None:
    steps = {"a": step(), "b": step(needs=["a"]), "c": step(needs=["a"])}
    facts = RunFacts(RUN, {"a": ended(1), "b": ended(2), "c": ended(3)})
    plain = WorkflowDefinition(steps=steps)
    assert outputs_for_result(plain) == {"b", "c"}
    assert body_to_value(evaluate_output(plain, facts)) == {"b": 2, "c": 3}
    made = WorkflowDefinition(steps=steps, output="[steps.a.output, input.n]")
    assert outputs_for_result(made) == {"a"}
    assert body_to_value(evaluate_output(made, facts)) == [1, 1]


def test_only_what_an_expression_looks_at_is_read() -> None:
    assert needed_outputs(step(needs=["a", "b"])) == {"a", "b"}
    assert needed_outputs(step(needs=["a", "b"], input="steps.a.output", when="steps.b.status")) == {"a", "b"}
    assert needed_outputs(step(needs=["a", "b"], map="steps.a.output")) == {"a"}
