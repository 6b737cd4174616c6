#!/bin/bash
# Measures on other kernels: boots each under qemu (KVM where it works, else emulated) with a small initramfs, and runs there what a
# measurement must get right. One line a kernel; one that hangs, panics or says nothing is a failure.
#
#   scripts/kernels.sh fast [KERNEL…]   loads, canary, exact effects, the ring, kernel-only three times, lost records
#   scripts/kernels.sh [KERNEL…]        the same, and every test of the capture, kernel-policy, and the cost of an open and close
#   scripts/kernels.sh native           the latter on the kernel that runs here; as root, by sudo where this is another user
#
# A KERNEL is 6.1, 6.12 or newest (Debian bookworm, trixie, sid) or 6.8 (Ubuntu noble). Images are downloaded with apt into
# target/kernels and kept; ASSAY_GATES_KERNELS_FRESH=1 asks the registries again. Needs no root; nothing of this machine is changed.
# KERNELS_ARCH=arm64 (or amd64) takes the kernels of that architecture, always emulated where it is not this machine's.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
part=full
if [ "${1:-}" = fast ]; then part=fast; shift; fi
[ $# -gt 0 ] || set -- 6.1 6.12 newest
case $(uname -m) in x86_64) host=amd64 ;; aarch64) host=arm64 ;; *) host=$(uname -m) ;; esac
architecture=${KERNELS_ARCH:-$host}
case $architecture in
amd64) machine=x86_64 console=ttyS0 hardware=(-cpu max) ;;
arm64) machine=aarch64 console=ttyAMA0 hardware=(-machine virt -cpu cortex-a72) ;;
*) echo "kernels: expected amd64 or arm64, found $architecture" >&2; exit 2 ;;
esac
qemu=qemu-system-$machine
# What is made here by another architecture's tools: where, with which prefix of their names, and where their libraries stand.
cache=$here/target/kernels built=target/debug tools='' cross=()
if [ "$architecture" != "$host" ]; then
	cache=$cache/$architecture built=target/$machine-unknown-linux-gnu/debug tools=$machine-linux-gnu-
	cross=(--target "$machine-unknown-linux-gnu")
	export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
fi

# Suite, mirror and keyring of a kernel, and the package whose dependency is its image.
source_of() {
	local debian=${DEBIAN_MIRROR:-http://deb.debian.org/debian} ubuntu=http://archive.ubuntu.com/ubuntu
	[ "$architecture" = amd64 ] || ubuntu=http://ports.ubuntu.com/ubuntu-ports
	ubuntu=${UBUNTU_MIRROR:-$ubuntu}
	local keys=/usr/share/keyrings
	case $1 in
	6.1) echo "bookworm $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	6.12) echo "trixie $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	newest) echo "sid $debian $keys/debian-archive-keyring.gpg linux-image-$architecture" ;;
	6.8) echo "noble $ubuntu $keys/ubuntu-archive-keyring.gpg linux-image-generic" ;;
	*) echo "kernels: expected 6.1, 6.8, 6.12 or newest, found $1" >&2; return 1 ;;
	esac
}

# Asks one suite's registry alone, in a folder, and nothing of this machine's: sets `options` of apt.
suite() {
	local folder=$1 suite=$2 mirror=$3 keyring=$4
	mkdir -p "$folder"/{lists/partial,archives/partial}
	echo "deb [signed-by=$keyring] $mirror $suite main" >"$folder/sources.list"
	: >"$folder/status"
	options=(-qq -o APT::Sandbox::User= -o APT::Architecture="$architecture" -o Acquire::Languages=none
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false
		-o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o Dir::State="$folder" -o Dir::State::lists="$folder/lists" -o Dir::State::status="$folder/status" -o Dir::Cache="$folder")
	apt-get "${options[@]}" update
}

# Downloads a package and takes the one file out of it that matches.
take() {
	local folder=$1 package=$2 wanted=$3 to=$4
	(cd "$folder" && apt-get "${options[@]}" download "$package" >/dev/null)
	dpkg-deb --fsys-tarfile "$folder/$package"_*.deb | tar -C "$folder" -xf - --wildcards --transform 's|.*/|found-|' "$wanted"
	mv "$folder"/found-* "$to"
}

