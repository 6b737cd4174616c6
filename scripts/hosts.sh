#!/bin/bash
# What only a whole system shows: boots real Debian systems with systemd under qemu (KVM where it works, else emulated by one thread) and
# does there what a runner's host does. One line a system and job; one that hangs, panics or says nothing is a failure.
#
#   scripts/hosts.sh [SUITE…]       bookworm (6.1) and trixie (6.12) unless named
#   JOBS="units stop cut gates"     these jobs alone
#
#   units   every property of src/host/units.yaml in a unit: refused with 40, its name and the lines that mend it, then mended
#   stop    a runner's unit is stopped in the middle of a run, with KillMode=process and control-group
#   cut     the plug is pulled in the middle of a run; what the recovery at boot says, and going on
#   gates   kernel-only, kernel-policy and the gates of the SDK, with --slow
#
# Needs root, debootstrap, qemu-system-x86, e2fsprogs; about 3 GB below target/hosts, of which the images are kept for the next time
# (HOSTS_FRESH=1 makes them anew, HOSTS_KEEP=no removes them at the end).
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "hosts: expected to run as root: sudo make hosts" >&2; exit 2; }
[ $# -gt 0 ] || set -- bookworm trixie
jobs=${JOBS:-units stop cut gates}
cache=$PWD/target/hosts
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
slow=${SLOW:-}
accelerator=(-accel tcg,thread=single)
if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then
	accelerator=(-accel kvm) slow=${slow:-2}
fi
slow=${slow:-20}
mkdir -p "$cache"
scratch=$(mktemp -d "$cache/scratch.XXXXXX")
qemu=
clear() {
	[ -z "$qemu" ] || kill -9 "$qemu" 2>/dev/null || :
	umount "$scratch/root/proc" 2>/dev/null || :
	rm -rf --one-file-system "$scratch"
	[ "${HOSTS_KEEP:-yes}" = yes ] || rm -rf "$cache"
}
trap clear EXIT

# The system: what debootstrap installs, a kernel, and one service that does the job of the second disk and says how it ended.
system() {
	local suite=$1 root=$scratch/root
	[ -s "$cache/$suite.img" ] && [ -z "${HOSTS_FRESH:-}" ] && return 0
	local packages=systemd-sysv,udev,dbus,sudo,python3-minimal,iproute2,kmod,initramfs-tools,linux-image-amd64
	local script=/usr/share/debootstrap/scripts/$suite
	[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
	mkdir "$root"
	debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" "$script" >"$cache/$suite.debootstrap.log" 2>&1 || {
		tail -n 20 "$cache/$suite.debootstrap.log" >&2
		return 1
	}
	printf '%s\n' virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
	sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
	mount -t proc proc "$root/proc"
	chroot "$root" update-initramfs -u -k all >>"$cache/$suite.debootstrap.log" 2>&1
	umount "$root/proc"
	echo "host-$suite" >"$root/etc/hostname"
	printf '/dev/vda / ext4 defaults,noatime 0 1\n/dev/vdb /opt/assay ext4 ro,noatime 0 0\n' >"$root/etc/fstab"
	mkdir -p "$root/opt/assay"
	cat >"$root/etc/systemd/system/hosts-job.service" <<-'UNIT'
		[Unit]
		Description=The job of the second disk
		After=assay-gates-recovery.service systemd-user-sessions.service
		RequiresMountsFor=/opt/assay
		[Service]
		Type=oneshot
		ExecStart=/bin/bash /opt/assay/hosts/job
		StandardOutput=tty
		StandardError=tty
		TTYPath=/dev/ttyS0
		TimeoutStartSec=infinity
		[Install]
		WantedBy=multi-user.target
	UNIT
	chroot "$root" systemctl -q enable hosts-job.service
	chroot "$root" systemctl -q set-default multi-user.target
	chroot "$root" systemctl -q mask systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \
		serial-getty@ttyS0.service getty@tty1.service
	cp "$root"/boot/vmlinuz-* "$cache/$suite.vmlinuz"
	cp "$root"/boot/initrd.img-* "$cache/$suite.initrd"
	ls "$root/lib/modules" >"$cache/$suite.release"
	rm -rf "$root"/boot/* "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/{doc,man,locale}
	mkdir -p "$root"/var/cache/apt/archives/partial
	mke2fs -q -F -t ext4 -d "$root" "$cache/$suite.img.new" 2g >/dev/null
	mv "$cache/$suite.img.new" "$cache/$suite.img"
	rm -rf --one-file-system "$root"
}

# The tool, its gates with what they need of Node, and the jobs.
product() {
	local root=$scratch/product
	[ -n "${HOSTS_BINARY:-}" ] || cargo build --locked --quiet
	mkdir -p "$root/gates"
	strip -o "$root/assay-gates" "${HOSTS_BINARY:-target/debug/assay-gates}"
	cp -r gates/kernel-only gates/lanes.yaml "$root/gates/"
	if [[ " $jobs " == *" gates "* ]]; then
		cp -r gates/kernel-policy gates/openai-agents-kernel-policy gates/hidden_write "$root/gates/"
	fi
	cp -r scripts/hosts "$root/hosts"
	cp src/host/units.yaml "$root/hosts/"
	chown -R 0:0 "$root"
	mke2fs -q -F -t ext4 -d "$root" "$scratch/product.img" 1g >/dev/null
	rm -rf "$root"
}

# boot SUITE JOB LOG DISK: until the guest goes down, or a line CUT asks for the plug, or the time is over.
boot() {
	local suite=$1 job=$2 log=$3 disk=$4 until=$((SECONDS + ${HOSTS_LIMIT:-5400}))
	: >"$log"
	qemu-system-x86_64 "${accelerator[@]}" -cpu max -smp 2 -m 2G -nodefaults -nographic -no-reboot \
		-kernel "$cache/$suite.vmlinuz" -initrd "$cache/$suite.initrd" \
		-append "root=/dev/vda rw console=ttyS0 panic=-1 net.ifnames=0 systemd.show_status=0 quiet hosts.job=$job hosts.slow=$slow" \
		-drive "file=$disk,if=virtio,format=raw,cache=writethrough" -drive "file=$scratch/product.img,if=virtio,format=raw,readonly=on" \
		-serial "file:$log" -device virtio-rng-pci </dev/null >"$log.qemu" 2>&1 &
	qemu=$!
	while kill -0 "$qemu" 2>/dev/null; do
		if [ "$job" = cut ] && grep -q '^CUT' "$log"; then kill -9 "$qemu"; break; fi
		if [ $SECONDS -ge $until ]; then kill -9 "$qemu"; echo "hosts: nothing more came for ${HOSTS_LIMIT:-5400} s" >>"$log"; break; fi
		sleep 0.2
	done
	wait "$qemu" 2>/dev/null || :
	qemu=
}

# one SUITE JOB: prints its one line.
one() {
	local suite=$1 job=$2 begin=$SECONDS disk=$scratch/disk.img log=$cache/$1.$2.log said
	cp --sparse=always "$cache/$suite.img" "$disk"
	boot "$suite" "$job" "$log" "$disk"
	if [ "$job" = cut ]; then
		grep -q '^CUT' "$log" || echo "hosts: it never asked for the plug to be pulled" >>"$log"
		cp "$log" "$log.first"
		boot "$suite" "after-cut" "$log" "$disk"
	fi
	rm -f "$disk"
	said=$(tr -d '\r' <"$log" | sed -n 's/^RESULT //p')
	if [ "$(printf '%s' "$said" | grep -c '^')" = 1 ]; then
		printf '%-9s %-6s %s (%s, %d s)\n' "$suite" "$job" "$said" "$(cat "$cache/$suite.release")" $((SECONDS - begin))
		[ "${said%%:*}" = passed ] && return 0
	elif grep -q 'Kernel panic' "$log"; then
		echo "$suite $job failed: the kernel panicked; see $log"
	else
		echo "$suite $job failed: it went down, or was ended, without one result; see $log"
	fi
	tail -n 60 "$log" | sed "s/^/    $suite $job: /" >&2
	return 1
}

product
count=0 failed=0
for suite in "$@"; do
	system "$suite"
	for job in $jobs; do
		count=$((count + 1))
		one "$suite" "$job" || failed=$((failed + 1))
	done
done
echo "hosts: $((count - failed)) of $count passed"
[ $failed = 0 ]
