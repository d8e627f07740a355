"""What a daemon asks of its process."""

import gc
import resource
import subprocess
import sys

CODE = """
import resource
from llmd.process import raise_descriptor_limit
soft, hard = {limits}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def limit_after(soft: int, hard: int) -> int:
    command = [sys.executable, "-c", CODE.format(limits=(soft, hard))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_descriptors_are_raised_as_far_as_they_may_be_and_never_lowered() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limit_after(256, 512) == 512
    if hard == resource.RLIM_INFINITY or hard > 65_536:
        assert limit_after(256, 70_000) == 65_536
        assert limit_after(70_000, 70_000) == 70_000


WARM = """
import anyio, gc, sys
from llmd.process import warm_up
anyio.run(warm_up)
print("llmd.providers" in sys.modules, gc.get_freeze_count() > 10_000)
"""


def test_what_carries_http_is_loaded_and_the_collector_leaves_it_alone() -> None:
    done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert gc.isenabled()
