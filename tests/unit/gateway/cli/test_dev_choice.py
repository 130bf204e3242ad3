"""`hearth dev` finds the one function that is meant, or says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.cli.dev.chosen import Choice, ChoiceError, name_of
from gateway.cli.dev.data_folder import UnsafeFolder, temporary_folder
from scheduler.definitions.file import DefinitionsError
from scheduler.definitions.language import located_yaml

ONE = """\
version: 1
prewarm: {python: 7}
functions:
  hello: {runtime: python, source: functions/hello, handler: "handler:handle", timeout: 3s, min_instances: 4}
"""
TWO = (
    ONE
    + """\
  words: {image: "some/image", command: [wc, -w], on_failure: hello}
"""
)


def project(folder: Path, text: str = ONE) -> Path:
    (folder / "functions.yaml").write_text(text)
    source = folder / "functions" / "hello"
    source.mkdir(parents=True)
    (source / "handler.py").write_text("def handle(event, context): return 1\n")
    return folder


def choice(folder: Path, name: str | None = None, plain: bool = False) -> Choice:
    return Choice(folder, name, plain)


def test_a_folder_with_a_handler_is_a_function_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop"
    folder.mkdir()
    (folder / "handler.py").write_text("")
    [function] = choice(folder).read().functions.values()
    assert (function.name, function.source, function.handler) == ("my-shop", folder, "handler:handle")
    [function] = choice(folder, "other").read().functions.values()
    assert function.name == "other"


def test_the_only_function_of_a_file_is_served_alone_and_prewarmed(tmp_path: Path) -> None:
    definitions = choice(project(tmp_path)).read()
    assert [f.timeout for f in definitions.functions.values()] == [3.0]
    assert definitions.prewarm == {"python": 2}


def test_a_source_folder_is_served_with_the_keys_of_the_file_above(tmp_path: Path) -> None:
    source = project(tmp_path, TWO) / "functions" / "hello"
    chosen = choice(source).find()
    assert (chosen.definition.timeout, chosen.file) == (3.0, tmp_path / "functions.yaml")


def test_one_of_several_has_to_be_named(tmp_path: Path) -> None:
    project(tmp_path, TWO)
    with pytest.raises(ChoiceError, match="has 2 functions; choose one with --function NAME: hello, words"):
        choice(tmp_path).find()
    with pytest.raises(ChoiceError, match="has no function helo; it has hello, words"):
        choice(tmp_path, "helo").find()
    [words] = choice(tmp_path, "words").read().functions.values()
    assert words.on_failure is None, "the other function is not served"


def test_a_choice_that_has_become_impossible_is_a_fault_of_the_file(tmp_path: Path) -> None:
    project(tmp_path, "version: 1\nfunctions: {}\n")
    with pytest.raises(
        DefinitionsError, match=r"functions.yaml:1:1: .*has no function; add one with `hearth new"
    ):
        choice(tmp_path).read()


def test_plain_processes_run_handlers_only_and_have_no_limits(tmp_path: Path) -> None:
    project(tmp_path, TWO.replace("timeout: 3s", "timeout: 3s, tmp_size: 1GiB, network: egress"))
    hello = choice(tmp_path, "hello", plain=True).read().functions["hello"]
    assert (hello.timeout, hello.network) == (86400, "none")
    assert hello.shape_is_default()
    with pytest.raises(ChoiceError, match="words has an image, and --no-container runs Python handlers only"):
        choice(tmp_path, "words", plain=True).alone(choice(tmp_path, "words").find().definition)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("hello", "hello"),
        ("My Shop 2", "my-shop-2"),
        ("2nd", "function"),
        ("größe", "gr-e"),
        ("...", "function"),
    ],
)
def test_a_folders_name_becomes_that_of_a_function(name: str, function: str) -> None:
    assert name_of(Path("/somewhere") / name) == function


def test_a_folder_without_a_function_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["dev", "--no-container", str(tmp_path)])
    assert result.exit_code == 2
    assert "there is neither a handler.py nor a functions.yaml in" in result.stderr
    assert "`hearth new NAME`" in result.stderr
    result = CliRunner().invoke(main, ["dev", "--no-container", "not-here"])
    assert (result.exit_code, "write a function with `hearth new not-here`" in result.stderr) == (2, True)


def test_a_faulty_file_is_told_as_from_a_compiler(tmp_path: Path) -> None:
    project(tmp_path, ONE.replace("timeout", "timout"))
    result = CliRunner().invoke(main, ["dev", "--no-container", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{tmp_path}/functions.yaml:4:")


def test_the_data_folder_is_the_same_each_time_and_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = temporary_folder(tmp_path / "a")
    assert first == temporary_folder(tmp_path / "a") != temporary_folder(tmp_path / "b")
    first.parent.rmdir()
    first.parent.symlink_to(tmp_path)
    with pytest.raises(UnsafeFolder, match="is not a folder of yours alone"):
        temporary_folder(tmp_path / "a")


def test_a_save_of_code_does_not_parse_the_file_again_and_all_else_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[Path] = []
    parse = located_yaml.parse

    def counted(text: str, file: Path) -> located_yaml.Document:
        parsed.append(file)
        return parse(text, file)

    monkeypatch.setattr(located_yaml, "parse", counted)
    chosen = choice(project(tmp_path))
    assert chosen.read() == chosen.read() == choice(tmp_path).read()
    assert len(parsed) == 2, "once for each choice"
    (tmp_path / "functions.yaml").write_text(ONE.replace("3s", "4s"))
    assert [f.timeout for f in chosen.read().functions.values()] == [4.0]
    assert len(parsed) == 3
    (tmp_path / "functions" / "hello" / "handler.py").unlink()
    with pytest.raises(DefinitionsError, match=r"there is no 'handler.py'"):
        chosen.read()
    assert len(parsed) == 3
