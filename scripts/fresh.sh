#!/bin/bash
# Both commands of the README on fresh systems: debootstraps each Debian suite into a scratch folder, clones this
# checkout into it, runs `make run` and `make test` there as root and as a user with sudo, and prints how each went.
#   fresh.sh [SUITE…]          bookworm and trixie when none is named
#   FRESH_DIR=FOLDER           scratch, 8 GB for each system; /var/tmp/assay-gates-fresh when absent
#   FRESH_USERS="root sudo"    whom the commands run as
#   FRESH_COMMANDS="run test"  targets of make
#   FRESH_KEEP=1               leave the systems for a look
#   MIRROR=URL                 where Debian comes from; this host's own mirror when absent
# Needs root, debootstrap and a kernel that can be measured on: the systems share it. What the commands need of this
# host beyond its kernel is carried in: name service, CA certificates, apt's options.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
dir=${FRESH_DIR:-/var/tmp/assay-gates-fresh}
mirror=${MIRROR:-$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 | tr -d ' ' || :)}
mirror=${mirror:-http://deb.debian.org/debian}
[ $# -gt 0 ] || set -- bookworm trixie
[ "$(id -u)" = 0 ] || { echo "fresh: needs root: sudo make fresh" >&2; exit 40; }
command -v debootstrap >/dev/null || { echo "fresh: needs debootstrap: apt-get install -y debootstrap" >&2; exit 40; }
mkdir -p "$dir"
results=$dir/results.txt
: >"$results"

# What a Debian has when `git`, `make`, `sudo` and `ca-certificates` are there and nothing else.
base() {
	local suite=$1 root=$dir/$1
	[ -e "$root/.complete" ] && return
	rm -rf --one-file-system "$root"
	debootstrap --variant=minbase --include=git,make,sudo,ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
		{ tail -n 20 "$root.log" >&2; return 1; }
	printf 'deb %s main\n' "$mirror $suite" "$mirror $suite-updates" "${mirror%debian*}debian-security $suite-security" >"$root/etc/apt/sources.list"
	cp /etc/resolv.conf "$root/etc/resolv.conf"
	# No service starts in a folder.
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod +x "$root/usr/sbin/policy-rc.d"
	echo "127.0.0.1 localhost $(hostname)" >"$root/etc/hosts"
	grep -rhs '^Acquire::' /etc/apt/apt.conf.d >"$root/etc/apt/apt.conf.d/99host" || :
	cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || :
	chroot "$root" update-ca-certificates >/dev/null 2>&1
	chroot "$root" useradd -m -s /bin/bash newcomer
	echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/newcomer"
	touch "$root/.complete"
}

# Runs words inside a system, with the kernel's file systems of this host, as "root" or "sudo".
inside() {
	local root=$1 user=$2
	shift 2
	# shellcheck disable=SC2016
	unshare --mount --propagation private sh -c '
		root=$1 user=$2
		shift 2
		mount --bind "$root" "$root"
		for kernel in proc sys dev; do mount --rbind "/$kernel" "$root/$kernel"; done
		mount -t tmpfs -o mode=755 tmpfs "$root/run"
		[ "$user" = root ] || user=newcomer
		# The system itself, not a folder of this one: in a chroot the kernel would name every path from the root above it.
		cd "$root"
		mkdir -p .host
		pivot_root . .host
		exec chroot . /bin/sh -c "umount -l /.host; rmdir /.host; exec su - \"\$0\" -c \"\$1\"" "$user" "$*"
	' sh "$root" "$user" "$@" </dev/null
}

# Minutes and seconds.
clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# One command of a system: its lines, each with the second at which it came, go to a log.
command_in() {
	local suite=$1 user=$2 target=$3 root=$4 log=$dir/$1-$2-$3.log start=$SECONDS status=0 verdict
	inside "$root" "$user" "cd assay-gates && make $target" 2>&1 |
		while IFS= read -r line; do printf '%s\t%s\n' $((SECONDS - start)) "$line"; done >"$log" || status=$?
	# When the first gate had its verdict.
	verdict=$(awk -F '\t' '$2 ~ /^[a-z-]+: passed \(/ {print $1; exit}' "$log")
	[ "$status" = 0 ] || tail -n 30 "$log" | cut -f 2- >&2
	printf '%s\t%s\tmake %s\t%s\t%s\t%s\n' "$suite" "$user" "$target" "$([ $status = 0 ] && echo passed || echo "failed ($status)")" \
		"$(clock $((SECONDS - start)))" "${verdict:+$(clock "$verdict")}" | tee -a "$results"
	return "$status"
}

failed=0
for suite in "$@"; do
	start=$SECONDS
	base "$suite" || { printf '%s\t\tdebootstrap\tfailed\t%s\t\n' "$suite" "$(clock $((SECONDS - start)))" >>"$results"; failed=1; continue; }
	for user in ${FRESH_USERS:-root sudo}; do
		root=$dir/$suite-$user
		rm -rf --one-file-system "$root"
		cp -a "$dir/$suite" "$root"
		git -C "$checkout" bundle create -q "$root/srv/checkout" HEAD
		inside "$root" "$user" "git clone -q /srv/checkout assay-gates"
		for target in ${FRESH_COMMANDS:-run test}; do
			command_in "$suite" "$user" "$target" "$root" || failed=1
		done
		inside "$root" "$user" 'PATH=$HOME/.cargo/bin:$PATH; python3 --version; echo "Node $(node --version), npm $(npm --version)"; rustc --version; clang --version | head -n 1' \
			>"$dir/$suite-$user-versions.txt" 2>&1 || :
		[ -n "${FRESH_KEEP:-}" ] || rm -rf --one-file-system "$root"
	done
done

{ printf 'suite\tas\tcommand\tresult\ttime\tfirst verdict\n'; cat "$results"; } | column -t -s "$(printf '\t')"
for versions in "$dir"/*-root-versions.txt; do
	[ -e "$versions" ] && echo "$(basename "$versions" -root-versions.txt): $(paste -s -d , "$versions" | sed 's/,/, /g')"
done
exit "$failed"
