"""A real `systemd --user` for a test: root makes it a machine of its own, in namespaces, and a user without rights.

What the user's processes need of ours (Python, its packages, llmd) is bound below /srv there: their own places may be
in a directory that is not for others, or in /tmp, of which a service has its own.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

UID = 1777
HOME = Path("/srv/home")
RUNTIME = Path(f"/run/user/{UID}")
SOCKET = RUNTIME / "llmd/rpc.sock"
PYTHON = f"/srv/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
PYTHON_ENV = {"PYTHONPATH": "/srv/llmd:/srv/packages", "LD_LIBRARY_PATH": "/srv/python/lib"}
SYSTEMD = "/lib/systemd/systemd"
ROOT = Path(__file__).parent.parent.parent

_SCRIPT = f"""
set -e
mount --make-rprivate /
group=/sys/fs/cgroup/$1; base=$2; packages=$3; llmd=$4
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir /srv/python /srv/packages /srv/llmd /srv/home
mount --bind "$base" /srv/python
mount --bind "$packages" /srv/packages
mount --bind "$llmd" /srv/llmd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/unit-root /run/credentials {RUNTIME}
chown {UID}:{UID} {RUNTIME} /srv/home
chmod 700 {RUNTIME}
mount -t cgroup2 none /sys/fs/cgroup
mkdir "$group"
echo $$ > "$group/cgroup.procs"
chown -R {UID}:{UID} "$group"
# As a child, for as the first process of all it would not be a user's.
setpriv --reuid {UID} --regid {UID} --clear-groups --no-new-privs {SYSTEMD} --user
"""


class UserManager:
    """The manager, and the user's shell beside it. `pid` is of the namespaces' first process, as we see it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(
        self, *command: str, stdin: str = "", env: Mapping[str, str] | None = None, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """A command of the user's, to its end."""
        done = subprocess.run(
            self._inside(command, env or {}), input=stdin, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """A command of the user's that goes on; whoever starts it ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self._inside(command, {}), stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def llmd(self, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run(PYTHON, "-P", "-m", "llmd", *arguments, stdin=stdin, check=check)

    def call(self, method: str, **params: object) -> dict[str, object]:
        """The result of a call, or its error."""
        done = self.llmd("call", method, json.dumps(params), "--no-spawn", check=False)
        found: dict[str, object] = json.loads(done.stdout or done.stderr)
        return found

    def systemctl(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return self.run("systemctl", "--user", *arguments, check=check)

    def shown(self, name: str, unit: str = "llmd.service") -> str:
        """A property of the unit."""
        return self.systemctl("show", "--value", "--property", name, unit).stdout.strip()

    def wait_for(self, name: str, wanted: str, unit: str = "llmd.service") -> None:
        """Until the property has this value; the test's deadline bounds it."""
        while self.shown(name, unit) != wanted:
            pass

    def write(self, path: Path, text: str) -> None:
        self.run("mkdir", "-p", str(path.parent))
        self.run("sh", "-c", 'cat > "$0" && chmod 600 "$0"', str(path), stdin=text)

    def read(self, path: Path) -> str:
        return self.run("cat", str(path)).stdout

    def _inside(self, command: tuple[str, ...], env: Mapping[str, str]) -> list[str]:
        own = {
            "HOME": str(HOME),
            "PATH": "/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(RUNTIME),
            **PYTHON_ENV,
            **env,
        }
        user = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"]
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--wdns=/srv/home"]
        return [*enter, *user, "env", "-i", *(f"{name}={text}" for name, text in own.items()), *command]


def missing() -> str | None:
    """What this machine lacks for it."""
    if os.geteuid() != 0:
        return "only root can make a machine of its own for a user manager"
    if not Path(SYSTEMD).exists() or shutil.which("systemctl") is None:
        return "systemd is not installed"
    unshare = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"]
    if shutil.which("setpriv") is None or subprocess.run(unshare, capture_output=True, check=False).returncode != 0:
        return "this machine gives root no namespaces or no cgroups"
    return None


@contextmanager
def user_manager(directory: Path) -> Iterator[UserManager]:
    """A manager that is up; everything that it has started ends with it.

    Skips where that cannot be had, and fails there in CI.
    """
    if (reason := missing()) is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    name = f"llmd-test-{uuid.uuid4().hex[:12]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, (directory / "manager.log").open("wb") as log:
        told.bind(f"\0{name}")
        told.settimeout(20)
        script = ["sh", "-c", _SCRIPT, "sh", name, sys.base_prefix, sysconfig.get_path("purelib"), str(ROOT)]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(HOME),
            "XDG_RUNTIME_DIR": str(RUNTIME),
            "NOTIFY_SOCKET": f"@{name}",
        }
        env["SYSTEMD_LOG_TARGET"] = "console"
        process = subprocess.Popen([*unshare, *script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            while b"READY=1" not in told.recv(4096):
                pass
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            yield UserManager(int(children[0]))
        finally:
            process.kill()
            process.wait()
            _remove_group(name)


def _remove_group(name: str) -> None:
    """The group of what the kernel has ended, or is about to."""
    script = 'mount -t cgroup2 none /sys/fs/cgroup; cd "/sys/fs/cgroup/$0"; while grep -q "populated 1" cgroup.events'
    script += '; do :; done; cd /; find "/sys/fs/cgroup/$0" -depth -type d -exec rmdir {} +'
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["unshare", "--mount", "sh", "-c", script, name], capture_output=True, timeout=10, check=False)
