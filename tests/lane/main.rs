//! The lane contract of this repository, and `assay-gates lane` on real git histories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod contract;
mod history;
