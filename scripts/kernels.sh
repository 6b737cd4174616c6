#!/bin/bash
# Measures on other kernels: boots each under qemu (KVM where it works, else emulated) with a small initramfs, and runs there what a
# measurement must get right. One line a kernel; one that hangs, panics or says nothing is a failure.
#
#   scripts/kernels.sh fast [KERNEL…]   loads, canary, exact effects, the ring, kernel-only three times, lost records
#   scripts/kernels.sh [KERNEL…]        the same, and every test of the capture, kernel-policy, and the cost of an open and close
#
# A KERNEL is 6.1, 6.12 or newest (Debian bookworm, trixie, sid) or 6.8 (Ubuntu noble). Images are downloaded with apt into
# target/kernels and kept; ASSAY_GATES_KERNELS_FRESH=1 asks the registries again. Needs no root; nothing of this machine is changed.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
cache=$here/target/kernels
part=full
if [ "${1:-}" = fast ]; then part=fast; shift; fi
[ $# -gt 0 ] || set -- 6.1 6.12 newest
case $(uname -m) in
x86_64) architecture=amd64 qemu=qemu-system-x86_64 console=ttyS0 machine=() ;;
aarch64) architecture=arm64 qemu=qemu-system-aarch64 console=ttyAMA0 machine=(-machine virt) ;;
*) echo "kernels: no kernels are known for $(uname -m)" >&2; exit 2 ;;
esac

# Suite, mirror and keyring of a kernel, and the package whose dependency is its image.
source_of() {
	local debian=${DEBIAN_MIRROR:-http://deb.debian.org/debian} ubuntu=${UBUNTU_MIRROR:-http://archive.ubuntu.com/ubuntu}
	local keys=/usr/share/keyrings
	case $1 in
	6.1) echo "bookworm $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	6.12) echo "trixie $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	newest) echo "sid $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	6.8) echo "noble $ubuntu $keys/ubuntu-archive-keyring.gpg linux-image-generic" ;;
	*) echo "kernels: expected 6.1, 6.8, 6.12 or newest, found $1" >&2; return 1 ;;
	esac
}

# Downloads the image of a kernel to $cache/NAME/vmlinuz, unless it is there.
image() {
	local name=$1 folder=$cache/$1 suite mirror keyring meta options package
	[ -s "$folder/vmlinuz" ] && [ -z "${ASSAY_GATES_KERNELS_FRESH:-}" ] && return 0
	read -r suite mirror keyring meta < <(source_of "$name")
	rm -rf "$folder"
	mkdir -p "$folder"/{lists/partial,archives/partial}
	echo "deb [signed-by=$keyring] $mirror $suite main" >"$folder/sources.list"
	: >"$folder/status"
	options=(-qq -o APT::Sandbox::User= -o APT::Architecture="$architecture" -o Acquire::Languages=none
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false
		-o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o Dir::State="$folder" -o Dir::State::lists="$folder/lists" -o Dir::State::status="$folder/status" -o Dir::Cache="$folder")
	apt-get "${options[@]}" update
	# The image stands in linux-image-VERSION, or in linux-binary-VERSION where that one is split.
	package=$(apt-cache "${options[@]}" depends "$meta" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
	[ -n "$package" ] || { echo "kernels: $meta of $suite depends on no image" >&2; return 1; }
	local binary=${package/linux-image/linux-binary}
	apt-cache "${options[@]}" show "$binary" >/dev/null 2>&1 && package=$binary
	(cd "$folder" && apt-get "${options[@]}" download "$package" >/dev/null)
	dpkg-deb --fsys-tarfile "$folder"/linux-*.deb | tar -C "$folder" -xf - --wildcards --transform 's|.*/|found-|' '*vmlinuz*'
	mv "$folder"/found-vmlinuz* "$folder/vmlinuz"
	echo "$package" >"$folder/package"
	rm -rf "$folder"/{lists,archives,*.deb,*.bin,sources.list,status}
}

# Programs and libraries that the guest needs, each where it stands here.
libraries() {
	ldd "$@" | awk '/=> \// { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' | sort -u
}

# The initramfs: busybox, the tool, its capture tests with their programs, and the gates.
initramfs() {
	local root=$cache/root test file
	cargo build --locked --quiet
	test=$(cargo test --locked --test capture --no-run --message-format=json |
		grep -oE '"executable":"[^"]*/capture-[0-9a-f]+"' | tail -n 1 | cut -d'"' -f4)
	[ -n "$test" ] || { echo "kernels: the capture tests do not build" >&2; return 1; }
	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,etc,lib64,proc,root,run,sbin,sys,tmp,usr/bin,var/lib,opt/assay/programs}
	cp "$(command -v busybox)" "$root/bin/busybox"
	strip -o "$root/opt/assay/assay-gates" target/debug/assay-gates
	strip -o "$root/opt/assay/capture-tests" "$test"
	ASSAY_GATES_TEST_PROGRAMS=$root/opt/assay/programs "$test" --exact --quiet programs_compile_ahead >/dev/null
	mkdir -p "$root/opt/assay/gates"
	cp -r gates/kernel-only gates/lanes.yaml "$root/opt/assay/gates/"
	local programs=(target/debug/assay-gates)
	if [ "$part" = full ] && command -v node >/dev/null; then
		cp -rL gates/kernel-policy "$root/opt/assay/gates/"
		cp "$(readlink -f "$(command -v node)")" "$root/usr/bin/node"
		programs+=("$root/usr/bin/node")
	fi
	libraries "${programs[@]}" | while read -r file; do
		mkdir -p "$root/$(dirname "$file")"
		cp -L "$file" "$root/$file"
	done
	cp scripts/kernels/init "$root/init"
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$cache/$part.initramfs"
}

