"""Lines of `/etc/passwd`."""

from __future__ import annotations

import pytest

from pool.host.passwd import number_of, users_in, with_user


def test_the_lines_of_a_file() -> None:
    passwd = b"root:x:0:0:root:/root:/bin/sh\n\n# note\n app:x:+070:5\nodd:x:y:1::\n\xff:x:7:7::/:\nshort:x\n"
    assert list(users_in(passwd)) == [("root", 0), ("app", 70), ("odd", None), ("\udcff", 7)]
    assert list(users_in(b"")) == []


def test_our_line_is_the_first_so_that_it_has_its_name() -> None:
    assert with_user(b"function:x:65532:65532::/srv:\n", 1234, 5) == (
        b"function:x:1234:5:function:/tmp:/bin/sh\nfunction:x:65532:65532::/srv:\n"
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("70000", 70_000),
        ("+70000", 70_000),
        ("-70000", -70_000),
        ("0" * 5000 + "70000", 70_000),
        ("9" * 5000, None),
        ("7_0000", None),
        (" 70000", None),
        ("\u0667\u0660", None),
        ("app", None),
        ("", None),
    ],
)
def test_a_user_is_read_as_engines_read_it(text: str, number: int | None) -> None:
    assert number_of(text) == number
