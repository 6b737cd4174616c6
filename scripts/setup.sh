#!/bin/sh
# Installs what is missing on Debian or Ubuntu, and nothing when all is there: then it asks no network.
#   setup.sh build   what building and measuring need
#   setup.sh test    what the tests need on top
#   setup.sh lint    what the linters need on top
#   setup.sh kernels what measuring on other kernels needs on top
#   setup.sh hosts   what booting whole systems needs on top
set -eu
cd "$(dirname "$0")/.."
# Where rustup puts its programs, and where links to a distribution's versioned ones are put; make does the same.
PATH="$PWD/target/tools/rust:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:$PATH"
export LC_ALL=C PATH

have() { command -v "$1" >/dev/null 2>&1; }

# What is wrong, and a line to paste.
fail() {
	printf 'setup: %s\n' "$1" >&2
	[ -z "${2:-}" ] || printf '  hint: %s\n' "$2" >&2
	exit 1
}

# Whether version $1 is $2 or newer.
at_least() { [ -n "$1" ] && [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif have sudo; then sudo "$@"
	else fail "'$*' needs root, and there is no sudo" "su -c 'apt-get install -y sudo && adduser $(id -un) sudo', and log in anew"
	fi
}

# Once in each invocation, before the first question to apt or the first installation.
apt_update() {
	[ -z "${apt_is_fresh:-}" ] || return 0
	as_root apt-get update -qq || fail "apt can't fetch its lists of packages, so nothing can be installed" \
		"look at /etc/apt/sources.list and at the network: getent hosts deb.debian.org"
	apt_is_fresh=yes
}

# The version that apt would install of a package, without epoch and revision; nothing when there is none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9][0-9.]*\).*/\2/p'; }

# Installs the packages given, in one go, when there are any.
apt() {
	[ $# -gt 0 ] || return 0
	have apt-get || fail "missing: $*; this script installs on Debian and Ubuntu only" "install them by the system's own means"
	apt_update
	for package in "$@"; do
		[ -n "$(candidate "$package")" ] || fail "$package is missing, and the package sources of this system have none" \
			"cat /etc/apt/sources.list /etc/apt/sources.list.d/*: main is needed, on Ubuntu universe too (add-apt-repository universe)"
	done
	echo "setup: installing $*" >&2
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
		fail "apt could not install $*; its reason stands above" "dpkg --configure -a && apt-get install -f"
}

any_clang() {
	have "${CLANG:-clang}" && return 0
	for version in 22 21 20 19 18 17 16 15 14; do have "clang-$version" && return 0; done
	return 1
}

# A Python that gates can be locked for: the system's, or a second one where the system's is older.
missing_python() {
	for python in /usr/bin/python3 /usr/bin/python3.11; do
		"$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
	done
	[ -x /usr/bin/python3 ] && echo python3.11 || echo python3
}

missing_for_build() {
	any_clang || echo clang
	have llvm-strip || ls /usr/bin/llvm-strip-* >/dev/null 2>&1 || echo llvm
	[ -f /usr/include/bpf/bpf_helpers.h ] || echo libbpf-dev
	have cc || echo gcc
	[ -f /usr/include/stdio.h ] || echo libc6-dev
	have git || echo git
	[ -f /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	missing_python
	[ -e /usr/lib/python3/dist-packages/pip ] || /usr/bin/python3 -c 'import pip' 2>/dev/null || echo python3-pip
	have npm || echo npm
}

missing_for_test() {
	/usr/bin/python3 -I -c 'import ensurepip' 2>/dev/null || echo python3-venv
	have strace || echo strace
	have ip || echo iproute2
	have visudo || echo sudo
	have systemd-sysusers || echo systemd
	have zip || echo zip
	have unzip || echo unzip
	have curl || echo curl
	have chromium || have chromium-browser || have google-chrome || echo chromium
	have chattr || echo e2fsprogs
}

# The architecture of the kernels that are asked for, by the names of packages and of machines.
kernels_architecture() {
	case ${KERNELS_ARCH:-$(uname -m)} in amd64 | x86_64) echo x86_64 ;; *) echo aarch64 ;; esac
}

missing_for_kernels() {
	have strip || echo binutils
	[ "${KERNELS:-}" != native ] || return 0
	case $(kernels_architecture) in
	x86_64) have qemu-system-x86_64 || echo qemu-system-x86 ;;
	aarch64) have qemu-system-aarch64 || echo qemu-system-arm ;;
	esac
	# Another architecture's programs are linked by its own compiler.
	case $(uname -m)-$(kernels_architecture) in
	x86_64-aarch64)
		have aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu
		[ -f /usr/aarch64-linux-gnu/lib/libc.a ] || echo libc6-dev-arm64-cross
		;;
	aarch64-x86_64)
		have x86_64-linux-gnu-gcc || echo gcc-x86-64-linux-gnu
		[ -f /usr/x86_64-linux-gnu/lib/libc.a ] || echo libc6-dev-amd64-cross
		;;
	esac
	# The initramfs takes busybox along, so it must need no libraries.
	have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || echo busybox-static
	have cpio || echo cpio
	[ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

missing_for_hosts() {
	have qemu-system-x86_64 || echo qemu-system-x86
	have debootstrap || echo debootstrap
	have mke2fs || echo e2fsprogs
	have strip || echo binutils
	[ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
}

# The oldest Rust that builds this.
wanted_rust() { sed -n 's/^rust-version = "\(.*\)".*/\1/p' Cargo.toml; }

# The older one of the versions of cargo and rustc; nothing when one of them is not there.
present_rust() {
	have cargo && have rustc || return 0
	cargo=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
	rustc=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
	[ -n "$cargo" ] && [ -n "$rustc" ] || return 0
	printf '%s\n' "$cargo" "$rustc" | sort -V | head -n 1
}

# The suffix of a pair of the distribution's packages that is new enough: rustc, or rustc-1.95 (Ubuntu), or rustc-web (Debian).
rust_package() {
	versioned=$(apt-cache search --names-only '^rustc-1\.[0-9]+$' | cut -d ' ' -f 1 | sed 's/^rustc//' | sort -V -r)
	for suffix in "" $versioned -web; do
		at_least "$(candidate "rustc$suffix")" "$1" && [ -n "$(candidate "cargo$suffix")" ] && echo "package$suffix" && return 0
	done
	return 0
}

# rustup's own installer, by its digest.
rustup_init() {
	case "$(uname -m)" in
	x86_64) digest=20a06e644b0d9bd2fbdbfd52d42540bdde820ea7df86e92e533c073da0cdd43c ;;
	aarch64) digest=e3853c5a252fca15252d07cb23a1bdd9377a8c6f3efa01531109281ae47f841c ;;
	*) fail "no Rust $1 or newer for $(uname -m)" "install one from https://www.rust-lang.org/tools/install" ;;
	esac
	have curl || apt curl
	mkdir -p target/tools
	curl --proto '=https' --tlsv1.2 -sSfo target/tools/rustup-init \
		"https://static.rust-lang.org/rustup/archive/1.28.2/$(uname -m)-unknown-linux-gnu/rustup-init" &&
		echo "$digest  target/tools/rustup-init" | sha256sum -c --quiet || return 1
	chmod +x target/tools/rustup-init
	target/tools/rustup-init -q -y --no-modify-path --profile minimal --default-toolchain "$1"
}

