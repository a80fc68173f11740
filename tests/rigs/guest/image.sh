#!/usr/bin/env bash
# Makes what a guest machine boots from: an uncompressed kernel, a small first file system and a root image with
# systemd. Made once and kept: image.sh DIRECTORY. Needs root, and installs mmdebstrap, qemu and busybox where missing.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(dirname "$(readlink -f "$0")")
recipe=$(cat "$0" "$here"/files/* | sha256sum | cut -c1-16)
if [ "$(cat "$out/recipe" 2>/dev/null)" = "$recipe" ]; then exit 0; fi

need() { for tool; do command -v "$tool" >/dev/null || return 1; done; }
if ! need mmdebstrap qemu-system-x86_64 qemu-img mke2fs cpio lz4 || [ ! -x /bin/busybox ]; then
    apt-get update -q
    apt-get install -yq --no-install-recommends mmdebstrap qemu-system-x86 qemu-utils seabios busybox-static cpio lz4 e2fsprogs
fi

if [ ! -f "$out/root.tar" ]; then
    mmdebstrap --variant=minbase --format=tar \
        --include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,dmsetup,e2fsprogs,python3,linux-image-cloud-amd64,util-linux \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$out/root.tar.part"
    mv "$out/root.tar.part" "$out/root.tar"
fi

work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
tar -C "$work/root" -xf "$out/root.tar" --exclude='./dev/*'
root=$work/root
release=$(basename "$root"/lib/modules/*)

# QEMU boots an uncompressed kernel directly: a third of the time of one that unpacks itself.
python3 - "$root/boot/vmlinuz-$release" "$work/payload" <<'PY'
import sys
image = open(sys.argv[1], "rb").read()
at = image.find(b"\x02\x21\x4c\x18")
if at < 0:
    sys.exit("the kernel's payload is not lz4")
open(sys.argv[2], "wb").write(image[at:])
PY
lz4 -dcq "$work/payload" >"$work/vmlinux" 2>/dev/null || [ -s "$work/vmlinux" ]

# The first file system only finds the disk.
mkdir -p "$work/first"/{bin,dev,proc,sys,new,modules}
cp /bin/busybox "$work/first/bin/busybox"
order="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 mbcache jbd2 crc32c_generic ext4"
for name in $order; do
    found=$(find "$root/lib/modules/$release" -name "$name.ko" | head -n 1)
    if [ -n "$found" ]; then cp "$found" "$work/first/modules/"; fi
done
{
    printf '#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\n/bin/busybox mount -t proc proc /proc\n'
    for name in $order; do printf '[ ! -e /modules/%s.ko ] || /bin/busybox insmod /modules/%s.ko 2>/dev/null\n' "$name" "$name"; done
    printf 'n=0; while [ ! -e /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox usleep 50000; n=$((n+1)); done\n'
    printf '/bin/busybox mount -t ext4 /dev/vda /new || /bin/busybox sh\n/bin/busybox umount /proc\n'
    printf '/bin/busybox mount --move /dev /new/dev\nexec /bin/busybox switch_root /new /sbin/init\n'
} >"$work/first/init"
chmod 755 "$work/first/init"
(cd "$work/first" && find . | cpio -o -H newc --quiet) >"$work/first.cpio"

# The machine itself: the network by DHCP, the console quiet, the seed disk read at boot.
install -D -m 644 "$here/files/20-dhcp.network" "$root/etc/systemd/network/20-dhcp.network"
install -D -m 755 "$here/files/seed" "$root/usr/local/sbin/outlast-seed"
install -D -m 644 "$here/files/outlast-seed.service" "$root/etc/systemd/system/outlast-seed.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/var/lib/outlast"
for unit in outlast-seed systemd-networkd; do
    from=/lib/systemd/system/$unit.service
    [ ! -f "$root/etc/systemd/system/$unit.service" ] || from=/etc/systemd/system/$unit.service
    ln -sf "$from" "$root/etc/systemd/system/multi-user.target.wants/$unit.service"
done
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    systemd-resolved.service serial-getty@ttyS0.service getty@tty1.service systemd-timesyncd.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
printf '/dev/vda / ext4 defaults,noatime 0 1\n' >"$root/etc/fstab"
printf 'guest\n' >"$root/etc/hostname"
rm -f "$root/etc/machine-id" "$root"/boot/initrd* "$root"/boot/vmlinuz*
touch "$root/etc/machine-id"
truncate -s 1600M "$work/root.img"
mke2fs -q -t ext4 -F -L root -d "$root" "$work/root.img"

mv "$work/vmlinux" "$work/first.cpio" "$work/root.img" "$out/"
echo "$recipe" >"$out/recipe"
