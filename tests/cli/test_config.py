"""`llmd config check`."""

from pathlib import Path

from tests.support.cli import llmd


def test_a_wrong_file_is_told_line_by_line_with_file_and_key_path(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('colour = 1\n[providers.a]\ndialect = "x"\n')
    done = llmd("config", "check", "--config", str(file))
    assert (done.status, done.out) == (1, "")
    first, second = done.err.splitlines()
    assert first.startswith(f"{file}: colour: there is no such member")
    names = ("anthropic", "echo", "gemini", "ollama", "openai", "openai-responses")
    assert second == f"{file}: providers.a.dialect: expected " + " or ".join(f'"{name}"' for name in names)


def test_a_good_file_lists_its_providers_and_whether_their_keys_are_there(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[providers.openai]\n[providers.groq]\napi_key = {{ file = "{file}" }}\n')
    done = llmd("config", "check", "--config", str(file))
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        str(file),
        "  echo: echo",
        "  openai: openai https://api.openai.com/v1, key NOT found",
        "  groq: openai https://api.groq.com/openai/v1, key found",
    ]


def test_no_file_is_a_configuration_too() -> None:
    done = llmd("config", "check")
    assert done.status == 0
    assert done.out.startswith("no file: providers come from the environment")
