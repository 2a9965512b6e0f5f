#!/usr/bin/env bash
# Actions on one host of a TPU slice, which tpu.sh runs over ssh.
#
#   worker.sh install           install Python, vrl_jax and its dependencies
#   worker.sh start ARGUMENTS   run python -m vrl_jax.main --distributed ARGUMENTS, detached
#   worker.sh state             print "running", "exited CODE", or "gone" if nothing was started
#   worker.sh logs              print the log and follow it until the run ends
#   worker.sh stop              make the run save and exit, and wait for it
#
# With --dry-run first, print the commands of install, start and stop without running them.

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

venv=$HOME/vrl_venv
records=$HOME/vrl_run # pid, code and log of the run

install() {
  [ -x "$HOME/.local/bin/uv" ] || run bash -c 'curl -LsSf https://astral.sh/uv/install.sh | sh'
  cd "$root"
  # The VM images have an older Python than vrl_jax needs.
  run "$HOME/.local/bin/uv" venv --quiet --allow-existing --python=3.12 "$venv"
  run "$HOME/.local/bin/uv" pip install --quiet --python="$venv" -c constraints.txt -e '.[tpu,gcs]'
}

running() {
  # After a reboot, another process may have this number.
  [ -s "$records/pid" ] && grep -qs vrl_jax "/proc/$(cat "$records/pid")/cmdline"
}

start() { # ARGUMENTS
  ! running || die "a run is in progress: stop it first"
  local command=("$venv/bin/python" -m vrl_jax.main --distributed "$@")
  if $dry_run; then
    run "${command[@]}"
    return
  fi
  mkdir -p "$records"
  cd "$records" && rm -f pid code
  # shellcheck disable=SC2016  # the inner shell expands these
  nohup setsid bash -c 'cd "$1"; shift; "$@" & echo $! >"$OLDPWD/pid"
    wait $!; echo $? >"$OLDPWD/code.new"; mv "$OLDPWD/code.new" "$OLDPWD/code"' \
    start "$root" "${command[@]}" >>log 2>&1 3>&- </dev/null & # keep no file descriptor of ssh open
  until [ -s pid ]; do sleep 0.1; done
}

state() {
  if [ ! -f "$records/code" ] && running; then
    echo running
    return
  fi
  [ -f "$records/code" ] || sleep 1 # the code is written shortly after the run ends
  if [ -f "$records/code" ]; then
    echo "exited $(cat "$records/code")"
  else
    echo gone
  fi
}

logs() {
  [ -s "$records/pid" ] || die "no run was started on this host"
  tail -n +1 -F --pid="$(cat "$records/pid")" "$records/log"
}

stop() {
  if running; then run kill -TERM "$(cat "$records/pid")"; fi
  while ! $dry_run && running; do sleep 1; done
}

if [ "${1:-}" = --dry-run ]; then
  dry_run=true
  shift
fi
case ${1:-} in
  --help) usage ;;
  install | start | state | logs | stop) "$@" ;;
  *) die "the action must be install, start, state, logs or stop, got '${1:-}'" ;;
esac
