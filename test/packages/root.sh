#!/bin/sh
# Prints the folder of a clean Debian system: root.sh NAME SUITE [PACKAGE...]
#
# It is made by debootstrap (minbase, and the packages named) from the Debian mirror that this machine uses, once, and
# kept in ${XDG_CACHE_HOME:-~/.cache}/weir/roots/NAME until what is asked for, or this script, changes.
set -eu
name=$1
suite=$2
shift 2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/roots
target=$cache/$name
mkdir -p "$cache"
# Two that ask for the same root at the same time get the same one.
exec 9>"$cache/.$name.lock"
flock 9
recipe="$suite $* $(cksum <"$0")"
if [ "$(cat "$target.recipe" 2>/dev/null)" = "$recipe" ]; then
  echo "$target"
  exit 0
fi
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -n 1)
if [ -z "$mirror" ]; then
  echo "root: no Debian archive among this machine's apt sources (or 'apt-get update' was never run)" >&2
  exit 1
fi
echo "root: making a clean Debian $suite for $name" >&2
rm -rf "$target" "$target.recipe" "$target.new"
include=$(echo "$*" | tr ' ' ',')
# In a mount namespace of its own: what debootstrap mounts is gone when it ends.
if ! unshare --mount debootstrap --variant=minbase ${include:+--include="$include"} \
  --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$target.new" "$mirror" >"$target.log" 2>&1; then
  tail -n 20 "$target.log" >&2
  exit 1
fi
rm -f "$target.new"/var/cache/apt/archives/*.deb "$target.log"
rm -rf "$target.new"/var/lib/apt/lists/*
mv "$target.new" "$target"
echo "$recipe" >"$target.recipe"
echo "$target"
