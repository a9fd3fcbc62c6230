# First process of a guest whose root is a Debian with systemd: leaves a service that runs the job, as init.sh does, when
# the system is up, and goes on as systemd.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
cat >/weir-vm.sh <<'SCRIPT'
share() {
  mkdir -p "$2"
  mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"
}
out=/run/weir-vm
share out $out cache=none
. $out/environment
share repository "$WEIR_REPOSITORY" cache=loose,ro
cd "$WEIR_REPOSITORY"
export NODE_COMPILE_CACHE=/tmp/compile-cache
cp -r build/compile-cache /tmp/compile-cache 2>/dev/null
sh $out/job >"$(echo /dev/vport*p1)" 2>&1 </dev/null
echo $? >$out/status
journalctl --no-pager --output short-monotonic >$out/journal 2>&1
sync
systemctl poweroff --force --force
SCRIPT
cat >/etc/systemd/system/weir-vm.service <<'UNIT'
[Unit]
Description=the job of the test
Wants=systemd-journald.socket systemd-journald.service
After=network.target systemd-journald.service
[Service]
Type=exec
ExecStart=/bin/sh /weir-vm.sh
Environment=HOME=/root LANG=C.UTF-8
UNIT
mkdir -p "/lib/modules/$(uname -r)"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro modules "/lib/modules/$(uname -r)"
# Of what a system is started with, its manager and the journal are enough: on an emulated processor the rest takes half a
# minute, and the tests are not about it.
rm -rf /usr/lib/systemd/system/*.target.wants /etc/systemd/system/*.target.wants
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -s ../weir-vm.service /etc/systemd/system/multi-user.target.wants/weir-vm.service
echo weir-vm >/etc/hostname
umount /proc
exec /lib/systemd/systemd
