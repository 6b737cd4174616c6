//! The machine: preflight, cleanup plan, cgroup, sandbox, measured process.
