//! The archive: eight members of one run in a tar.gz whose bytes depend on nothing but its content.

mod container;
mod examine;
mod read;
mod write;

pub use container::MAX_SOURCE;
pub use examine::{Finding, examine_members, safe_run_id};
pub use read::{Archive, examine, read_bounded, read_bounded_from};
pub use write::{Members, write};

/// Paths of the members, in their order in the archive.
pub mod member {
    /// Digests of the other seven; first in the archive.
    pub const MANIFEST: &str = "manifest.json";
    /// The capability surface.
    pub const SURFACE: &str = "capability-surface.json";
    /// The join of the layers.
    pub const CORRELATION: &str = "correlation-report.json";
    /// Start and end of the run.
    pub const EVENTS: &str = "events.ndjson";
    /// Kernel events.
    pub const KERNEL: &str = "layers/kernel.ndjson";
    /// Decisions.
    pub const POLICY: &str = "layers/policy.ndjson";
    /// SDK events.
    pub const SDK: &str = "layers/sdk.ndjson";
    /// What may be believed.
    pub const HEALTH: &str = "observation-health.json";

    /// All eight, in order.
    pub const ALL: [&str; 8] = [MANIFEST, SURFACE, CORRELATION, EVENTS, KERNEL, POLICY, SDK, HEALTH];
}
