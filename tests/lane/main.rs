//! The lane contract of this repository, and `assay-gates lane` on real git histories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

#[path = "../support/answers.rs"]
mod answers;
mod contract;
#[path = "../pack/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of packs")]
mod fixture;
mod history;
mod proving;
#[path = "../evidence/fixtures.rs"]
#[expect(dead_code, reason = "shared with the tests of evidence")]
mod run;
