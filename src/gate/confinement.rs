//! What a gate's program may use, and how much of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the fence around system calls refuses unless a gate asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Allowance {
    /// `io_uring`: its requests bypass system calls; those that can't be decoded make the run incomplete.
    IoUring,
    /// Namespaces and mounts of the program's own, as container tools and browsers make them.
    Namespaces,
}

/// How much a run may use. What exceeds one of these ends the whole tree, and the run is incomplete with that reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of the tree, what it writes to its folders included, in MiB.
    pub memory_mib: u64,
    /// Weight of the tree when processors are scarce, against 100 of everything else; it ends nothing.
    pub cpu_weight: u64,
    /// Processes and threads at once.
    pub processes: u64,
    /// Records of effects, in MiB.
    pub effects_mib: u64,
    /// Bytes in the work folder, in MiB; temporary folders have bounds of their own.
    pub written_mib: u64,
    /// Files and folders in the work folder.
    pub written_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mib: 2048,
            cpu_weight: 100,
            processes: 512,
            effects_mib: 256,
            written_mib: 1024,
            written_files: 262_144,
        }
    }
}

impl Limits {
    /// Whether these are the limits of a gate that asks for none.
    #[must_use]
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// The first one that can't be, with what it may be.
    #[must_use]
    pub fn broken(&self) -> Option<(&'static str, &'static str)> {
        let ranges = [
            ("limits.memory_mib", self.memory_mib, 16, 1 << 20, "expected 16 to 1048576"),
            ("limits.cpu_weight", self.cpu_weight, 1, 10_000, "expected 1 to 10000"),
            ("limits.processes", self.processes, 1, 32_768, "expected 1 to 32768"),
            ("limits.effects_mib", self.effects_mib, 1, 8192, "expected 1 to 8192"),
            ("limits.written_mib", self.written_mib, 1, 1 << 20, "expected 1 to 1048576"),
            ("limits.written_files", self.written_files, 64, 1 << 30, "expected 64 to 1073741824"),
        ];
        let broken = ranges.into_iter().find(|(_, value, least, most, _)| !(least..=most).contains(&value));
        broken.map(|(name, .., expected)| (name, expected))
    }
}
