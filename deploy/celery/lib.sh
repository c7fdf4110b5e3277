# Shared by up and down: where things are, and processes that are known by their id.
# shellcheck shell=bash disable=SC2034

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
home=$(realpath -m -- "${NEURALPILE_HOME:-$HOME/.neuralpile-cluster}")
run=$home/run           # one folder per process: pid, log
environment=$home/cluster.env

die() {
  echo "$(basename -- "$0"): $*" >&2
  exit 1
}

# Postgres refuses to run as root: it then runs as the user that Debian's package made.
as_postgres=()
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid postgres --regid postgres --clear-groups --)

pg_bin() {
  local found
  found=$(command -v pg_ctl || find /usr/lib/postgresql -path '*/bin/pg_ctl' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$found" ] || die "Postgres is not installed (Debian: apt-get install postgresql)"
  dirname -- "$(readlink -f -- "$found")"
}

# A process's identity: its id alone may be given to another after a reboot. One that has ended has none, even if its
# parent has not collected it yet (states Z, X).
birth() { sed -n 's/.*) //; /^[^ZX]/p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

is_running() { # name
  [ -f "$run/$1/pid" ] && read -r pid born <"$run/$1/pid" && [ -n "$born" ] && [ "$(birth "$pid")" = "$born" ]
}

start() { # name, command...
  local name=$1
  shift
  if is_running "$name"; then return; fi
  mkdir -p "$run/$name"
  (cd / && exec setsid "$@" >>"$run/$name/log" 2>&1 </dev/null) &
  echo "$! $(birth $!)" >"$run/$name/pid"
}

tell() { # name, signal
  if is_running "$1"; then kill -s "$2" "$pid" 2>/dev/null || ! is_running "$1"; fi
}

finish() { # name, seconds until it is killed with all its children
  for _ in $(seq $(($2 * 10))); do
    is_running "$1" || return 0
    sleep 0.1
  done
  echo "$1 did not stop within $2 s and is killed"
  # it may end by itself just now
  kill -s KILL -- "-$pid" 2>/dev/null || kill -s KILL "$pid" 2>/dev/null || ! is_running "$1"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # port

wait_for() { # what, name of the process, command that succeeds when it is ready
  local what=$1 name=$2
  shift 2
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    is_running "$name" || { tail -n 20 "$run/$name/log" >&2; die "$what ended; its log is $run/$name/log"; }
    sleep 0.2
  done
  die "$what is not ready after two minutes; its log is $run/$name/log"
}
