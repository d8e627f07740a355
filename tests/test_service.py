"""The daemon under a real user manager: started by the first call, watched, reloaded, drained, confined."""

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.user_manager import HOME, PYTHON, PYTHON_ENV, SOCKET, UserManager, user_manager

pytestmark = pytest.mark.ci

UNITS = HOME / ".config/systemd/user"
CONFIG = HOME / ".config/llmd/config.toml"
STATE = HOME / ".local/state/llmd"
SLOW = '[providers.slow]\ndialect = "echo"\nlatency_ms = 2500\n'
# What only tests need: this Python's modules are elsewhere, and there is no journal.
TEST_DROP_IN = f"""
[Service]
Environment={" ".join(f"{name}={text}" for name, text in PYTHON_ENV.items())}
StandardOutput=append:{SOCKET.parent}/log
StandardError=append:{SOCKET.parent}/log
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[UserManager]:
    with user_manager(tmp_path) as manager:
        manager.write(UNITS / "llmd.service.d/test.conf", TEST_DROP_IN)
        yield manager


@pytest.fixture
def service(manager: UserManager) -> UserManager:
    """llmd as `llmd systemd install` leaves it: its socket listens, and the daemon is not there yet."""
    manager.llmd("systemd", "install")
    assert (manager.shown("ActiveState"), manager.shown("ActiveState", "llmd.socket")) == ("inactive", "active")
    return manager


def drop_in(service: UserManager, text: str) -> None:
    service.write(UNITS / "llmd.service.d/more.conf", text)
    service.systemctl("daemon-reload")


def log(service: UserManager) -> str:
    return service.read(SOCKET.parent / "log")


def inode(service: UserManager) -> str:
    return service.run("stat", "--format=%i", str(SOCKET)).stdout


def begin(service: UserManager, method: str, **params: object) -> "subprocess.Popen[str]":
    return service.start(PYTHON, "-P", "-m", "llmd", "call", method, json.dumps(params), "--no-spawn")


def test_the_first_call_starts_it_and_what_is_installed_is_what_is_shown(service: UserManager) -> None:
    assert service.call("execute", model="echo/echo", prompt="hello")["text"] == "hello"
    assert (service.shown("ActiveState"), service.shown("Type")) == ("active", "notify")
    service.wait_for("StatusText", "0 calls in flight")
    for name in ("llmd.socket", "llmd.service"):
        shipped = (Path(__file__).parent.parent / "systemd" / name).read_text()
        written = service.read(UNITS / name)
        assert written.partition("\n")[2] == shipped.replace("=/usr/bin/llmd ", f"={PYTHON} -P -m llmd ")
    verify = service.run("systemd-analyze", "--user", "verify", *(str(UNITS / name) for name in ("llmd.service",)))
    assert (verify.stdout, verify.stderr) == ("", "")
    assert service.shown("LimitCORE") == "0"
    assert service.run("stat", "--format=%a", str(SOCKET), str(SOCKET.parent)).stdout.split() == ["600", "700"]


def test_calls_that_come_before_it_is_there_wait_and_are_answered(service: UserManager) -> None:
    calls = [begin(service, "execute", model="echo/echo", prompt=f"call {number}") for number in range(5)]
    texts = [json.loads(call.communicate()[0])["text"] for call in calls]
    assert texts == [f"call {number}" for number in range(5)]
    assert log(service).count("ready on") == 1


def test_after_a_kill_it_is_there_again_on_the_same_socket_with_its_budgets(service: UserManager) -> None:
    opened = service.call("budget.open", total=1000, label="kept")
    service.call("execute", model="echo/echo", prompt="two words", budget=opened["budget"])
    spent = service.call("budget.get", budget=opened["budget"])
    before, killed = inode(service), service.shown("MainPID")
    service.systemctl("kill", "--kill-who=main", "--signal=KILL", "llmd.service")
    service.wait_for("NRestarts", "1")
    assert service.call("budget.get", budget=opened["budget"]) == spent
    assert spent["settled"]["total_tokens"] == 4  # type: ignore[index] - the snapshot's maps
    assert (inode(service), service.shown("MainPID") != killed) == (before, True)


@pytest.mark.deadline(90)
def test_a_loop_that_hangs_is_killed_by_the_watchdog_and_the_next_call_is_answered(service: UserManager) -> None:
    drop_in(service, "[Service]\nWatchdogSec=2\n")
    assert service.call("ping") == {}
    before = inode(service)
    service.systemctl("kill", "--kill-who=main", "--signal=STOP", "llmd.service")
    waiting = begin(service, "ping")
    service.wait_for("NRestarts", "1")
    assert waiting.communicate()[0] == "{}\n"  # it has waited in the socket, which is systemd's
    assert service.call("ping") == {}
    assert inode(service) == before


def test_a_reload_is_over_when_systemctl_returns_and_one_that_fails_says_so(service: UserManager) -> None:
    service.call("ping")
    running = service.shown("MainPID")
    service.write(CONFIG, SLOW)
    service.systemctl("reload", "llmd.service")
    models = service.call("models.list")["models"]
    assert "slow" in {model["provider"] for model in models}  # type: ignore[attr-defined] - a list
    service.write(CONFIG, "colour = 1\n")
    assert service.systemctl("reload", "llmd.service", check=False).returncode != 0
    assert "colour: there is no such member" in log(service)
    assert service.call("execute", model="slow/x", prompt="still here")["text"] == "still here"
    assert (service.shown("ActiveState"), service.shown("MainPID")) == ("active", running)


def test_a_configuration_that_was_broken_for_long_is_mended_and_the_next_call_is_answered(service: UserManager) -> None:
    drop_in(service, "[Service]\nRestartSec=10ms\n")
    service.write(CONFIG, "colour = 1\n")
    waiting = begin(service, "ping")
    while int(service.shown("NRestarts")) < 6:
        pass
    service.write(CONFIG, SLOW)
    assert waiting.communicate()[0] == "{}\n"  # it has waited in the socket
    assert service.call("ping") == {}
    assert service.shown("ActiveState", "llmd.socket") == "active"


def test_a_stop_lets_the_calls_in_flight_finish_and_the_next_call_starts_it_again(service: UserManager) -> None:
    service.write(CONFIG, SLOW)
    service.call("ping")
    call = begin(service, "execute", model="slow/x", prompt="late")
    service.wait_for("StatusText", "1 call in flight")
    service.systemctl("stop", "llmd.service")
    assert json.loads(call.communicate()[0])["text"] == "late"
    assert (service.shown("ActiveState"), service.shown("Result")) == ("inactive", "success")
    assert service.call("execute", model="echo/echo", prompt="hello")["text"] == "hello"


class Upstream(BaseHTTPRequestHandler):
    """A provider that remembers the keys that it is shown."""

    keys: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.keys.append(self.headers["authorization"])
        message = {"role": "assistant", "content": "seen"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[str]:
    Upstream.keys.clear()
    with HTTPServer(("127.0.0.1", 0), Upstream) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def provider(url: str, key: str) -> str:
    return f'[providers.work]\ndialect = "openai"\nbase_url = "{url}"\napi_key = {key}\n'


def test_a_key_that_systemd_keeps_reaches_its_provider(service: UserManager, upstream: str) -> None:
    service.write(HOME / "work.key", "sk-credential\n")
    service.write(CONFIG, provider(upstream, '{ credential = "work" }'))
    drop_in(service, f"[Service]\nLoadCredential=work:{HOME}/work.key\n")
    assert service.call("execute", model="work/m", prompt="hello")["text"] == "seen"
    assert Upstream.keys == ["Bearer sk-credential"]


PROBE = """
can() { if touch "$1" 2>/dev/null; then echo "writes $1"; else echo "cannot write $1"; fi; }
{ can $HOME/x; can $HOME/.config/llmd/x; can $HOME/.local/x; can /usr/x; can /run/user/x; can $HOME/.local/state/llmd/x
  can "$(dirname "$0")/x"; can /tmp/inside
  echo "tmp $(ls /tmp)"; grep -E '^(NoNewPrivs|Seccomp|CapBnd|CapEff):' /proc/self/status
  echo "core $(ulimit -c)"; echo "umask $(umask)"; echo "users $(wc -l < /proc/self/uid_map) $(cat /proc/self/uid_map)"
  mount -t tmpfs none /tmp 2>/dev/null && echo mounts
  unshare --user true 2>/dev/null && echo unshares
  echo over; } > "$0"
