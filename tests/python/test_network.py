"""benchmarks/network.py: the model's arithmetic, the network of namespaces where it can be had, a small run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import threading
import time

import pytest
import torch
from test_examples import ROOT, assert_is_png, run

pytestmark = pytest.mark.usefixtures("benchmarks")


def ring(ranks, size, wait, rate):
    """A ring of `ranks`, message by message: bytes that rank 0 sends, and when the last one has arrived.

    Chunks have two segments. A rank sends its own chunk's first, then what has come in, in that order; a message
    leaves when the one before it has, and takes `wait` beside its bytes.
    """
    segment = size / (2 * ranks)
    free = [0.0] * ranks
    there = [[0.0, 0.0] for _ in range(ranks)]  # when a rank has what it sends next, of each segment
    for _ in range(2 * (ranks - 1)):
        came = [[0.0, 0.0] for _ in range(ranks)]
        for number in range(2):
            for rank in range(ranks):
                free[rank] = max(free[rank], there[rank][number]) + segment / rate
                came[(rank + 1) % ranks][number] = free[rank] + wait
        there = came
    return 2 * (ranks - 1) * 2 * segment, max(map(max, there))


@pytest.mark.parametrize("ranks", [2, 5, 64])
@pytest.mark.parametrize("size", [4_000, 4_000_000, 400_000_000])
def test_an_all_reduce_is_a_ring_s(ranks, size):
    """To the time of one segment, which the first message is ahead."""
    from network_model import Hop, Network, hops, sent

    delay, rate, hop = 0.02, 12.5e6, Hop(2.0, 0.001)
    network = Network(delay, rate, Hop(1.0, 0.0), hop)
    bytes_, seconds = ring(ranks, size, 2 * delay + 0.001, rate)
    assert sent(ranks, size) == pytest.approx(bytes_)
    assert network.all_reduce(ranks, size // 4) == pytest.approx(seconds, abs=size / (2 * ranks) / rate + 0.041)
    assert network.all_reduce(ranks, 1) >= hops(ranks) * delay  # few numbers: the other kind of hop
    assert network.all_reduce(1, size) == 0
    if ranks == 64:
        assert (hops(ranks), hops(ranks, tree=True)) == (126, 12)


def test_all_reduces_that_are_under_way_together():
    """They share the line, and their delays."""
    from collectives import begun, in_turn, seconds

    order = [5, -1, 30, 4, -3, 1, -4, -2, 2, -5]  # 4 and 1 come and go while 30 is under way
    assert begun(order) == [5, 30, 4, 1, 2]
    assert in_turn(order) == 4
    # 4 is sent behind 30, until 49; 1 comes at 60, 30 has come at 55.
    assert seconds(order, lambda n: 10 + n, lambda n: n) == pytest.approx(15 + 34 + 11 + 12)
    assert seconds(order, lambda n: 10 + n, lambda _: 0.0) == pytest.approx(15 + 40 + 12)
    one_by_one = [5, -1, 30, -2, 4, -3, 1, -4, 2, -5]
    assert in_turn(one_by_one) == 5
    assert seconds(one_by_one, lambda n: 10 + n, lambda n: n) == pytest.approx(50 + sum(begun(order)))


def test_which_sums_of_a_sweep_wait_for_one_another():
    """Of L layers 2 L + 2, and one of `guard`; two matrices a layer and what decides on its states do not."""
    import data_sets
    import rounds
    from collectives import begun, in_turn

    set_ = data_sets.SETS["digits"]
    x, y = torch.rand(500, 64), torch.arange(500) % 10
    found = rounds.sweep(data_sets.Data(x, y, x, y), set_)
    widths = [64, *set_.hidden, 10]
    layers = len(widths) - 1
    assert in_turn(found.order) == 2 * layers + 3
    matrices = [(d + 1) * (d + 2) // 2 for d in widths[:-1]]
    matrices += [(d + 1) * d_next for d, d_next in itertools.pairwise(widths)]
    sizes = begun(found.order)
    assert len(sizes) == 4 * layers + 2
    assert sorted(sizes)[-2 * layers :] == sorted(matrices)
    assert found.bytes == 4 * sum(matrices) + 8 * sum(sorted(sizes)[: -2 * layers])


def test_constants_are_found_again():
    from network_model import Computing, Hop, fit_computing, fit_hop

    steps = [(rows, 0.002 + 3e-5 * rows) for rows in (75, 150, 600)]
    assert fit_computing(steps) == pytest.approx(Computing(0.002, 3e-5))
    assert fit_computing([(100, 0.5)]) == pytest.approx(Computing(0.0, 0.005))
    assert fit_computing([(100, 0.1), (200, 0.3)]).fixed == 0
    quick, slow = [(2, 2e-3), (4, 6e-3)], [(2, 0.082), (4, 0.246)]
    assert fit_hop(quick, slow, 0.02) == pytest.approx(Hop(2.0, 1e-3))


def test_why_there_is_no_network(monkeypatch):
    import slow_network

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert slow_network.why_not() == "network namespaces need root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert slow_network.why_not() == "there is no ip and no tc (iproute2)"


def test_a_network_has_its_delay_and_leaves_nothing():
    import slow_network

    if reason := slow_network.why_not():
        pytest.skip(reason)
    took = []

    def connect(network):
        network.enter(0)
        server_address = (slow_network.address(1), 5000)
        start = time.monotonic()
        with socket.create_connection(server_address, timeout=30):
            took.append(time.monotonic() - start)
        took.append(slow_network.sent())

    def listen(network, listening):
        network.enter(1)
        with socket.create_server(("", 5000)) as server:
            listening.set()
            server.accept()[0].close()

    def both():
        with slow_network.Network(2, 100, 20) as network:
            listening = threading.Event()
            threads = [threading.Thread(target=listen, args=(network, listening), daemon=True)]
            threads[0].start()
            assert listening.wait(30)
            threads.append(threading.Thread(target=connect, args=(network,), daemon=True))
            threads[1].start()
            threads[1].join(60)
            raise RuntimeError("an error of the user's")

    with pytest.raises(RuntimeError, match="of the user's"):
        both()
    assert took[0] >= 0.04  # there and back
    assert took[1] > 0
    assert f"{slow_network.PREFIX}{os.getpid()}" not in slow_network.call("ip", "netns", "list")


def test_benchmark(tmp_path):
    """On the loopback, which takes no namespaces: a file that the model reads, and rounds of three in turn."""
    script, numbers = ROOT / "benchmarks/network.py", ("--set", "digits", "--rate", 0, "--delay", 0)
    more = ("--ranks", 2, "--simulated", 3, "--results", "found.json")
    run(script, *numbers, *more, cwd=tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    weights_bytes = 4 * (64 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10)
    assert len(found["runs"]) == 6
    for entry in found["runs"]:
        syncs, seconds, computing, queueing, given, score = entry["looks"][-1]
        assert entry["ranks"] == 2
        assert 0 < computing <= seconds
        assert queueing >= 0
        assert 50 < score <= 100
        assert given == syncs * weights_bytes or entry["method"] == "RelaxedBCD, sweeps"
    assert {t["method"] for t in found["trials"] if t["kind"] == "simulated"} == {
        f"{name}, local rounds" for name in ("RelaxedBCD", "AdamW", "Muon")
    }
    assert_is_png(tmp_path / "found.png")
    assert "## Model and measurement" in (tmp_path / "found.md").read_text()
