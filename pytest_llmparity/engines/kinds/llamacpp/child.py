"""Serves one GGUF file through the ``xllamacpp`` package; run as a script by the interpreter that has it.

It takes the flags of ``llama-server`` that matter here, under the same names, so that ``args`` of the configuration
work with both. It imports nothing of this project: that interpreter may be one without it. Only a process of its own
can be killed, and only in one of its own does a crash of the C++ side take nothing else with it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""What llama.cpp keeps keys and values as (common/arg.cpp)."""
FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def main(argv: list[str] | None = None) -> int:
    """Load the model, serve it until killed; the exit status is 1 when it cannot be loaded or the port is taken."""
    options = _parser().parse_args(argv)
    try:
        import xllamacpp
    except ImportError as exc:
        print(f"{sys.executable} has no usable xllamacpp: {exc}", file=sys.stderr)  # noqa: T201  # the log of an engine
        return 1
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    if hasattr(params, "hostnames"):
        params.hostnames = [options.host]
    else:  # before 2026.10, which an environment of an older version may hold
        params.hostname = options.host
    params.port = options.port
    params.n_ctx = options.ctx_size
    params.n_parallel = options.parallel
    params.kv_unified = False
    params.cache_prompt = not options.no_cache_prompt
    params.cache_ram_mib = options.cache_ram
    params.fit_params = options.fit == "on"
    params.endpoint_props = True
    params.endpoint_metrics = options.metrics
    params.offline = options.offline
    for name in ("n_gpu_layers", "n_batch", "n_ubatch", "chat_template", "rope_freq_base", "rope_freq_scale"):
        value = getattr(options, name)
        if value is not None:
            setattr(params, name, value)
    for half in ("k", "v"):
        name = getattr(options, f"cache_type_{half}")
        if name is not None:
            setattr(params, f"cache_type_{half}", getattr(xllamacpp.ggml_type, f"GGML_TYPE_{name.upper()}"))
    if options.mmproj:
        params.mmproj.path = options.mmproj
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(*lora) for lora in options.lora]
    if options.flash_attn is not None:
        name = FLASH_ATTENTION[options.flash_attn]
        params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{name}")
    if options.threads is not None:
        params.cpuparams.n_threads = options.threads
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, OSError) as exc:
        print(f"llama.cpp could not serve {options.model}: {exc}", file=sys.stderr)  # noqa: T201  # the log of an engine
        return 1
    print(f"serving {options.model} at {server.listening_address}", flush=True)  # noqa: T201  # the log of an engine
    threading.Event().wait()  # SIGTERM keeps its default action: there is nothing to save
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp", description=__doc__, allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-a", "--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("-c", "--ctx-size", type=int, required=True)
    parser.add_argument("-np", "--parallel", type=int, required=True)
    parser.add_argument("--no-cache-prompt", action="store_true")
    parser.add_argument("--cache-ram", type=int, default=0)
    parser.add_argument("--fit", choices=("on", "off"), default="off")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("-ngl", "--n-gpu-layers", type=int)
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("-b", "--batch-size", dest="n_batch", type=int)
    parser.add_argument("-ub", "--ubatch-size", dest="n_ubatch", type=int)
    for half in ("k", "v"):
        parser.add_argument(f"-ct{half}", f"--cache-type-{half}", choices=CACHE_TYPES)
    parser.add_argument("--mmproj", default="")
    parser.add_argument("--lora", type=_adapters, action="extend", default=[])
    parser.add_argument("--lora-scaled", type=_scaled_adapters, action="extend", dest="lora")
    parser.add_argument("-fa", "--flash-attn", choices=FLASH_ATTENTION)
    parser.add_argument("--chat-template", dest="chat_template")
    parser.add_argument("--chat-template-file", dest="chat_template", type=_text_of)
    parser.add_argument("--rope-freq-base", type=float)
    parser.add_argument("--rope-freq-scale", type=float)
    return parser


def _adapters(places: str) -> list[tuple[str, float]]:
    return [(place, 1.0) for place in places.split(",")]


def _scaled_adapters(places: str) -> list[tuple[str, float]]:
    pairs = [place.rpartition(":") for place in places.split(",")]
    try:
        return [(path, float(scale)) for path, _, scale in pairs]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{places} is not FILE:SCALE") from None


def _text_of(name: str) -> str:
    try:
        return Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise argparse.ArgumentTypeError(f"{name} cannot be read: {exc}") from exc


if __name__ == "__main__":
    sys.exit(main())
