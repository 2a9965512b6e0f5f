# shellcheck shell=bash
# What the scripts of this folder share; they source it.
set -euo pipefail
exec 3>&1 # where --dry-run prints, also from within $(...)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=false

die() { # MESSAGE: stop with it
  echo "error: $*" >&2
  exit 2
}

say() { # MESSAGE: tell it, apart from output
  $dry_run || echo "$*" >&2
}

usage() { # print the comment at the top of the script
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"
  exit 0
}

quoted() { # WORDS: print them on one line, so that it can be pasted
  local word line=()
  for word; do
    [[ $word =~ ^[A-Za-z0-9_=:,./@%+-]+$ ]] || word=${word@Q}
    line+=("$word")
  done
  echo "${line[*]}"
}

run() { # COMMAND: run it; print it in a dry run
  if $dry_run; then quoted "$@" >&3; else "$@"; fi
}

ask() { # ANSWER COMMAND: run it for its output; print it in a dry run and give ANSWER
  local answer=$1
  shift
  if $dry_run; then quoted "$@" >&3 && echo "$answer"; else "$@"; fi
}

pause() { # wait before the next look
  $dry_run || sleep "${VRL_POLL_SECONDS:-60}"
}

need() { # PROGRAM HOW: stop unless it is installed
  $dry_run || command -v "$1" >/dev/null || die "$1 is not installed: $2"
}

given() { # WHAT VALUE FLAG: stop unless there is a value
  [ -n "$2" ] || die "no $1: pass $3"
}

named() { # NAME: stop unless clouds take it as a name
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    die "name must be at most 40 lower-case letters, digits and dashes, got '$1'"
}

configured() { # ARGUMENTS: stop unless they hold a config
  [[ " $*" == *" --config="* ]] || die "no config: pass -- --config=configs/... [--workdir=...]"
}

outlasting() { # BUCKET NAME ARGUMENTS: print the flag of the run's folder, unless they have it
  local bucket=${1#gs://} argument
  for argument in "${@:3}"; do
    case $argument in
      --workdir=gs://?*/?*) return ;;
      --workdir | -workdir*) die "write --workdir=gs://BUCKET/..., got $argument" ;;
      --workdir=*) die "the run must outlast its machines: $argument must begin with gs://BUCKET/" ;;
    esac
  done
  given "bucket for the run's folder" "$bucket" "--bucket=... or set VRL_BUCKET"
  echo "--workdir=gs://${bucket%/}/runs/$2"
}

scratch() { # set folder to an empty one, which is removed when this shell ends
  folder=${TMPDIR:-/tmp}/vrl_jax.XXXXXX
  if $dry_run; then run mkdir "$folder"; else folder=$(mktemp -d "$folder") || exit; fi
  trap 'run rm -rf "$folder"' EXIT
}

pack() { # FILE: write the committed source there
  if ! $dry_run && [ -n "$(git -C "$root" status --porcelain)" ]; then
    say "note: only what is committed is sent"
  fi
  run git -C "$root" archive --format=tar.gz --output="$1" HEAD
}
