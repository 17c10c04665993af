# Sourced by the scripts that build and test the image: a cache keyed by content, retries, packages, and timed steps.
#   cached NAME HASH BUILD   runs `BUILD DIR` once for this HASH and prints the directory it filled
# Everything that can be told again lives under $cache; removing that directory is always safe.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/rekindle
export SOURCE_DATE_EPOCH=1767225600   # 2026-01-01: the time of every file we make, so that equal inputs give equal bytes
shopt -s inherit_errexit   # a failure inside $(...) stops the script, too
export LC_ALL=C TZ=UTC DEBIAN_FRONTEND=noninteractive

say() { echo "image: $*" >&2; }

# timed WHAT COMMAND...: runs the command and says how long it took.
timed() {
  local what=$1 start=$EPOCHREALTIME; shift
  "$@"
  say "$what: $(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f s", b - a}')"
}

# retry COMMAND...: three attempts, for what downloads.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    say "attempt $attempt failed: $*"
  done
  return 1
}

# need PACKAGE...: installs those Debian packages that are missing.
need() {
  local missing=() package
  for package; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || { say "these packages are missing, install them as root: ${missing[*]}"; return 1; }
  say "installing ${missing[*]}"
  retry apt-get -q update >&2
  retry apt-get -q -y install --no-install-recommends "${missing[@]}" >&2
}

# digest WORD|PATH...: one hash over words, files and trees (names, modes, contents), the same on every machine.
digest() {
  local input
  for input; do
    if [ -e "$input" ]; then
      tar -C "$(dirname "$input")" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - "$(basename "$input")"
    else
      printf '%s\n' "$input"
    fi
  done | sha256sum | cut -c1-16
}

cached() {
  local name=$1 hash=$2 build=$3 dir old
  dir=$cache/$name-$hash
  mkdir -p "$cache"
  (
    flock 9   # two builds of one thing at once: the second waits and finds it done
    [ ! -d "$dir" ] || exit 0
    rm -rf "$cache/$name"-*.part   # of builds that failed: under the lock there is no other
    mkdir -p "$dir.part"
    say "building $name ($hash)"
    timed "$name" "$build" "$dir.part" >&2
    mv "$dir.part" "$dir"
    # The two newest before this one stay, for another branch on the same machine.
    find "$cache" -mindepth 1 -maxdepth 1 -type d -name "$name-????????????????" -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- |
      while read -r old; do rm -rf "$old"; done
  ) 9>"$cache/$name.lock"
  touch "$dir"
  echo "$dir"
}
