"""Have systemd run the daemon: started by the first call, restarted when it dies.

  llmd systemd install               for this user; the daemon is there after each login
  llmd systemd install --system      for the users that [peers] of /etc/llmd/config.toml lists; as root
  llmd systemd show                  print what would be written
  llmd systemd uninstall

A file that somebody has changed is left alone, unless --force says otherwise.
"""

import argparse
import os
import shlex
import subprocess
import sys

from llmd.units import Unit, units

SOCKET, SERVICE = "llmd.socket", "llmd.service"
FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["install", "uninstall", "show"], help="what to do")
    parser.add_argument("--system", action="store_true", help="for the whole machine, not for this user alone")
    parser.add_argument("--force", action="store_true", help="write over and remove files that somebody has changed")
    parser.add_argument("--no-start", action="store_true", help="only write or remove the files; run no systemctl")


def run(options: argparse.Namespace) -> int:
    wanted = units(os.environ, system=options.system)
    if options.action == "show":
        for unit in wanted:
            print(f"# {unit.path} ({unit.state})\n{unit.text}")
        return 0
    if not options.force and (changed := [unit.path for unit in wanted if unit.state == "changed"]):
        for path in changed:
            _say(f"{path} was changed since llmd wrote it, or is not llmd's: nothing is done; --force does it anyway")
        return FAILED
    if options.system and options.action == "install" and _is_at_home(sys.executable):
        _say(f"{sys.executable} is in a home directory, which the service cannot read: install llmd below /opt or /usr")
        return FAILED
    commands = [] if options.no_start else _commands(options.action, options.system)
    if options.action == "uninstall" and not _run(commands[:1]):
        return FAILED
    try:
        for unit in wanted:
            _install(unit) if options.action == "install" else _remove(unit)
    except OSError as error:
        _say(f"cannot write {error.filename}: {error.strerror}")
        return FAILED
    rest = commands if options.action == "install" else commands[1:]
    return 0 if _run(rest) else FAILED


def _commands(action: str, system: bool) -> list[list[str]]:
    control = ["systemctl"] if system else ["systemctl", "--user"]
    reload = [*control, "daemon-reload"]
    if action == "uninstall":
        return [[*control, "disable", "--now", SOCKET, SERVICE], reload]
    users = [["systemd-sysusers"]] if system else []
    return [*users, reload, [*control, "enable", "--now", SOCKET]]


def _install(unit: Unit) -> None:
    state = unit.state
    if state == "current":
        print(f"{unit.path} is as it should be")
        return
    unit.write()
    print(f"{unit.path} {'written' if state == 'missing' else 'written anew'}")


def _remove(unit: Unit) -> None:
    if unit.state != "missing":
        unit.path.unlink()
        print(f"{unit.path} removed")


def _run(commands: list[list[str]]) -> bool:
    """Whether each of them succeeded; what did not is told as a command to run."""
    for at, command in enumerate(commands):
        try:
            done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603 - ours
        except OSError as error:
            _say(f"cannot run {command[0]}: {error.strerror}")
            done = FAILED
        if done != 0:
            _say(f"run this when systemd can be asked: {' && '.join(shlex.join(left) for left in commands[at:])}")
            return False
    return True


def _is_at_home(path: str) -> bool:
    return path.startswith(("/home/", "/root/"))


def _say(message: str) -> None:
    print(f"llmd: {message}", file=sys.stderr)
