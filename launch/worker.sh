#!/usr/bin/env bash
# One host of a TPU slice: what tpu.sh asks of it over ssh.
#
#   worker.sh install           Python, and vrl_jax with what it needs
#   worker.sh start ARGUMENTS   python -m vrl_jax.main --distributed ARGUMENTS, detached
#   worker.sh state             print "running", "exited CODE", or "gone" where nothing was started
#   worker.sh logs              print the log, and what comes until the run ends
#   worker.sh stop              ask the run to save and leave, and wait for it
#
# --dry-run in front prints the commands of install, start and stop and executes nothing.

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

venv=$HOME/vrl_venv
records=$HOME/vrl_run # pid, code and log of the run

install() {
  [ -x "$HOME/.local/bin/uv" ] || run bash -c 'curl -LsSf https://astral.sh/uv/install.sh | sh'
  cd "$root"
  # The images bring an older Python than we need.
  run "$HOME/.local/bin/uv" venv --quiet --allow-existing --python=3.11 "$venv"
  run "$HOME/.local/bin/uv" pip install --quiet --python="$venv" -c constraints.txt -e '.[tpu,gcs]'
}

running() {
  # A reboot may have given the number to another process.
  [ -s "$records/pid" ] && grep -qs vrl_jax "/proc/$(cat "$records/pid")/cmdline"
}

start() { # ARGUMENTS
  ! running || die "a run is going on: stop it first"
  local command=("$venv/bin/python" -m vrl_jax.main --distributed "$@")
  if $dry_run; then
    run "${command[@]}"
    return
  fi
  mkdir -p "$records"
  cd "$records" && rm -f pid code
  # shellcheck disable=SC2016  # the inner shell expands it
  nohup setsid bash -c 'cd "$1"; shift; "$@" & echo $! >"$OLDPWD/pid"
    wait $!; echo $? >"$OLDPWD/code.new"; mv "$OLDPWD/code.new" "$OLDPWD/code"' \
    start "$root" "${command[@]}" >>log 2>&1 3>&- </dev/null & # holding on to nothing of ssh's
  until [ -s pid ]; do sleep 0.1; done
}

state() {
  if [ ! -f "$records/code" ] && running; then
    echo running
    return
  fi
  [ -f "$records/code" ] || sleep 1 # it comes a moment after the end of the run
  if [ -f "$records/code" ]; then
    echo "exited $(cat "$records/code")"
  else
    echo gone
  fi
}

logs() {
  [ -s "$records/pid" ] || die "nothing was started here"
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
  *) die "the first word must be install, start, state, logs or stop, got '${1:-}'" ;;
esac
