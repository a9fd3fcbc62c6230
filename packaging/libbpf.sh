#!/bin/sh
# Builds libbpf and libelf, from Debian's source packages, as archives that can become part of a shared object
# (Debian's own are not position-independent), and prints the folder that holds them:
#
#   include/          headers of libbpf, and the kernel's uapi headers that go with it
#   lib/              libbpf.a libelf.a libeu.a
#   licences/         of the two, by their SPDX names
#
#   libbpf.sh                    for this machine
#   libbpf.sh TRIPLET SYSROOT    for others: TRIPLET-gcc compiles it against the C library in SYSROOT
#
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/weir/libbpf, by the machine and by what this script says.
set -eu
name=libbpf
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir/libbpf
triplet=${1-}
architecture=$(dpkg --print-architecture)
target=$cache/${triplet:-host}-$(cksum <"$0" | cut -d ' ' -f 1)
compiler=gcc
configure=
if [ -n "$triplet" ]; then
  compiler="$triplet-gcc --sysroot=$2 -isystem $2/usr/include/$triplet -isystem $2/usr/include"
  compiler="$compiler -L$2/usr/lib/$triplet -L$2/lib/$triplet"
  configure=--host=$triplet
fi
mkdir -p "$cache"
exec 9>"$cache/.${triplet:-host}.lock"
flock 9
if [ -d "$target" ]; then
  echo "$target"
  exit 0
fi

work=$cache/.${triplet:-host}.work
. "$(dirname "$(readlink -f "$0")")/debian.sh"
mkdir "$work/source"
debian_source deb-src trixie
debian_source deb-src forky
say "downloading the sources from Debian"
cd "$work/source"
debian_get update
debian_get source --download-only libbpf/forky elfutils/trixie
for archive in *.orig.tar.*; do run tar -xf "$archive"; done

say "building"
# Small: they work when the agent starts, and most of their functions are left out by the linker.
flags='-Os -fPIC -fvisibility=hidden -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables'
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
# libbpf is taken under one of its two; what elfutils' LGPL-3.0 adds to, the GPL-3.0, is a text of its own.
cp ../LICENSE.BSD-2-Clause "$work/made/licences/libbpf-BSD-2-Clause"
cp "$elf/COPYING-LGPLV3" "$work/made/licences/LGPL-3.0"
cp "$elf/COPYING" "$work/made/licences/GPL-3.0"
cp "$elf/COPYING-GPLV2" "$work/made/licences/GPL-2.0"
mv "$work/made" "$target"
echo "$target"
