"""Where keys come from, and that nothing ever shows one."""

import os
import stat
from pathlib import Path

import anyio
import pytest

from llmd import keys
from llmd.keys import Key, KeyUnavailable
from llmd.settings import KeySettings
from tests.support.processes import ended

pytestmark = pytest.mark.anyio

SECRET = "sk-secret-0123456789"


def shell(script: str) -> KeySettings:
    return KeySettings(command=["/bin/sh", "-c", script])


async def unavailable(key: Key) -> str:
    with pytest.raises(KeyUnavailable) as caught:
        await key.get()
    assert SECRET not in str(caught.value)
    return str(caught.value)


async def test_a_provider_without_a_key_is_present_and_gives_none() -> None:
    key = Key(None, {})
    assert key.present
    assert await key.get() is None
    assert not key.renew(None)


async def test_a_key_comes_from_the_environment_that_the_daemon_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORK_KEY", "not this one")
    key = Key(KeySettings(env="WORK_KEY"), {"WORK_KEY": SECRET})
    assert key.present
    assert await key.get() == SECRET


@pytest.mark.parametrize("env", [{}, {"WORK_KEY": ""}], ids=["unset", "empty"])
async def test_a_variable_that_is_not_set_is_named(env: dict[str, str]) -> None:
    key = Key(KeySettings(env="WORK_KEY"), env)
    assert not key.present
    assert "WORK_KEY" in await unavailable(key)


async def test_a_key_comes_from_a_file_without_the_space_around_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"  {SECRET}\r\n\n")
    key = Key(KeySettings(file=str(file)), {})
    assert key.present
    assert await key.get() == SECRET


async def test_a_files_path_may_begin_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text(SECRET)
    assert await Key(KeySettings(file="~/key"), {}).get() == SECRET


async def test_a_file_that_is_not_there_is_no_key_and_its_path_is_not_told(tmp_path: Path) -> None:
    key = Key(KeySettings(file=str(tmp_path / "none")), {})
    assert not key.present
    assert str(tmp_path) not in await unavailable(key)


async def test_a_file_that_appears_later_is_read_then(tmp_path: Path) -> None:
    file = tmp_path / "key"
    key = Key(KeySettings(file=str(file)), {})
    await unavailable(key)
    file.write_text(SECRET)
    assert await key.get() == SECRET


async def test_a_credential_is_read_from_the_directory_that_systemd_names(tmp_path: Path) -> None:
    (tmp_path / "work").write_text(SECRET)
    settings = KeySettings(credential="work")
    key = Key(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert key.present
    assert await key.get() == SECRET
    assert not Key(settings, {}).present
    assert "systemd" in await unavailable(Key(settings, {}))


async def test_a_key_comes_from_what_a_command_prints_and_the_command_runs_once(tmp_path: Path) -> None:
    key = Key(shell(f'echo x >> "{tmp_path}/runs"; echo {SECRET}'), {})
    assert key.present
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(key.get)
    assert await key.get() == SECRET
    assert (tmp_path / "runs").read_text() == "x\n"


async def test_a_commands_words_are_no_shells(tmp_path: Path) -> None:
    assert await Key(KeySettings(command=["/bin/echo", "$HOME;a"]), {}).get() == "$HOME;a"


async def test_a_command_reads_nothing_and_what_it_complains_of_is_not_the_key() -> None:
    assert await Key(shell(f"cat; echo complaint >&2; echo {SECRET}"), {}).get() == SECRET


async def test_a_command_that_fails_is_told_by_its_status_and_runs_again_the_next_time(tmp_path: Path) -> None:
    key = Key(shell(f'test -e "{tmp_path}/in" || {{ echo {SECRET}; exit 7; }}; echo {SECRET}'), {})
    assert "7" in await unavailable(key)
    (tmp_path / "in").touch()
    assert await key.get() == SECRET


async def test_a_command_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "COMMAND_TIMEOUT_S", 0.3)
    fifo, pid = tmp_path / "fifo", tmp_path / "pid"
    os.mkfifo(fifo)
    key = Key(shell(f'echo $$ > "{pid}"; exec cat "{fifo}"'), {})
    assert "longer than" in await unavailable(key)
    process = await anyio.Path(pid).read_text()
    await ended(int(process))


async def test_a_program_that_is_not_there_is_an_unavailable_key(tmp_path: Path) -> None:
    assert str(tmp_path) not in await unavailable(Key(KeySettings(command=[str(tmp_path / "none")]), {}))


async def test_a_program_that_may_not_run_is_an_unavailable_key(tmp_path: Path) -> None:
    program = tmp_path / "key"
    program.write_text("#!/bin/sh\n")
    program.chmod(stat.S_IRUSR)
    await unavailable(Key(KeySettings(command=[str(program)]), {}))


@pytest.mark.parametrize(
    "value",
    ["", " \n", f"{SECRET}\r\nx-evil: 1", f"{SECRET}\x00", f"{SECRET}ü", f"{SECRET}\x7f"],
    ids=["empty", "blank", "two lines", "nul", "not ascii", "del"],
)
async def test_what_cannot_stand_in_a_header_is_no_key(value: str) -> None:
    key = Key(KeySettings(env="WORK_KEY"), {"WORK_KEY": value})
    await unavailable(key)


async def test_bytes_that_are_no_text_are_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00")
    await unavailable(Key(KeySettings(file=str(tmp_path / "key")), {}))
    await unavailable(Key(shell("printf '\\377\\376'"), {}))


async def test_only_a_key_from_a_command_is_renewed_and_only_the_one_that_was_refused(tmp_path: Path) -> None:
    assert not Key(KeySettings(env="K"), {"K": SECRET}).renew(SECRET)
    key = Key(shell(f'echo x >> "{tmp_path}/runs"; wc -l < "{tmp_path}/runs"'), {})
    first = await key.get()
    assert key.renew(first)
    second = await key.get()
    assert (first, second) == ("1", "2")
    assert key.renew(first), "another call has renewed it already: try with that"
    assert await key.get() == "2"


async def test_a_key_shows_in_no_repr() -> None:
    key = Key(KeySettings(env="WORK_KEY"), {"WORK_KEY": SECRET})
    await key.get()
    assert SECRET not in f"{key!r} {key}"
