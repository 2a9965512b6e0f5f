# shellcheck shell=bash
# Functions shared by the scripts in this folder, which source this file.
set -euo pipefail
exec 3>&1 # output of --dry-run, also from within $(...)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=false

die() { # MESSAGE: print it and exit
  echo "error: $*" >&2
  exit 2
}

log() { # MESSAGE: print it to stderr
  $dry_run || echo "$*" >&2
}

usage() { # print the comment at the top of the script and exit
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"
  exit 0
}

quote() { # WORDS: print them on one line, quoted for pasting
  local word line=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_=:,./@%+-]+$ ]] || word=${word@Q}
    line+=("$word")
  done
  echo "${line[*]}"
}

run() { # COMMAND: run it, or print it in a dry run
  if $dry_run; then quote "$@" >&3; else "$@"; fi
}

query() { # ANSWER COMMAND: run it for its output; in a dry run print it and output ANSWER
  local answer=$1
  shift
  if $dry_run; then quote "$@" >&3 && echo "$answer"; else "$@"; fi
}

pause() { # wait before the next poll
  $dry_run || sleep "${VRL_POLL_SECONDS:-60}"
}

require_program() { # PROGRAM HINT: exit unless it is installed
  $dry_run || command -v "$1" >/dev/null || die "$1 is not installed: $2"
}

require_value() { # NAME VALUE FLAG: exit if the value is empty
  [ -n "$2" ] || die "no $1: pass $3"
}

check_name() { # NAME: exit unless it is a valid resource name
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    die "name must be at most 40 lower-case letters, digits and dashes, got '$1'"
}

require_config() { # ARGUMENTS: exit unless they contain --config
  [[ " $*" == *" --config="* ]] || die "no config: pass -- --config=configs/... [--workdir=...]"
}

workdir_flag() { # BUCKET NAME ARGUMENTS: print --workdir on the bucket unless it is passed
  local bucket=${1#gs://} argument
  for argument in "${@:3}"; do
    case $argument in
      --workdir=gs://?*/?*) return ;;
      --workdir | -workdir*) die "write --workdir=gs://BUCKET/..., got $argument" ;;
      --workdir=*) die "the run must outlive its machines: $argument must start with gs://BUCKET/" ;;
    esac
  done
  require_value "bucket for the run's folder" "$bucket" "--bucket=... or set VRL_BUCKET"
  echo "--workdir=gs://${bucket%/}/runs/$2"
}

make_scratch() { # set folder to an empty one that is removed when this shell exits
  folder=${TMPDIR:-/tmp}/vrl_jax.XXXXXX
  if $dry_run; then run mkdir "$folder"; else folder=$(mktemp -d "$folder") || exit; fi
  trap 'run rm -rf "$folder"' EXIT
}

pack() { # FILE: archive the committed source there
  if ! $dry_run && [ -n "$(git -C "$root" status --porcelain)" ]; then
    log "note: uncommitted changes are not sent"
  fi
  run git -C "$root" archive --format=tar.gz --output="$1" HEAD
}