echo sk-probe
"""


def test_it_is_confined_as_its_unit_says(service: UserManager, upstream: str) -> None:
    told = SOCKET.parent / "probe"
    # A key's command runs where the daemon does: it sees what the daemon sees.
    command = json.dumps(["/bin/sh", "-c", PROBE, str(told)])
    service.write(CONFIG, provider(upstream, f"{{ command = {command} }}"))
    assert service.call("execute", model="work/m", prompt="hello")["text"] == "seen"
    said = service.read(told).splitlines()
    home = str(HOME)
    for path in (f"{home}/x", f"{home}/.config/llmd/x", f"{home}/.local/x", "/usr/x", "/run/user/x"):
        assert f"cannot write {path}" in said
    for path in (f"{STATE}/x", f"{SOCKET.parent}/x", "/tmp/inside"):
        assert f"writes {path}" in said
    assert "tmp inside" in said  # and nothing else is in it
    assert service.run("ls", "/tmp/inside", check=False).returncode != 0
    assert {"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"} <= set(said)
    assert {"core 0", "umask 0077", "over"} <= set(said)
    assert {"mounts", "unshares"} & set(said) == set()
    assert "users 1 " in "\n".join(said)


SLOW_CALL = """
import sys
from pathlib import Path
from llmd.client import Wire
wire = Wire([Path(sys.argv[1])])
wire.send('{"jsonrpc":"2.0","id":1,"method":"execute","params":{"model":"slow/x","prompt":"late"}}')
wire.send('{"jsonrpc":"2.0","id":2,"method":"ping"}')
wire.receive()
print("begun", flush=True)
print(wire.receive()["result"]["text"])
"""


def test_a_daemon_that_a_call_has_spawned_gives_way_to_it_and_finishes_its_calls(manager: UserManager) -> None:
    manager.write(CONFIG, SLOW)
    manager.llmd("call", "ping")
    spawned = manager.read(SOCKET.with_name("rpc.sock.lock")).splitlines()[0]
    call = manager.start(PYTHON, "-c", SLOW_CALL, str(SOCKET))
    assert call.stdout is not None
    assert call.stdout.readline() == "begun\n"
    manager.llmd("systemd", "install")
    assert manager.call("ping") == {}
    assert call.communicate()[0] == "late\n"
    holder = manager.read(SOCKET.with_name("rpc.sock.lock")).splitlines()[0]
    assert (holder, holder != spawned) == (manager.shown("MainPID"), True)


def test_status_and_doctor_tell_of_it_and_do_not_wake_it(service: UserManager) -> None:
    asleep = service.llmd("status", check=False)
    assert (asleep.returncode, asleep.stdout.startswith(f"systemd listens on {SOCKET}")) == (3, True)
    assert f"ok   units: {UNITS}/llmd.service is as it should be" in service.llmd("doctor").stdout
    assert service.shown("ActiveState") == "inactive"
    service.call("ping")
    running = service.llmd("status").stdout
    assert f"  process    pid {service.shown('MainPID')}, a service" in running


def test_uninstall_leaves_nothing(service: UserManager) -> None:
    service.call("ping")
    service.llmd("systemd", "uninstall")
    assert service.run("ls", str(UNITS)).stdout.split() == ["llmd.service.d"]
    assert service.run("ls", str(SOCKET), check=False).returncode != 0
    assert service.llmd("call", "ping", "--no-spawn", check=False).returncode == 3
