"""The container of a program that runs under init."""

from __future__ import annotations

import pytest

from pool.contracts.init_place import with_init
from pool.engine.base import ContainerSpec, Mount, NotRunnable, VolumeMount
from pool.engine.container_config import container_config

PLACE = Mount("/data/init", "/.hearth")


def test_init_runs_the_program_of_the_image_and_its_arguments() -> None:
    spec = ContainerSpec(name="", image="i", command=("-v",), program=("/serve", "-v"))
    config = container_config(with_init(spec, PLACE, ("--serve", "--calls", "1")))
    assert config["Entrypoint"] == ["/.hearth/init", "--serve", "--calls", "1", "--", "/serve", "-v"]
    assert "Cmd" not in config
    [mount] = config["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == ("/data/init", "/.hearth", True)


def test_init_copies_what_the_image_has_at_its_volumes() -> None:
    volumes = (VolumeMount("/empty", 1), VolumeMount("/a=b", 1, None, "/.hearth-volumes/1"))
    spec = ContainerSpec(name="", image="i", program=("x",), volumes=volumes)
    config = container_config(with_init(spec, PLACE, ("--wait",)))
    assert config["Entrypoint"][1:] == ["--copy", "/.hearth-volumes/1=/a=b", "--wait", "--", "x"]


def test_an_image_without_a_program_says_what_to_do() -> None:
    with pytest.raises(NotRunnable, match="say `command`"):
        with_init(ContainerSpec(name="", image="i"), PLACE, ())
