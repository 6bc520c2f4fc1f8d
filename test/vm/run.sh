#!/usr/bin/env bash
# Runs the end-to-end tests, and the unit tests that touch the kernel, on a
# Debian kernel with pure cgroup v2 in a QEMU guest (software emulation; no
# network, no KVM needed). Everything it makes is below build/vm and is reused.
#
#   test/vm/run.sh [-run PATTERN]      arguments go to the end-to-end test binary
#   test/vm/run.sh -unit PACKAGE... [-run PATTERN]
#                                      only (these) unit tests of these packages
#   test/vm/run.sh -systemd [ARG...]   the tests of test/systemd, with systemd as the
#                                      init; arguments go to that test binary
#   test/vm/run.sh -systemd-v1 [ARG...]  the same with cgroup v1
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$0")/../.."
work=build/vm
mkdir -p $work
case "${1:-}" in
-systemd | -systemd-v1)
	flavour=${1#-} image=$work/systemd.tar init=/sbin/init
	shift
	;;
*) flavour=plain image=$work/guest.tar init=/davit/init ;;
esac

# 1. The kernel and its modules, from Debian's cloud kernel package.
if [ ! -e $work/kernel/boot ]; then
	package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$package" ] || { echo "no linux-image-cloud-amd64 in apt's lists: run apt-get update" >&2; exit 1; }
	rm -rf $work/deb && mkdir -p $work/deb
	(cd $work/deb && apt-get download -qq "$package" 2>/dev/null)
	rm -rf $work/kernel.tmp && dpkg -x $work/deb/*.deb $work/kernel.tmp
	release=$(basename "$(ls -d $work/kernel.tmp/lib/modules/*)")
	depmod -b $work/kernel.tmp "$release"
	mv $work/kernel.tmp $work/kernel
fi
release=$(basename "$(ls -d $work/kernel/lib/modules/*)")

# 2. The guest's userland: a small Debian with the clients and the registry that
# the tests use. It is made anew when another package is wanted.
client=docker-cli
apt-cache show docker-cli >/dev/null 2>&1 || client=docker.io
packages=docker-registry,python3-docker,curl,bind9-dnsutils,criu,btrfs-progs,xfsprogs,nfs-kernel-server,crun,runc
[ $flavour = plain ] || packages=systemd-sysv,dbus,podman,apparmor
packages=$client,busybox-static,procps,e2fsprogs,iproute2,nftables,kmod,mount,$packages
if [ ! -e $image ] || [ "$(cat $image.packages 2>/dev/null)" != "$packages" ]; then
	. /etc/os-release
	mmdebstrap --variant=minbase --mode=root --quiet --format=tar --include="$packages" "$VERSION_CODENAME" $image.tmp
	mv $image.tmp $image
	echo "$packages" >$image.packages
fi

# 3. This tree's binaries and tests.
tree=$work/tree
rm -rf $tree && mkdir -p $tree/davit/unit $tree/usr/lib
cp -a bin $tree/davit/
cp -a $work/kernel/lib/modules $tree/usr/lib/
if [ $flavour = plain ]; then
	CGO_ENABLED=0 go test -c -o $tree/davit/e2e.test ./test/e2e
	cp -a test $tree/davit/
fi
packages="plugins/runtime-native/cgroup plugins/runtime-native/native sdk/monitor/fork plugins/storage-overlay/overlay plugins/volume-local/local plugins/volume-local/fsmount sdk/treecopy plugins/network-bridge/bridge core/rootfs core/netns sdk/monitor/sandbox"
unit_pattern=.
if [ $flavour != plain ]; then
	packages=
	CGO_ENABLED=0 go test -c -o $tree/davit/systemd.test ./test/systemd
	# As it is installed, with the service.
	make --silent install DESTDIR="$PWD/$tree" >/dev/null
elif [ "${1:-}" = -unit ]; then
	shift
	packages="$*"
	case "$packages" in *" -run "*) unit_pattern=${packages#* -run } packages=${packages%% -run *} ;; esac
	set -- -unit
fi
for package in $packages; do
	(cd $package && CGO_ENABLED=0 go test -c -o "$OLDPWD/$tree/davit/unit/${package//\//-}.test" .)
	mkdir -p "$tree/davit/src/$package"
	if [ -d $package/testdata ]; then cp -a $package/testdata "$tree/davit/src/$package/"; fi
done
# The Debian image under test, as the tests make it for themselves elsewhere.
if [ ! -e build/debian.tar ]; then
	mmdebstrap --variant=minbase --mode=root --quiet --format=tar "$(. /etc/os-release && echo "$VERSION_CODENAME")" build/debian.tar.tmp
	mv build/debian.tar.tmp build/debian.tar
fi
cp build/debian.tar $tree/davit/debian.tar
# The client under test is this machine's, where there is one.
if command -v docker >/dev/null; then install -D "$(readlink -f "$(command -v docker)")" $tree/davit/client/docker; fi
printf '%q ' "$@" >$tree/davit/arguments
echo "$unit_pattern" >$tree/davit/unit-pattern
cat >$tree/davit/init <<'EOF'
#!/bin/sh
# First process of the guest: mounts, modules, tests, result on the console.
export PATH=/davit/client:/davit/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DAVIT_BIN=/davit/bin DAVIT_DEBIAN=/davit/debian.tar DAVIT_TEST_GUEST=1 DAVIT_TEST_PATIENCE=6
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts -o ptmxmode=666 pts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
# As systemd has it: the kernel gives the first process 4096.
ulimit -Hn 524288
ln -sf /proc/self/fd /dev/fd
for m in overlay bridge veth nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_redir nft_fib_inet nf_conntrack loop tun; do modprobe $m 2>/dev/null || echo "no module $m"; done
ip link set lo up
hostname davit-vm
echo "guest: $(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup)"
status=0
for t in /davit/unit/*.test; do
  name=$(basename "$t" .test)
  case "$(cat /davit/arguments)" in *-run*) break;; esac
  echo "== $name"
  (cd /davit/unit && timeout 1800 "$t" -test.timeout 29m -test.run "$(cat /davit/unit-pattern)") || status=1
done
case "$(cat /davit/arguments)" in
*-unit*) ;;
*)
echo "== end to end"
cd /davit/test/e2e && eval "timeout 5700 /davit/e2e.test -test.timeout 94m -test.v $(cat /davit/arguments | sed 's/-run/-test.run/')" || status=1
;;
esac
echo "VM RESULT $status"
sync
echo o >/proc/sysrq-trigger
sleep 10
EOF
chmod +x $tree/davit/init
if [ $flavour != plain ]; then
	units=$tree/etc/systemd/system
	mkdir -p $units/multi-user.target.wants
	cat >$units/davit-test.service <<'EOF'
[Unit]
Description=tests of davit
After=dbus.socket
Requires=dbus.socket
[Service]
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=HOME=/root DAVIT_SYSTEMD_GUEST=1 DAVIT_TEST_PATIENCE=6
Environment=PATH=/davit/client:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WorkingDirectory=/davit
ExecStart=/davit/systemd
EOF
	ln -s ../davit-test.service $units/multi-user.target.wants/
	# Nobody logs in, and nothing is done by the clock.
	for unit in serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer podman-auto-update.timer podman-auto-update.service podman-restart.service podman.service podman.socket e2scrub_reap.service docker.service docker.socket containerd.service; do
		ln -s /dev/null $units/$unit
	done
	cat >$tree/davit/systemd <<'EOF'
#!/bin/sh
for m in overlay bridge veth nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_redir nft_fib_inet nf_conntrack; do modprobe $m 2>/dev/null; done
echo "guest: $(uname -r), cgroup $(stat -fc %T /sys/fs/cgroup), $(systemctl --version | head -n 1)"
status=0
eval "timeout 1200 /davit/systemd.test -test.timeout 19m -test.v $(cat /davit/arguments | sed 's/-run/-test.run/')" || status=1
echo "VM RESULT $status"
sync
echo o >/proc/sysrq-trigger
EOF
	chmod +x $tree/davit/systemd
fi
size=$((2048 + $(du -sm $tree | cut -f1) + $(du -sm $image | cut -f1) * 2))
rm -rf $work/root && mkdir $work/root
tar -C $work/root -xf $image
cp -a $tree/. $work/root/
rm -f $work/disk.img
mke2fs -q -t ext4 -d $work/root $work/disk.img ${size}M
rm -rf $work/root

# 4. An initramfs that only loads the disk's driver and goes on to the disk.
rm -rf $work/initramfs && mkdir -p $work/initramfs/{bin,dev,proc,new}
cp /bin/busybox $work/initramfs/bin/ 2>/dev/null || cp /usr/bin/busybox $work/initramfs/bin/
kernel_modules=$work/kernel/lib/modules/$release/kernel
for m in drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio drivers/virtio/virtio_ring drivers/virtio/virtio_pci drivers/block/virtio_blk; do
	if [ -e "$kernel_modules/$m.ko" ]; then cp "$kernel_modules/$m.ko" $work/initramfs/; fi
done
cat >$work/initramfs/init <<'EOF'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  [ -e /$m.ko ] && /bin/busybox insmod /$m.ko
done
n=0
until /bin/busybox mount -t ext4 /dev/vda /new 2>/dev/null; do
  n=$((n+1)); [ $n -lt 100 ] || { echo "no disk"; /bin/busybox poweroff -f; }
  /bin/busybox usleep 50000
done
exec /bin/busybox switch_root /new INIT
EOF
sed -i "s|INIT|$init|" $work/initramfs/init
chmod +x $work/initramfs/init
(cd $work/initramfs && find . | cpio -o -H newc --quiet) >$work/initramfs.cpio

controllers=cgroup_no_v1=all
[ $flavour != systemd-v1 ] || controllers=systemd.unified_cgroup_hierarchy=0

# 5. Run, and judge by the line the guest prints at its end.
qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
	-bios qboot.rom -nic none -display none -no-reboot -serial stdio -monitor none \
	-kernel $work/kernel/boot/vmlinuz-"$release" -initrd $work/initramfs.cpio \
	-append "console=ttyS0 quiet panic=-1 random.trust_cpu=on $controllers mitigations=off" \
	-drive file=$work/disk.img,if=virtio,format=raw,cache=unsafe </dev/null | tee $work/console.log
grep -q '^VM RESULT 0' $work/console.log