# Boots a kernel; prints its one line. What it said is in $cache/NAME/serial.log.
boot() {
	local name=$1 log=$cache/$1/serial.log begin=$SECONDS limit said
	limit=$([ "$part" = fast ] && echo 900 || echo 5400)
	timeout -k 5 "$limit" $qemu "${machine[@]}" "${accelerator[@]}" -cpu max -smp 2 -m 3G -nodefaults -nographic -no-reboot \
		-kernel "$cache/$name/vmlinuz" -initrd "$cache/$part.initramfs" -append "console=$console panic=-1 quiet part=$part" \
		-serial "file:$log" -device virtio-rng-pci </dev/null >"$cache/$name/qemu.log" 2>&1 || :
	said=$(tr -d '\r' <"$log" | sed -n 's/^RESULT //p')
	if [ "$(printf '%s' "$said" | grep -c '^')" = 1 ]; then
		printf '%-7s %s, %d s\n' "$name" "$said" $((SECONDS - begin))
		[ "${said%%:*}" = passed ] && return 0
	elif grep -q 'Kernel panic' "$log"; then
		echo "$name  failed: the kernel panicked; see $log"
	elif [ $((SECONDS - begin)) -ge "$limit" ]; then
		echo "$name  failed: nothing said within $limit s; see $log"
	else
		echo "$name  failed: it went down without a result; see $log"
	fi
	tail -n 40 "$log" | sed "s/^/    $name: /" >&2
	return 1
}

for name in "$@"; do source_of "$name" >/dev/null; done
# One thread for both processors of a guest: where several translate, one may keep an instruction that another just replaced, and a
# kernel that patches itself (each attached tracepoint does) dies of its own breakpoint. Guests run side by side instead.
accelerator=(-accel tcg,thread=single)
if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then accelerator=(-accel kvm); fi
mkdir -p "$cache"
for name in "$@"; do image "$name"; done
initramfs
failed=0 running=0
for name in "$@"; do
	if [ $running -ge "$(nproc)" ]; then
		wait -n || failed=$((failed + 1))
		running=$((running - 1))
	fi
	boot "$name" &
	running=$((running + 1))
done
while [ $running -gt 0 ]; do
	wait -n || failed=$((failed + 1))
	running=$((running - 1))
done
echo "kernels: $(($# - failed)) of $# passed"
[ $failed = 0 ]
