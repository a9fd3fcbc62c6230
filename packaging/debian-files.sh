#!/bin/sh
# Prints a folder with the files of some Debian packages, unpacked and not installed:
#
#   debian-files.sh NAME SUITE[+security] ARCHITECTURE PACKAGE...
#
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/weir/debian/NAME until what is asked for, or this script, changes.
set -eu
name=$1
suite=${2%+security}
with_security=${2#"$suite"}
architecture=$3
shift 3
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/debian
target=$cache/$name
mkdir -p "$cache"
exec 9>"$cache/.$name.lock"
flock 9
recipe="$suite$with_security $architecture $* $(cksum <"$0")"
if [ "$(cat "$target/.recipe" 2>/dev/null)" = "$recipe" ]; then
  echo "$target"
  exit 0
fi

work=$(mktemp -d "$cache/.$name-XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$work/log
say() { printf 'debian-files: %s\n' "$*" >&2; }
# run COMMAND...: its output is shown only when it fails.
run() {
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    say "failed: $*"
    exit 1
  }
}

mirrors=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages')
mirror=$(echo "$mirrors" | sed -n 's/^Debian //p' | head -n 1)
security=$(echo "$mirrors" | sed -n 's/^Debian-Security //p' | head -n 1)
if [ -z "$mirror" ]; then
  say "no Debian archive among this machine's apt sources (or 'apt-get update' was never run)"
  exit 1
fi
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/files"
: >"$work/status"
options="arch=$architecture signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
echo "deb [$options] $mirror $suite main" >"$work/sources.list"
[ -z "$with_security" ] || [ -z "$security" ] || echo "deb [$options] $security $suite-security main" >>"$work/sources.list"
get() {
  run apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
    -o APT::Architecture="$architecture" -o APT::Architectures="$architecture" \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o APT::Update::Error-Mode=any "$@"
}
say "downloading from Debian $suite ($architecture): $*"
get update
cd "$work/debs"
get download "$@"
for file in *.deb; do
  # A link that is a folder here stays one: /lib is a link to /usr/lib in some packages and a folder in others.
  dpkg-deb --fsys-tarfile "$file" | tar -x -C "$work/files" --keep-directory-symlink
done
# Linker scripts and links name files from the root of a system; here they are to mean the files beside them.
find "$work/files" -type l | while read -r link; do
  to=$(readlink "$link")
  case $to in
    /*) ln -sfn --relative "$work/files$to" "$link" ;;
  esac
done
echo "$recipe" >"$work/files/.recipe"
rm -rf "$target"
mv "$work/files" "$target"
echo "$target"
