"""Paths come from the environment, by the rules of the XDG base directories."""

import os
from pathlib import Path

from llmd import paths


def test_a_named_socket_is_the_only_one_that_a_client_tries() -> None:
    assert paths.client_sockets({"LLMD_SOCKET": "/a/env"}, "/a/flag") == [Path("/a/flag")]
    assert paths.client_sockets({"LLMD_SOCKET": "/a/env"}) == [Path("/a/env")]


def test_the_users_own_socket_comes_before_the_systems() -> None:
    found = paths.client_sockets({"XDG_RUNTIME_DIR": "/run/user/7"})
    assert found == [Path("/run/user/7/llmd/rpc.sock"), Path("/run/llmd/rpc.sock")]


def test_without_a_runtime_directory_the_socket_is_beside_the_state() -> None:
    usual = Path(f"/run/user/{os.getuid()}")
    home = usual if usual.exists() else Path("/home/x/.local/state")
    assert paths.default_socket({"HOME": "/home/x"}) == home / "llmd" / "rpc.sock"


def test_relative_xdg_paths_are_ignored() -> None:
    env = {"HOME": "/home/x", "XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config"}
    assert paths.token_file(env) == Path("/home/x/.local/state/llmd/token")
    assert paths.config_file(env) == Path("/home/x/.config/llmd/config.toml")


def test_the_configuration_can_be_named_by_the_environment() -> None:
    assert paths.config_file({"LLMD_CONFIG": "/etc/llmd.toml"}) == Path("/etc/llmd.toml")
    assert paths.config_file({"XDG_CONFIG_HOME": "/c"}) == Path("/c/llmd/config.toml")


def test_the_log_is_part_of_the_state() -> None:
    assert paths.log_file({"XDG_STATE_HOME": "/s"}) == Path("/s/llmd/daemon.log")
