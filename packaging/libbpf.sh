#!/bin/sh
# Builds libbpf and libelf, from Debian's source packages, as archives that can become part of a shared object
# (Debian's own are not position-independent), and prints the folder that holds them:
#
#   include/          headers of libbpf, and the kernel's uapi headers that go with it
#   lib/              libbpf.a libelf.a libeu.a
#   licences/         of the two
#
#   libbpf.sh                    for this machine
#   libbpf.sh TRIPLET SYSROOT    for others: TRIPLET-gcc compiles it against the C library in SYSROOT
#
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/weir/libbpf-* and built again only when this script changes.
set -eu
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir
triplet=${1-}
target=$cache/libbpf-${triplet:-host}
recipe=$(cksum <"$0")
compiler=gcc
configure=
if [ -n "$triplet" ]; then
  compiler="$triplet-gcc --sysroot=$2 -isystem $2/usr/include/$triplet -isystem $2/usr/include"
  compiler="$compiler -L$2/usr/lib/$triplet -L$2/lib/$triplet"
  configure=--host=$triplet
fi
if [ "$(cat "$target/recipe" 2>/dev/null)" = "$recipe" ]; then
  echo "$target"
  exit 0
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/.libbpf-XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$work/log
say() { printf 'libbpf: %s\n' "$*" >&2; }
# run COMMAND...: its output is shown only when it fails.
run() {
  "$@" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    say "failed: $*"
    exit 1
  }
}

# The sources come from the Debian mirror that this machine already uses, whatever release it runs itself.
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -n 1)
if [ -z "$mirror" ]; then
  say "no Debian archive among this machine's apt sources (or 'apt-get update' was never run)"
  exit 1
fi
apt=$work/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$work/source"
for release in trixie forky; do
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main"
done >"$apt/sources.list"
get() {
  run apt-get -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o APT::Update::Error-Mode=any "$@"
}
say "downloading the sources from Debian"
cd "$work/source"
get update
get source --download-only libbpf/forky elfutils/trixie
for archive in *.orig.tar.*; do run tar -xf "$archive"; done

say "building"
flags='-O2 -fPIC -fvisibility=hidden'
cd elfutils-*/
run ./configure $configure CC="$compiler" --disable-debuginfod --disable-libdebuginfod --disable-nls --disable-demangler \
  --without-zstd --without-bzlib --without-lzma CFLAGS="$flags"
run make -j"$(nproc)" -C lib
run make -j"$(nproc)" -C libelf libelf_pic.a
elf=$PWD
cd ../libbpf-*/src
run make -j"$(nproc)" CC="$compiler" AR=${triplet:+$triplet-}ar BUILD_STATIC_ONLY=1 NO_PKG_CONFIG=1 CFLAGS="$flags -I$elf/libelf" OBJDIR="$work/objects" \
  DESTDIR="$work/made" PREFIX= LIBDIR=/lib install install_uapi_headers
cp "$elf/libelf/libelf_pic.a" "$work/made/lib/libelf.a"
cp "$elf/lib/libeu.a" "$work/made/lib/"
mkdir "$work/made/licences"
for file in LICENSE.BSD-2-Clause LICENSE.LGPL-2.1; do cp "../$file" "$work/made/licences/libbpf-$file"; done
for file in COPYING-LGPLV3 COPYING-GPLV2; do cp "$elf/$file" "$work/made/licences/elfutils-$file"; done
echo "$recipe" >"$work/made/recipe"
rm -rf "$target"
mv "$work/made" "$target"
echo "$target"
