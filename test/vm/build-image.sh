# Runs in a root that holds one Debian release's kernel, headers, netdevsim source and tools (see images.ts), and
# leaves in /image: vmlinuz, initrd.gz, modules/, release.
set -eu
release=$(basename /lib/modules/*)
image=/image
mkdir $image

# Debian does not build netdevsim. Built here by the compiler and kbuild of the kernel's own release, it loads
# without complaint. Without a vmlinux in the headers (6.1) kbuild leaves the module's BTF out and says so.
make -s -j"$(nproc)" -C "/usr/src/linux-headers-$release" M=/usr/src/drivers/net/netdevsim \
  CONFIG_NETDEVSIM=m modules
mkdir "/lib/modules/$release/extra"
strip --strip-debug -o "/lib/modules/$release/extra/netdevsim.ko" /usr/src/drivers/net/netdevsim/netdevsim.ko
rm -f "/lib/modules/$release/build" "/lib/modules/$release/source"
depmod "$release"

# The initramfs: busybox, and the modules that mount the root, in the order in which they load.
mkdir -p /initramfs/bin /initramfs/modules
cp "$(command -v busybox)" /initramfs/bin/busybox
number=10
for module in virtio_pci virtio_console 9pnet_virtio 9p virtio_rng overlay; do
  modprobe --set-version "$release" --show-depends "$module" | sed -n 's/^insmod //p' >/tmp/needed
  while read -r file; do
    name=$(basename "$file" | sed 's/\.ko.*//')
    ls /initramfs/modules | grep -q "^[0-9]*-$name\.ko$" && continue
    case $file in
      *.xz) xz -dc "$file" ;;
      *) cat "$file" ;;
    esac >"/initramfs/modules/$number-$name.ko"
    number=$((number + 1))
  done </tmp/needed
done
cat >/initramfs/init <<'INIT'
#!/bin/busybox sh
# Mounts the host's root, read-only, under a layer in memory that takes every write, and goes on there with the
# init.sh of the output share.
export PATH=/bin
busybox mkdir -p /proc /lower /layer /out /root
busybox mount -t proc proc /proc
busybox --install -s /bin
for module in /modules/*; do insmod "$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /root
mount -t 9p -o trans=virtio,version=9p2000.L,ro out /out
cp /out/init.sh /root/init.sh
umount /out /proc
exec switch_root /root /bin/sh /init.sh
INIT
chmod 755 /initramfs/init
(cd /initramfs && find . | cpio --quiet -o -H newc | gzip -1) >$image/initrd.gz

cp "/boot/vmlinuz-$release" $image/vmlinuz
mv "/lib/modules/$release" $image/modules
echo "$release" >$image/release