# A Rust that is new enough: the one that is there, the distribution's, or rustup's for this folder alone.
rust() {
	wanted=$(wanted_rust)
	present=$(present_rust)
	at_least "$present" "$wanted" && return 0
	why="Rust $wanted or newer builds this, and ${present:-none} is here"
	suffix=
	if ! have rustup && have apt-get; then
		echo "setup: $why" >&2
		apt_update
		suffix=$(rust_package "$wanted")
	fi
	if [ -n "$suffix" ]; then
		suffix=${suffix#package}
		apt "rustc$suffix" "cargo$suffix"
		# Versioned packages bring versioned programs.
		for program in cargo rustc rustdoc; do
			[ -x "/usr/bin/$program$suffix" ] || continue
			mkdir -p target/tools/rust
			ln -sf "/usr/bin/$program$suffix" "target/tools/rust/$program"
		done
	elif have rustup || { have apt-get && [ -n "$(candidate rustup)" ] && apt rustup; }; then
		echo "setup: rustup installs Rust $wanted.0 for this folder" >&2
		rustup toolchain install -q --profile minimal "$wanted.0" >/dev/null && rustup override set "$wanted.0" >/dev/null ||
			fail "$why; rustup could not install $wanted.0, for the reason above" \
				"curl -sSI https://static.rust-lang.org/dist/channel-rust-$wanted.0.toml.sha256"
	else
		rustup_init "$wanted.0" >/dev/null || fail "$why; this system has no package of one, and static.rust-lang.org gave none" \
			"put a cargo and rustc of $wanted or newer on PATH: https://www.rust-lang.org/tools/install"
	fi
	hash -r
	present=$(present_rust)
	at_least "$present" "$wanted" || fail "Rust $wanted or newer builds this; after installing, $(command -v cargo || echo cargo) is still ${present:-not there}" \
		"command -v -a cargo rustc; take the older one from PATH"
}

# The standard library for the kernels' architecture, where that is not this machine's.
rust_for_kernels() {
	target=$(kernels_architecture)-unknown-linux-gnu
	[ -d "$(rustc --print target-libdir --target "$target")" ] && return 0
	if have rustup && rustup target add "$target" >/dev/null; then return 0; fi
	fail "this toolchain has no standard library for $target" "rustup target add $target, with a toolchain of rustup's"
}

# What clippy and rustfmt need, from where the toolchain came from.
rust_linters() {
	cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 && return 0
	if have rustup && rustup component add clippy rustfmt; then return 0; fi
	for suffix in "" -web; do
		dpkg -s "rustc$suffix" >/dev/null 2>&1 || continue
		apt_update
		apt "rustfmt$suffix" "rust-clippy$suffix"
		return 0
	done
	fail "cargo clippy and cargo fmt are missing, and this toolchain is neither rustup's nor the distribution's" "install clippy and rustfmt of $(rustc --version)"
}

# A virtual environment below target/, made once for each lock: everything by digest, nothing resolved.
venv() {
	lock=scripts/locked/$1.txt
	stamp=target/tools/$1/.$(cksum <"$lock" | tr ' ' -)
	[ -f "$stamp" ] && return 0
	rm -rf "target/tools/$1"
	mkdir -p target/tools
	echo "setup: installing $lock into target/tools/$1" >&2
	/usr/bin/python3 -m venv "target/tools/$1"
	"target/tools/$1/bin/python" -m pip install -q --disable-pip-version-check --no-input --no-deps --require-hashes \
		--only-binary :all: -r "$lock" ||
		fail "pip could not install what $lock names, for the reason above" "target/tools/$1/bin/python -m pip config list"
	touch "$stamp"
}

# cargo-deny of one version, its source by digest; the lock inside it names the digest of everything else.
cargo_deny() {
	version=0.20.2
	digest=e528dfcbe739af7ce37a77d3d6df1b29dd6887b1c701d888820c0f16b864f737
	[ "$(cargo-deny --version 2>/dev/null)" = "cargo-deny $version" ] && return 0
	echo "setup: installing cargo-deny $version" >&2
	# Fetches the source and builds nothing; in a folder of no package, since it would update a lockfile.
	(cd / && cargo info -q "cargo-deny@$version" >/dev/null)
	for crate in "${CARGO_HOME:-$HOME/.cargo}"/registry/cache/*/"cargo-deny-$version.crate"; do
		echo "$digest  $crate" | sha256sum -c --quiet || fail "$crate is not the source that is locked" "rm '$crate'"
	done
	cargo install -q --locked "cargo-deny@$version"
}

# node_modules of a folder with a lockfile, when the lockfile is newer than what is installed.
npm_ci() {
	[ -f "$1/node_modules/.package-lock.json" ] && ! [ "$1/package-lock.json" -nt "$1/node_modules/.package-lock.json" ] && return 0
	echo "setup: npm ci in $1" >&2
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefix "$1" >/dev/null ||
		fail "npm could not install what $1/package-lock.json names, for the reason above" "npm config get registry && npm ping"
}

case "${1:-build}" in
build)
	# shellcheck disable=SC2046
	apt $(missing_for_build)
	rust
	;;
test)
	# shellcheck disable=SC2046
	apt $(missing_for_test)
	venv act
	venv zizmor
	for lockfile in tests/*/*/package-lock.json gates/*/package-lock.json; do
		npm_ci "$(dirname "$lockfile")"
	done
	;;
kernels)
	# shellcheck disable=SC2046
	apt $(missing_for_kernels)
	rust_for_kernels
	;;
hosts)
	# shellcheck disable=SC2046
	apt $(missing_for_hosts)
	;;
lint)
	rust_linters
	cargo_deny
	;;
*)
	echo "setup.sh build|test|lint|kernels|hosts" >&2
	exit 2
	;;
esac
