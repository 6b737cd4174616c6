//! The machine: preflight, cleanup plan, cgroup, sandbox, measured process.
//!
//! A measured run is one [`Session`](session::Session): a lock on the host, a fresh cgroup, a private view of the
//! machine, and one unprivileged process tree in it. The driver stays outside and root; the tree inside has no
//! capability, no network and no sight of where evidence is kept.
//!
//! What is portable here: the environment rules, the users, the parsing of mount tables. The rest stands behind
//! the `capture` feature on Linux.

pub mod cleanup;
pub mod environment;
pub mod hostfile;
pub mod mounts;
pub mod rights;
pub mod variables;

#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod builds;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod calls;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod cgroup;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod doctor;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod folder;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod install;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod interrupt;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod launch;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod launcher;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod output;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod owner;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod program;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod session;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod starter;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod state;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod stop;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod units;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod user;

/// Prefix of everything that this tool creates on a host: cgroups, folders, network namespaces.
pub const PREFIX: &str = "assay-gates";

/// Folders at the top of the host's files that a gate sees: programs, libraries and their settings, read-only.
pub const PROGRAM_FOLDERS: [&str; 11] =
    ["/bin", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/usr"];

/// Where the fixture appears to the measured program, read-only.
pub const FIXTURE: &str = "/run/assay-gates/fixture";
/// The measured program's work folder and HOME.
pub const WORK: &str = "/run/assay-gates/work";
/// Our own binary, as the measured program sees it.
pub const BINARY: &str = "/run/assay-gates/bin/assay-gates";
/// Seconds that the agent's SDK is to give a tool server, for the measured program.
pub const SERVER_TIMEOUT_VARIABLE: &str = "ASSAY_GATES_SERVER_TIMEOUT_SECONDS";
/// Logs, as the measured program sees them.
pub const LOGS: &str = "/dev/shm/assay-gates";
