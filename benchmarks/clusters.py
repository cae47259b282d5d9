"""How much a cluster of Ray costs: paced replicas on two nodes of this machine, against the time that they need.

    python benchmarks/clusters.py --prompts 100000 --replicas 8
    python benchmarks/clusters.py --prompts 1000 --replicas 1 --executor local

Each replica is a process that answers a request after LATENCY seconds and is sent CONCURRENCY at once, so it needs
PROMPTS / REPLICAS / CONCURRENCY * LATENCY seconds. Beside that stand what passed between the first request and the last
sample in the store, and the most memory of the driver (resident, its children not among it).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmparity.core.ports import Layers

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
MODEL = ROOT / "fixtures/models/tiny/tiny-Q4_0.gguf"
sys.path.insert(0, str(ROOT))


def serve(latency: float, words: list[str]) -> None:
    """Be one replica: a server that says of itself what llama.cpp says."""
    from tests.doubles.posing import PosingEngine

    parser = argparse.ArgumentParser()
    for name in ("--alias", "--port", "--ctx-size", "--parallel"):
        parser.add_argument(name)
    flags, _ = parser.parse_known_args(words)
    engine = PosingEngine(model=flags.alias, poses_as="llamacpp", port=int(flags.port), quantization="Q4_0")
    engine.script, engine.first_delay_s = "well, yes, that is so", latency
    with engine:
        while True:
            signal.pause()


class Clock:
    """Takes note of when the first request was due and the last sample came. Satisfies ``core.ports.Progress``."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.samples = 0

    def say(self, text: str) -> None:
        """Nothing is shown."""

    def fetch(self, engine: str, layers: Layers | None) -> None:
        """Nothing is shown."""

    def begin(self, engine: str, total: int) -> None:
        self.began = time.monotonic()

    def more(self, engine: str, count: int) -> None:
        """Nothing is shown."""

    def advance(self, engine: str) -> None:
        self.samples += 1
        self.ended = time.monotonic()

    def experiments(self, pair: str, sent: int, most: int | None) -> None:
        """Nothing is shown."""

    def end(self) -> None:
        """Nothing is shown."""


def drive(options: argparse.Namespace) -> None:
    """Gather all prompts and print what it took."""
    from pytest_llmparity.keeper.client import Keeper
    from pytest_llmparity.plugin.placing import Placing
    from pytest_llmparity.run.session import Session
    from pytest_llmparity.settings.specification import LOCAL, EngineSpec, Settings

    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), Clock()
        rows = (
            {"id": f"c{at}", "messages": [{"role": "user", "content": f"question {at}: " + "what of it? " * 20}]}
            for at in range(options.prompts)
        )
        with (folder / "prompts.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        spec = EngineSpec(
            name="paced",
            kind="llamacpp",
            launch="process",
            model=MODEL.name,
            model_path=MODEL,
            command=(sys.executable, str(HERE), "serve", str(options.latency)),
            context_length=512,
            replicas=options.replicas,
            num_cpus=0.1,
        )
        settings = Settings(engines=(spec,), baseline="paced", executor=options.executor, concurrency=4)
        placing = Placing(settings, token="benchmark", workdir=folder)
        started = time.monotonic()
        if options.executor != LOCAL:
            placing.refuse_unfit()
        connected = time.monotonic() - started
        session = Session(
            settings,
            root=folder,
            token="benchmark",
            keeper=lambda: Keeper.spawn(folder / ".llmparity"),
            version="1",
            progress=clock,
            elsewhere=None if options.executor == LOCAL else placing.cluster,
            part=placing.close,
        )
        session.gates.declare("t", ["prompts.jsonl"], {"max_tokens": 8}, folder=folder)
        begun = time.monotonic()
        session.gather()
        whole = time.monotonic() - begun
        assert session.run is not None
        stored = sum(1 for sample in session.store().have(session.run, "paced"))
        session.close()
    needed = options.prompts / options.replicas / 4 * options.latency
    took = clock.ended - clock.began
    print(
        json.dumps(
            {
                "executor": options.executor.partition("=")[0],
                "prompts": options.prompts,
                "replicas": options.replicas,
                "latency_s": options.latency,
                "stored": stored,
                "connected_s": round(connected, 2),
                "needed_s": round(needed, 1),
                "took_s": round(took, 1),
                "over": f"{took / needed - 1:+.1%}",
                "whole_gathering_s": round(whole, 1),
                "driver_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        ),
        flush=True,
    )


def main() -> None:
    """Make a cluster where one is asked for, and drive it from a process of its own."""
    if sys.argv[1:2] == ["serve"]:
        serve(float(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--latency", type=float, default=0.25, help="seconds until a replica answers")
    parser.add_argument("--executor", default="ray", help="local, ray (two nodes, made here) or ray=ADDRESS")
    options = parser.parse_args()
    if options.executor != "ray":
        drive(options)
        return
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    began = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    print(f"two nodes are up after {time.monotonic() - began:.1f} s", flush=True)
    try:
        words = ["--prompts", str(options.prompts), "--replicas", str(options.replicas)]
        words += ["--latency", str(options.latency), "--executor", f"ray={cluster.address}"]
        subprocess.run([sys.executable, str(HERE), *words], check=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
