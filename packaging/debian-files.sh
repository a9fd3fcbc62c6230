#!/bin/sh
# Prints a folder with the files of some Debian packages, unpacked and not installed:
#
#   debian-files.sh NAME SUITE[+security] ARCHITECTURE PACKAGE...
#
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/weir/debian, by its name, what is asked for and what this script says.
set -eu
name=$1
suite=$2
architecture=$3
shift 3
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/debian
recipe=$({ echo "$suite $architecture $*" && cat "$0"; } | cksum | cut -d ' ' -f 1)
target=$cache/$name-$recipe
mkdir -p "$cache"
exec 9>"$cache/.$name.lock"
flock 9
if [ -d "$target" ]; then
  echo "$target"
  exit 0
fi

work=$cache/.$name.work
. "$(dirname "$(readlink -f "$0")")/debian.sh"
mkdir -p "$work/debs" "$work/files"
debian_source deb "$suite"
say "downloading from Debian $suite ($architecture): $*"
debian_get update
cd "$work/debs"
debian_get download "$@"
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
mv "$work/files" "$target"
echo "$target"
