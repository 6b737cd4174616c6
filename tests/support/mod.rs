//! Shared by the integration tests: the one door through which tests that need root and eBPF go.

#![allow(dead_code, reason = "each test binary uses a part")]

/// True when this process may measure; otherwise says why the test is skipped, or panics when
/// `ASSAY_GATES_NO_SKIP=1` forbids that.
#[must_use]
pub fn need_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    skip("needs root")
}

pub fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(), "ASSAY_GATES_NO_SKIP is set, but: {reason}");
    eprintln!("SKIPPED: {reason}");
    false
}
