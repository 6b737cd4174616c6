//! The machine: preflight, cleanup plan, cgroup, sandbox, measured process.

pub mod cleanup;
pub mod hostfile;
