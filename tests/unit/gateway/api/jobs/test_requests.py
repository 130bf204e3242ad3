"""The body of POST /jobs."""

from __future__ import annotations

import pytest

from gateway.api.jobs.requests import job_of
from gateway.http.problems import Problem


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("volumes", ["/a:/a"], "mount folders of the host"),
        ("capabilities", ["chown"], "have capabilities"),
    ],
)
def test_only_the_file_gives_a_container_something_of_the_host(key: str, value: object, what: str) -> None:
    with pytest.raises(Problem, match=f"{key}: only jobs of functions.yaml may {what}"):
        job_of({"image": "x", "count": 1, "user": "image", key: value}, {})


def test_a_job_may_have_limits_of_its_own() -> None:
    _, job = job_of({"image": "x", "count": 1, "pids": 512, "nofile": 4096, "shm_size": "1GiB"}, {})
    assert (job.pids, job.nofile, job.shm_size) == (512, 4096, 2**30)
