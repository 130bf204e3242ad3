"""What a job does next, over any order of what happens to its tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.calls.model import Status
from scheduler.jobs.decisions import (
    QUEUED_AHEAD,
    JobProgress,
    default_parallel,
    final_status,
    next_tasks,
    open_window,
)
from scheduler.jobs.model import JobStatus, TaskState, task_state


@given(st.data(), st.integers(1, 40), st.integers(1, 8))
def test_a_job_begins_each_task_once_keeps_within_its_window_and_ends(
    data: st.DataObject, count: int, window: int
):
    begun, open, again, retried = 0, 0, 0, 0
    for _ in range(4 * count + 10):
        step = next_tasks(JobProgress(count=count, begun=begun, again=again, open=open, window=window))
        begun, open, again = begun + step.fresh, open + step.fresh + step.again, again - step.again
        assert begun <= count and again >= 0
        assert open <= window
        if step.ends:
            assert (begun, open, again) == (count, 0, 0)
            if not retried and data.draw(st.booleans()):
                retried = again = data.draw(st.integers(1, count))  # somebody wants these once more
                continue
            return
        assert open > 0, "while there is something to do, something is open"
        unchanged = next_tasks(JobProgress(count=count, begun=begun, again=again, open=open, window=window))
        assert not unchanged.ends and unchanged.fresh == unchanged.again == 0, "a step is done once"
        open -= data.draw(st.integers(1, open))
    raise AssertionError("it did not end")


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_cancelled_job_begins_nothing_and_ends_with_its_last_task(
    count: int, begun: int, open: int
) -> None:
    step = next_tasks(JobProgress(count=count, begun=begun, again=0, open=open, window=9, cancelling=True))
    assert (step.fresh, step.again, step.ends) == (0, 0, open == 0)


def test_how_it_has_ended() -> None:
    done = {TaskState.SUCCEEDED: 3}
    assert final_status(done, 3, cancelling=False) is JobStatus.SUCCEEDED
    assert final_status(done, 3, cancelling=True) is JobStatus.SUCCEEDED, "there was nothing left to cancel"
    assert final_status(done | {TaskState.FAILED: 1}, 4, cancelling=False) is JobStatus.FAILED
    assert final_status(done | {TaskState.CANCELLED: 1}, 4, cancelling=True) is JobStatus.CANCELLED


def test_how_a_task_stands() -> None:
    assert {task_state(status) for status in Status} == set(TaskState)
    assert task_state(Status.DEAD) is task_state(Status.EXPIRED) is TaskState.FAILED
    assert set(TaskState.FAILED.statuses) == {Status.FAILED, Status.TIMED_OUT, Status.EXPIRED, Status.DEAD}


@given(st.integers(1, 10**6), st.integers(1, 64), st.integers(0, 1000))
def test_parallel_fits(count: int, cores: int, places: int) -> None:
    assert 1 <= default_parallel(count, cores, places) <= min(count, 2 * cores, max(places, 1))


def test_only_a_job_whose_own_function_bounds_it_queues_ahead() -> None:
    assert (open_window(3, own_function=True), open_window(3, own_function=False)) == (3 + QUEUED_AHEAD, 3)
