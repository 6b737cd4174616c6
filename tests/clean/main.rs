//! `assay-gates clean` on the real kernel, against trees that a hostile program could leave behind.

#![cfg(all(feature = "capture", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../support/mod.rs"]
mod support;

mod foreign;
mod host;
mod kernel;
mod law;
mod phases;
mod trees;
