#!/usr/bin/env bash
# Installs the Debian packages a make target needs and that are missing, and
# says which and why. On other systems it says what to install by hand.
set -euo pipefail

want() { # want COMMAND-OR-PATH PACKAGE REASON
	command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2|$3")
}

missing=()
case "${1:-}" in
demo) ;;
race)
	want gcc gcc "the race detector needs cgo"
	want nft nftables "looks at, and flushes, the rules that network-bridge makes"
	want ip iproute2 "makes other hosts for the tests of network-bridge"
	want curl curl "a real client of published ports"
	want sysctl procps "reads the kernel parameters of interfaces"
	want mkfs.ext4 e2fsprogs "a small filesystem with quotas"
	want mkfs.btrfs btrfs-progs "a filesystem on which copies share their data"
	want mkfs.xfs xfsprogs "another one, with quotas"
	;;
test)
	want criu criu "checkpoints containers; tests are skipped where it does not work on the kernel"
	want docker docker-cli "the unmodified docker client drives davit in the end-to-end tests"
	want busybox busybox-static "a real static userland for test images"
	want docker-registry docker-registry "a real registry to pull from"
	want mmdebstrap mmdebstrap "makes the Debian test image"
	want /usr/lib/python3/dist-packages/docker python3-docker "the Docker SDK for Python against davit's socket"
	want /usr/lib/python3/dist-packages/grpc python3-grpcio "runs the example drivers in Python"
	want protoc protobuf-compiler "makes Python of the protos"
	want /usr/include/google/protobuf/struct.proto libprotobuf-dev "what the protos include"
	want openssl openssl "makes the certificates of drivers in Python"
	want dockerd docker.io "runs containers with davit-oci in the place of runc"
	want buildah buildah "builds with davit-oci in the place of runc"
	want podman podman "runs containers with davit-oci in the place of runc"
	want skopeo skopeo "copies images that davit saved, and writes some for davit to load"
	want umoci umoci "changes an image's OCI layout for davit to load"
	want xz xz-utils "loads archives that are compressed with it"
	want bzip2 bzip2 "makes archives that are compressed with it"
	want zstd zstd "makes archives that are compressed with it"
	want ps procps "docker top asks for ps's columns"
	want dbus-daemon dbus-daemon "the bus of a stand-in for systemd"
	want strace strace "shows what davit-oci does not do"
	want mkfs.ext4 e2fsprogs "a small filesystem for the disk-full tests"
	want mkfs.btrfs btrfs-progs "a filesystem on which copies share their data"
	want mkfs.xfs xfsprogs "a filesystem with quotas"
	want nft nftables "looks at, and flushes, the rules that network-bridge makes"
	want ip iproute2 "makes other hosts for the tests of network-bridge"
	want curl curl "a real client of published ports"
	want dig bind9-dnsutils "asks containers' name servers"
	want nsenter util-linux "runs dig in the network of a container"
	;;
vm)
	want make make "installs davit into the guest with systemd"
	want qemu-system-x86_64 qemu-system-x86 "runs the tests on a kernel with cgroup v2"
	want docker docker-cli "the unmodified docker client drives davit in the guest"
	want busybox busybox-static "the guest's userland"
	want cpio cpio "packs the guest's initramfs"
	want /usr/sbin/depmod kmod "indexes the guest kernel's modules"
	want mmdebstrap mmdebstrap "makes the guest's root filesystem"
	want /usr/sbin/mke2fs e2fsprogs "makes the guest's disk"
	;;
*)
	echo "usage: $0 demo|race|test|vm" >&2
	exit 2
	;;
esac
[ ${#missing[@]} -eq 0 ] && exit 0

echo "missing on this machine:"
for m in "${missing[@]}"; do printf '  %-18s %s\n' "${m%%|*}" "${m#*|}"; done
if ! command -v apt-get >/dev/null 2>&1; then
	echo "this is not a Debian system: install the equivalents of these packages and run the command again" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "run as root, or: sudo apt-get install ${missing[*]%%|*}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The daemons that some packages bring must not start on the user's machine.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	made_policy=1
fi
trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
for m in "${missing[@]}"; do
	package=${m%%|*}
	# Debian 12 has the docker client inside docker.io, later ones in docker-cli.
	if [ "$package" = docker-cli ] && ! apt-cache show docker-cli >/dev/null 2>&1; then package=docker.io; fi
	echo "installing $package"
	apt-get install -y -qq --no-install-recommends "$package" >/dev/null
done
