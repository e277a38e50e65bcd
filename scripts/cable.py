"""Two networks of this machine and a cable between them that can be cut: for processes as on two machines.

They are network namespaces of Linux, which root can make where `ip` and `tc` are installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

PORT = 2222


class Cable:
    """See the module; made by `cable`.

    Attributes:
        addresses: host:port on either side.
        before: the words that put a command on either side.
    """

    def __init__(self) -> None:
        self.sides = [f"descent-{os.getpid()}-{side}" for side in "ab"]
        self.addresses = [f"10.91.7.{i}:{PORT}" for i in (1, 2)]
        self.before = [["ip", "netns", "exec", side] for side in self.sides]

    def lay(self) -> None:
        for side in self.sides:
            _run("ip", "netns", "add", side)
        first, second = self.sides
        _run("ip", "-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for side, address in zip(self.sides, self.addresses, strict=True):
            _run("ip", "-n", side, "address", "add", f"{address.split(':')[0]}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _run("ip", "-n", side, "link", "set", device, "up")

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told: no connection is closed or refused."""
        for side in self.sides:
            _run("tc", "-n", side, "qdisc", "add", "dev", "cable", "root", "blackhole")

    def remove(self) -> None:
        for side in self.sides:
            subprocess.run(["ip", "netns", "delete", side], check=False, capture_output=True)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Lays one, and takes it away again."""
    own = Cable()
    try:
        own.lay()
        yield own
    finally:
        own.remove()


def possible() -> bool:
    """Whether cables can be laid and cut here."""
    if not (shutil.which("ip") and shutil.which("tc")):
        return False
    try:
        with cable() as one:
            one.cut()
    except subprocess.CalledProcessError:
        return False
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
