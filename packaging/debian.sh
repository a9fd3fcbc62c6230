# What the scripts that fetch from Debian have in common: they read this file when they have set `name`, `work` (a folder
# that is made here and removed when they end, and that nobody else uses while they hold their lock) and, before
# `debian_get`, `architecture`.
#
# The archive is the one that this machine uses itself, whatever release it runs; nothing of its own apt is touched.
trap 'rm -rf "$work"' EXIT
# dash runs the line above only where it ends by itself.
trap 'exit 1' HUP INT TERM
# One that was killed has left it.
rm -rf "$work"
mkdir "$work"
log=$work/log
say() { printf '%s: %s\n' "$name" "$*" >&2; }
# run COMMAND...: its output is shown only when it fails.
run() {
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    say "failed: $*"
    exit 1
  }
}

# debian_source KIND SUITE[+security]: adds a release to those that debian_get knows; KIND is deb or deb-src.
debian_source() {
  mirrors=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages')
  mirror=$(echo "$mirrors" | sed -n 's/^Debian //p' | head -n 1)
  security=$(echo "$mirrors" | sed -n 's/^Debian-Security //p' | head -n 1)
  if [ -z "$mirror" ]; then
    say "no Debian archive among this machine's apt sources (or 'apt-get update' was never run)"
    exit 1
  fi
  options="[arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
  suite=${2%+security}
  mkdir -p "$work/apt"
  echo "$1 $options $mirror $suite main" >>"$work/apt/sources.list"
  if [ "$suite" != "$2" ] && [ -n "$security" ]; then
    echo "$1 $options $security $suite-security main" >>"$work/apt/sources.list"
  fi
}

# debian_get WORD...: apt-get with those releases alone and as on a machine without any package.
debian_get() {
  mkdir -p "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial"
  : >>"$work/apt/status"
  run apt-get -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$work/apt/state" -o Dir::State::status="$work/apt/status" -o Dir::Cache="$work/apt/cache" \
    -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o APT::Update::Error-Mode=any "$@"
}
