#!/bin/sh
# Installs and builds what a step needs, and nothing it already has:
#
#   setup.sh modules | native | check | demo | test | vm | package | packages
#
# Packages come from npm and from Debian; what is downloaded or built for the VM tests is kept in
# ${XDG_CACHE_HOME:-~/.cache}/weir, so that the second time is quick.
set -eu
cd "$(dirname "$0")/.."
step=${1:-native}

say() { printf 'setup: %s\n' "$*" >&2; }

# debian PACKAGE...: installs those that are missing.
debian() {
  missing=
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    say "these Debian packages are needed, and only root can install them:$missing"
    exit 1
  fi
  say "installing from Debian:$missing"
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "installation failed; the whole output is in $log"
    exit 1
  fi
  rm -f "$log"
}

modules() {
  if ! cmp -s package-lock.json node_modules/.weir-lock; then
    say "installing npm packages (Node.js 24 is one of them)"
    npm ci --no-audit --no-fund --loglevel=error >&2
    # Commands that npm does not link by itself: biome's binary comes without its wrapper, and npx looks here.
    for biome in node_modules/@biomejs/cli-linux-*/biome; do ln -sf "../../$biome" node_modules/.bin/biome; done
    ln -sf ../../packaging/weir node_modules/.bin/weir
    cp package-lock.json node_modules/.weir-lock
  fi
}

native() {
  modules
  debian gcc make libc6-dev zlib1g-dev bzip2 clang-14
  libbpf=$(sh packaging/libbpf.sh)
  node_modules/.bin/node native/build.ts "$libbpf"
}

# The machines of the kernel tests: kernels, their modules, and netdevsim, which Debian does not build.
vm() {
  debian qemu-system-x86 kmod iproute2 iputils-ping ethtool nftables xz-utils debian-archive-keyring
  native
  node_modules/.bin/node test/vm/prepare.ts
}

# The builder of each kind of package.
package_here() {
  debian llvm-14 rpm xz-utils debian-archive-keyring
  native
}

# For another machine, too: its compiler.
package() {
  other=aarch64
  [ "$(dpkg --print-architecture)" = amd64 ] || other=x86-64
  debian "gcc-$other-linux-gnu"
  package_here
}

case $step in
  modules | check) modules ;;
  native) native ;;
  demo)
    debian iproute2 iputils-ping
    native
    ;;
  test)
    debian iproute2 iputils-ping ethtool tcpdump tshark pmacct nfdump-sflow dnsmasq-base mandoc zsh tmux
    # A browser for the page.
    debian chromium
    # Container runtimes, a hypervisor and a message bus, as peers.
    debian podman crun runc busybox-static containerd containernetworking-plugins libvirt-daemon dbus-daemon
    # Clean systems, to install packages into, and the routers of a lab.
    debian debootstrap frr
    package_here
    vm
    ;;
  vm) vm ;;
  package) package ;;
  # What the tests of packages need beside: clean systems, other machines' programs, routers.
  packages)
    debian debootstrap qemu-user-static runc frr iproute2 iputils-ping tcpdump
    package
    vm
    ;;
  *)
    say "unknown step '$step'"
    exit 2
    ;;
esac
