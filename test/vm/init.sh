# First process of a guest, run by /bin/sh in the host's root: makes the usual mounts, runs the job that run.ts left
# in the output share, and powers off. The job's output goes to a port of its own, because the console belongs to
# the kernel; the job's exit status is a file, because a panic must not look like an end.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=${TERM:-linux}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for directory in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $directory; done
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup

share() {
  mkdir -p "$2"
  mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"
}
out=/run/weir-vm
share out $out cache=none
share modules "/lib/modules/$(uname -r)" cache=loose,ro
. $out/environment
# The repository is in the root already, unless it lies under /tmp or /run, which are the guest's own.
share repository "$WEIR_REPOSITORY" cache=loose,ro
cd "$WEIR_REPOSITORY"
# Stripping types and compiling costs an emulated processor seconds at each start of the agent: what the tests of this
# machine have left is taken over, and added to.
export NODE_COMPILE_CACHE=/tmp/compile-cache
cp -r build/compile-cache /tmp/compile-cache 2>/dev/null
hostname weir-vm
ip link set lo up

case $WEIR_WHAT in
  shell) setsid bash -i </dev/ttyS0 >/dev/ttyS0 2>&1 ;;
  tests)
    sh $out/job >"$(echo /dev/vport*p1)" 2>&1 </dev/null
    echo $? >$out/status
    sync
    ;;
esac
echo o >/proc/sysrq-trigger
# A first process that ends is a panic; the power goes off a moment later.
while :; do :; done
