"""Where llmd keeps its files: the socket, the configuration, the token, the log.

Decides paths from the environment that it is given and touches no file but to ask who owns a directory. Standard
library only: the command line's call path imports it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_SOCKET = Path("/run/llmd/rpc.sock")

Environment = Mapping[str, str]


def _home(env: Environment) -> Path:
    return Path(env.get("HOME") or os.path.expanduser("~"))


def _xdg(env: Environment, name: str, fallback: str) -> Path:
    value = env.get(name, "")
    # The XDG base directory specification tells readers to ignore relative paths.
    return Path(value) if os.path.isabs(value) else _home(env) / fallback


def state_dir(env: Environment) -> Path:
    return _xdg(env, "XDG_STATE_HOME", ".local/state") / "llmd"


def config_file(env: Environment) -> Path:
    """`$LLMD_CONFIG`, else config.toml below `$XDG_CONFIG_HOME`."""
    if env.get("LLMD_CONFIG"):
        return Path(env["LLMD_CONFIG"])
    return _xdg(env, "XDG_CONFIG_HOME", ".config") / "llmd" / "config.toml"


def token_file(env: Environment) -> Path:
    return state_dir(env) / "token"


def log_file(env: Environment) -> Path:
    return state_dir(env) / "daemon.log"


def ledger_file(env: Environment) -> Path:
    return state_dir(env) / "ledger.db"


def runtime_dir(env: Environment) -> Path | None:
    """`$XDG_RUNTIME_DIR`, else /run/user/$UID where that is ours, else None."""
    if os.path.isabs(env.get("XDG_RUNTIME_DIR", "")):
        return Path(env["XDG_RUNTIME_DIR"])
    usual = Path(f"/run/user/{os.getuid()}")
    try:
        return usual if usual.stat().st_uid == os.getuid() else None
    except OSError:
        return None


def named_socket(env: Environment, flag: str | None = None) -> Path | None:
    """The socket that the user named: `--socket`, else `$LLMD_SOCKET`."""
    name = flag or env.get("LLMD_SOCKET")
    return Path(name) if name else None


def default_socket(env: Environment) -> Path:
    """The socket of this user's own daemon when none was named."""
    return (runtime_dir(env) or state_dir(env).parent) / "llmd" / "rpc.sock"


def client_sockets(env: Environment, flag: str | None = None) -> list[Path]:
    """Where a client looks, in order."""
    named = named_socket(env, flag)
    return [named] if named else [default_socket(env), SYSTEM_SOCKET]
