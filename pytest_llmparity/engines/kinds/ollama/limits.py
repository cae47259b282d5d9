"""What Ollama drops, changes or adds without a word, in sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pytest_llmparity.engines.kinds.ollama.about import Show, sampling_defaults, served_by_llama, template_path
from pytest_llmparity.settings.specification import Route

_OPENAI: Final = (
    "/v1 drops max_completion_tokens, n, top_k, min_p, repeat_penalty, tool_choice, logit_bias, chat_template_kwargs "
    "and every field it does not know, without a word.",
    "/v1 cannot set num_ctx: one request gets what OLLAMA_CONTEXT_LENGTH, the Modelfile or the machine's GPU memory "
    "says (ollama ps shows it).",
    "On /v1 a conversation that does not fit loses its oldest turns without a word; only a last message that alone is "
    "too long may be refused.",
    "/v1 samples at temperature 1.0 and top_p 1.0 where an application leaves them out, whatever the Modelfile says.",
    "/v1 makes several messages of one whose content is a list of parts.",
    "/v1/completions puts the chat template around its prompt; over route openai raw prompts are sent to /api/generate "
    "instead.",
)
_NATIVE: Final = (
    "engine.openai() uses /v1, which cannot send the load options of this route: Ollama loads the model anew each time "
    "the two alternate.",
    "Ollama has no tool_choice, n, logit_bias or chat_template_kwargs.",
)
_OF_ROUTES: Final[Mapping[Route, tuple[str, ...]]] = {
    "responses": (
        "/v1/responses drops stop, seed, the penalties, json_object and include beside what /v1 drops, and calls an "
        "answer that the token limit cut completed: its count of tokens shows the cut.",
    ),
    "completions": ("/v1/completions gives no logprobs and drops response_format, without a word.",),
}
_ALWAYS: Final = (
    "Ollama reuses its prompt cache for every request; no field switches it off.",
    "Ollama refuses logprobs beside tools, streamed or not; cases with tools are asked without logprobs.",
    "Models over the same weights share one process: which of them loaded it first decides whose template the "
    "llama-server behind it applies, and nothing shows that but the names in ollama ps.",
)


def of_route(route: Route) -> tuple[str, ...]:
    """Return what holds for every model on a route."""
    return (_NATIVE if route == "native" else _OPENAI) + _OF_ROUTES.get(route, ()) + _ALWAYS


def of_model(show: Show, *, version: str, route: Route) -> tuple[str, ...]:
    """Return what this model's template and Modelfile change; nothing when the server did not say."""
    changes = []
    path = template_path(show)
    if path == "jinja":
        changes.append(
            "This model's GGUF template is applied by llama-server, and on that path Ollama forces a schema's "
            "properties in alphabetical order, whatever order they were declared in."
        )
    if show and not served_by_llama(show):
        changes.append(
            "This model is served by Ollama's MLX runner, not by llama-server: compare it as another engine."
        )
    defaults = sampling_defaults(show, version, route)
    penalty = defaults.get("repeat_penalty")
    if route != "native" and penalty not in (None, 1, 1.0):
        changes.append(
            f"repeat_penalty {penalty} is applied to every answer and /v1 cannot switch it off; route = 'native' can."
        )
    if isinstance(stops := defaults.get("stop"), list) and stops:
        changes.append(f"The Modelfile ends answers at {', '.join(map(repr, stops))} where a request names no stop.")
    if show.get("system"):
        changes.append(
            "The Modelfile's SYSTEM prompt is put before every conversation that does not begin with its own."
        )
    if show.get("messages"):
        changes.append("The Modelfile's MESSAGE turns are put before every conversation.")
    if "thinking" in (show.get("capabilities") or ()):
        changes.append(
            "This model thinks before it answers unless a request says otherwise, and those of a run do not."
        )
    if show.get("remote_host"):
        changes.append("This model is not on this machine: Ollama passes requests on to another host.")
    return tuple(changes)
