//! The kernel: version, types, lockdown, the embedded programs, cgroup v2.

use super::{Check, Context};
use crate::host::cgroup::Parent;
use std::path::Path;

/// The oldest kernel of which a complete recording can be claimed.
const FLOOR: (u32, u32) = (6, 1);

pub(super) fn root(_: &Context<'_>) -> Check {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Check::pass("uid 0");
    }
    Check::fail(format!("expected uid 0, found {uid}"), "sudo assay-gates doctor")
}

pub(super) fn release(_: &Context<'_>) -> Check {
    // Not from /proc, of which a unit with ProcSubset=pid shows only processes.
    let release = nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
    let release = release.as_str();
    match version(release) {
        Some(found) if found >= FLOOR => Check::pass(release),
        Some(_) => Check::fail(
            format!("expected Linux {}.{} or newer, found {release}", FLOOR.0, FLOOR.1),
            "apt-get install -y linux-image-amd64, then restart",
        ),
        None => Check::fail(format!("cannot read the version in {release:?}"), "uname -r"),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(super) fn btf(_: &Context<'_>) -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    match std::fs::metadata(path) {
        Ok(found) => Check::pass(format!("{path}, {} bytes", found.len())),
        Err(error) => Check::fail(
            format!("{path}: {error}; the kernel programs are fitted to this kernel by it"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's and Ubuntu's are",
        ),
    }
}

pub(super) fn lockdown(_: &Context<'_>) -> Check {
    let Ok(text) = std::fs::read_to_string("/sys/kernel/security/lockdown") else {
        return Check::pass("not in this kernel");
    };
    match text.split('[').nth(1).and_then(|rest| rest.split(']').next()) {
        Some("confidentiality") => Check::fail(
            "confidentiality mode: kernel programs can't read kernel memory",
            "start the kernel with lockdown=integrity",
        ),
        Some(mode) => Check::pass(mode),
        None => Check::pass("off"),
    }
}

pub(super) fn object(_: &Context<'_>) -> Check {
    match crate::capture::embedded() {
        Some(object) => Check::pass(format!("{} ({} bytes)", object.sha256, object.bytes.len())),
        None => {
            Check::fail("this binary holds no kernel programs", "cargo build --release --features capture")
        }
    }
}

pub(super) fn cgroup(_: &Context<'_>) -> Check {
    let parent = match Parent::find() {
        Ok(parent) => parent,
        Err(error) => return Check::error(&error),
    };
    let mut found = format!("v2 at {}, sessions below {}", parent.mount.display(), parent.folder.display());
    for passed in &parent.passed_over {
        found.push_str("; passed over ");
        found.push_str(passed);
    }
    // The top has no cgroup.kill, every cgroup below it does since Linux 5.14.
    let has_kill = |folder: &Path| folder.join("cgroup.kill").exists();
    if parent.folder != parent.mount && !has_kill(&parent.folder) {
        return Check::fail(
            format!("{found}; no cgroup.kill"),
            "a tree can't be ended for certain before Linux 5.14: use a newer kernel",
        );
    }
    Check::pass(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_any_release() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.1.0-23-amd64"), Some((6, 1)));
        assert_eq!(version("6.8-rc1"), Some((6, 8)));
        assert_eq!(version("unknown"), None);
    }
}
