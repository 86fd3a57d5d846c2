"""A network with a rate and a delay on one machine, made of namespaces: for Linux, root, iproute2.

Every rank has a network namespace of its own with one interface, eth0 with the address 10.99.0.(rank + 1), which
sends at no more than a rate (tc's token bucket, tbf). The other ends lie in a namespace more, the hub, where a
process hands every frame on to the rank that it is for, a delay later: a switch with long cables. It does what
netem does in kernels that have it, and needs AF_PACKET alone. Nothing outside these namespaces is touched, and
they are gone when the `with` block ends, however it ends; those of a process that was killed go when the next
one starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

PREFIX = "torchbcd-"
MTU = 9000
SWITCHED_OFF = (0x17, 0x1F, 0x24)  # ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO
SIOCETHTOOL = 0x8946
PACKET_IGNORE_OUTGOING, SOL_PACKET = 23, 263
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
EVERYTHING = 3  # ETH_P_ALL


def call(*words: object) -> str:
    """A command that has to succeed; what it printed."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def die_with_parent() -> None:
    """Be killed when the process that started this one has ended, however it did."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def address(rank: int) -> str:
    """Of a rank's interface."""
    return f"10.99.0.{rank + 1}"


def mac(rank: int) -> bytes:
    """Likewise, of Ethernet."""
    return bytes((2, 0, 0, 0, 0, rank + 1))


class Network:
    """Namespaces of `ranks` ranks, and the switch; `rate` in Mbit/s (0: not limited), `delay` in ms, one way."""

    def __init__(self, ranks: int, rate: float, delay: float):
        self.ranks, self.rate, self.delay = ranks, rate, delay
        self._owner = os.getpid()
        self._made: list[str] = []
        self._switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Network:
        """Build it."""
        remove_stale()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.close()

    def _name(self, part: object) -> str:
        return f"{PREFIX}{self._owner}-{part}"

    def _add(self, part: object) -> str:
        name = self._name(part)
        call("ip", "netns", "add", name)
        self._made.append(name)
        call("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _build(self) -> None:
        hub = self._add("hub")
        for rank in range(self.ranks):
            own = self._add(rank)
            end = ("link", "add", "eth0", "address", mac(rank).hex(":"), "mtu", MTU)
            call("ip", "-n", own, *end, "type", "veth", "peer", "name", f"port{rank}", "mtu", MTU, "netns", hub)
            call("ip", "netns", "exec", own, sys.executable, __file__, "plain", "eth0")
            call("ip", "-n", own, "addr", "add", f"{address(rank)}/24", "dev", "eth0")
            if self.rate:
                burst = max(64_000, round(self.rate * 1e6 / 8 / 100))
                shape = ("root", "tbf", "rate", f"{self.rate}mbit", "burst", burst, "latency", "1s")
                call("tc", "-n", own, "qdisc", "add", "dev", "eth0", *shape)
            for namespace, interface in ((own, "eth0"), (hub, f"port{rank}")):
                call("ip", "-n", namespace, "link", "set", interface, "addrgenmode", "none", "up")
        words = ["ip", "netns", "exec", hub, sys.executable, __file__, "switch", str(self.ranks), str(self.delay)]
        self._switch = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
        assert self._switch.stdout is not None
        if self._switch.stdout.readline() != b"ready\n":
            raise OSError("the switch has not started")

    def enter(self, rank: int) -> None:
        """Make this thread, and those that it starts, a rank's."""
        c_library = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self._name(rank)).open() as namespace:
            if c_library.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def close(self) -> None:
        """End the switch, remove all namespaces."""
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()
            self._switch = None
        while self._made:
            subprocess.run(["ip", "netns", "del", self._made.pop()], capture_output=True, check=False)


def remove_stale() -> None:
    """Namespaces of processes that are not there any more."""
    for line in call("ip", "netns", "list").splitlines():
        found = re.match(rf"{PREFIX}(\d+)-\w+", line)
        if found and not Path("/proc", found[1]).exists():
            subprocess.run(["ip", "netns", "del", found[0]], capture_output=True, check=False)


def sent(interface: str = "eth0") -> int:
    """Bytes that the kernel has counted on their way out of this namespace's interface, all headers included."""
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith(f"{interface}:"))


def why_not() -> str | None:
    """The reason why there can be no such network here; None where there can be one."""
    if not sys.platform.startswith("linux"):
        return "this is not Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "tc") if shutil.which(program) is None]
    if missing:
        return f"there is no {' and no '.join(missing)} (iproute2)"
    try:
        with Network(1, 100, 1):
            return None
    except OSError as error:
        return str(error)


def plain(interface: str) -> None:
    """Switch an interface's offloads off, so that frames are as they would be on a cable, checksums included."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        for what in SWITCHED_OFF:
            value = ctypes.create_string_buffer(struct.pack("II", what, 0))
            fcntl.ioctl(any_, SIOCETHTOOL, struct.pack("16sP8x", interface.encode(), ctypes.addressof(value)))


def switch(ranks: int, delay: float) -> None:
    """Hand frames on, each `delay` ms after it came; those to all (ARP) go to all others."""
    die_with_parent()
    ports = []
    for rank in range(ranks):
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)  # type: ignore[attr-defined, unused-ignore]
        port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
            port.setsockopt(socket.SOL_SOCKET, option, 1 << 25)
        port.bind((f"port{rank}", EVERYTHING))
        port.setblocking(False)
        ports.append(port)
    numbers = {port: rank for rank, port in enumerate(ports)}
    to = {mac(rank): (rank,) for rank in range(ranks)}
    on_the_way: deque[tuple[float, bytes, int]] = deque()
    print("ready", flush=True)
    while True:
        wait = max(0.0, on_the_way[0][0] - time.monotonic()) if on_the_way else None
        readable, _, _ = select.select(ports, [], [], wait)
        for port in readable:
            due = time.monotonic() + delay / 1000
            for _ in range(64):  # then it is the turn of the others
                try:
                    frame = port.recv(65536)
                except BlockingIOError:
                    break
                everyone = range(ranks) if frame[:6] == b"\xff" * 6 else ()
                for rank in to.get(frame[:6], everyone):
                    if rank != numbers[port]:
                        on_the_way.append((due, frame, rank))
        now = time.monotonic()
        while on_the_way and on_the_way[0][0] <= now:
            _, frame, rank = on_the_way.popleft()
            ports[rank].send(frame)


if __name__ == "__main__":
    {"plain": lambda: plain(sys.argv[2]), "switch": lambda: switch(int(sys.argv[2]), float(sys.argv[3]))}[
        sys.argv[1]
    ]()
