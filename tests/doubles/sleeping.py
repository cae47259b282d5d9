"""A vLLM that can be put to sleep, as its development routes have it."""

from __future__ import annotations

import json
from typing import Any

from pytest_llmparity.testing.server import Call, Hangup
from tests.doubles.posing import PosingEngine

GPU = {"device_config": {"device": "cuda"}, "model_config": {"enable_sleep_mode": True}}


class Vllm(PosingEngine):
    """A vLLM in development mode; ``config`` is what it tells of itself (``None``: it hangs up when asked).

    ``stuck`` answers and does nothing.
    """

    def __init__(self, config: object = GPU, *, dev: bool = True, asleep: object = False, stuck: bool = False) -> None:
        super().__init__(poses_as="vllm")
        self.config, self.dev, self.asleep, self.stuck = config, dev, asleep, stuck
        self.status = 200
        self.told: list[str] = []

    def answer(self, call: Call) -> None:
        route = call.path.partition("?")[0]
        if route not in ("/sleep", "/wake_up", "/is_sleeping", "/server_info"):
            super().answer(call)
            return
        if not self.dev:
            call.send(404, b"{}")
            return
        if call.method == "POST":
            self.told.append(call.path)
            if self.status == 200 and not self.stuck:
                self.asleep = route == "/sleep"
            body: Any = {"error": {"message": "CUDA out of memory"}} if self.status != 200 else {}
            call.send(self.status, json.dumps(body).encode())
            return
        if route == "/server_info" and self.config is None:
            raise Hangup
        body = {"is_sleeping": self.asleep} if route == "/is_sleeping" else {"vllm_config": self.config}
        call.send(200, json.dumps(body).encode())