# Downloads the image of a kernel to $cache/NAME/vmlinuz, unless it is there; a busybox of another architecture to $cache/busybox.
image() {
	local name=$1 folder=$cache/$1 suite mirror keyring meta options package
	[ -s "$folder/vmlinuz" ] && { [ -z "$tools" ] || [ -s "$cache/busybox" ]; } && [ -z "${ASSAY_GATES_KERNELS_FRESH:-}" ] && return 0
	read -r suite mirror keyring meta < <(source_of "$name")
	rm -rf "$folder"
	if ! [ -s "$keyring" ]; then
		# Ubuntu's keys, which Debian hands on and signs.
		suite "$folder" trixie "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" /usr/share/keyrings/debian-archive-keyring.gpg
		keyring=$folder/keyring.gpg
		take "$folder" ubuntu-keyring '*/ubuntu-archive-keyring.gpg' "$keyring"
		rm -rf "$folder"/{lists,archives,*.bin}
	fi
	suite "$folder" "$suite" "$mirror" "$keyring"
	# The image stands in linux-image-VERSION, or in linux-binary-VERSION where that one is split.
	package=$(apt-cache "${options[@]}" depends "$meta" | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
	[ -n "$package" ] || { echo "kernels: $meta of $suite depends on no image" >&2; return 1; }
	local binary=${package/linux-image/linux-binary}
	apt-cache "${options[@]}" show "$binary" >/dev/null 2>&1 && package=$binary
	take "$folder" "$package" '*/vmlinuz*' "$folder/vmlinuz"
	[ -z "$tools" ] || [ -s "$cache/busybox" ] || take "$folder" busybox-static '*/bin/busybox' "$cache/busybox"
	echo "$package" >"$folder/package"
	rm -rf "$folder"/{lists,archives,*.deb,*.bin,*.gpg,sources.list,status}
}

# Copies the libraries that programs need into the initramfs, each to where it stands here; those of a cross compiler to /lib.
libraries() {
	local file name
	if [ -z "$tools" ]; then
		ldd "$@" | awk '/=> \// { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' | sort -u | while read -r file; do
			mkdir -p "$root/$(dirname "$file")"
			cp -L "$file" "$root/$file"
		done
		return
	fi
	mkdir -p "$root/lib"
	for file in "$@"; do
		for name in $("${tools}readelf" -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
			[ -e "$root/lib/$name" ] && continue
			cp -L "/usr/$machine-linux-gnu/lib/$name" "$root/lib/$name"
			libraries "$root/lib/$name"
		done
	done
}

# The executable of the capture tests, built with the flags given.
capture_tests() {
	local test
	test=$(cargo test --locked "$@" --test capture --no-run --message-format=json |
		grep -oE '"executable":"[^"]*/capture-[0-9a-f]+"' | tail -n 1 | cut -d'"' -f4)
	[ -n "$test" ] || { echo "kernels: the capture tests do not build" >&2; return 1; }
	echo "$test"
}

# What is measured with, in $root/opt/assay: the tool, its capture tests with their programs, and the gates. Sets `programs`.
folder() {
	local test maker
	# With the tests the tool is built too; alone it would be built with other features of its dependencies, all of it twice.
	test=$(capture_tests "${cross[@]}")
	maker=$test
	[ -z "$tools" ] || maker=$(capture_tests)
	rm -rf "$root"
	mkdir -p "$root/opt/assay/programs"
	"${tools}strip" -o "$root/opt/assay/assay-gates" "$built/assay-gates"
	"${tools}strip" -o "$root/opt/assay/capture-tests" "$test"
	ASSAY_GATES_TEST_PROGRAMS=$root/opt/assay/programs ASSAY_GATES_TEST_CC=${tools:+${tools}gcc} \
		"$maker" --exact --quiet programs_compile_ahead >/dev/null
	mkdir -p "$root/opt/assay/gates"
	cp -r gates/kernel-only gates/lanes.yaml "$root/opt/assay/gates/"
	cp scripts/kernels/measure "$root/opt/assay/"
	programs=("$built/assay-gates")
	# With the Node that the gate is locked to, which is that of this machine's architecture.
	if [ "$part" = full ] && [ -z "$tools" ]; then
		"$built/assay-gates" dependencies --gate kernel-policy --install >/dev/null
		cp -r gates/kernel-policy "$root/opt/assay/gates/"
		programs+=("$root"/opt/assay/gates/kernel-policy/node_modules/node-linux-*/bin/node)
	fi
}

# The initramfs: that folder, busybox, and libraries.
initramfs() {
	local root=$cache/root programs
	folder
	mkdir -p "$root"/{bin,dev,etc,lib64,proc,root,run,sbin,sys,tmp,usr/bin,var/lib}
	if [ -n "$tools" ]; then cp "$cache/busybox" "$root/bin/busybox"; else cp "$(command -v busybox)" "$root/bin/busybox"; fi
	chmod 755 "$root/bin/busybox"
	libraries "${programs[@]}"
	cp scripts/kernels/init "$root/init"
	(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) | gzip -1 >"$cache/$part.initramfs"
}

# Boots a kernel; prints its one line. What it said is in $cache/NAME/serial.log.
boot() {
	local name=$1 log=$cache/$1/serial.log begin=$SECONDS limit said
	limit=$([ "$part" = fast ] && echo 900 || echo 5400)
	timeout -k 5 "$limit" $qemu "${hardware[@]}" "${accelerator[@]}" -smp 2 -m 3G -nodefaults -nographic -no-reboot \
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

# Measures on the kernel that runs here, where the measured user may read.
native() {
	sudo=()
	[ "$(id -u)" = 0 ] || sudo=(sudo)
	root=$(mktemp -d /var/tmp/kernels.XXXXXX)
	trap '"${sudo[@]}" rm -rf "$root"' EXIT
	folder
	(cd "$root/opt/assay" && "${sudo[@]}" ./measure "$part")
}

if [ "$*" = native ]; then
	native
	exit
fi
for name in "$@"; do source_of "$name" >/dev/null; done
# One thread for both processors of a guest: where several translate, one may keep an instruction that another just replaced, and a
# kernel that patches itself (each attached tracepoint does) dies of its own breakpoint. Guests run side by side instead.
accelerator=(-accel tcg,thread=single)
if [ -w /dev/kvm ] && [ "$architecture" = "$host" ]; then
	case $host in
	amd64) if grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then accelerator=(-accel kvm); fi ;;
	arm64) accelerator=(-accel kvm) hardware=(-machine virt -cpu host) ;;
	esac
fi
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
