//! The workflows themselves: what their linter and their parser say of them, and what happens when they run.

#![cfg(all(feature = "capture", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

#[path = "../support/mod.rs"]
mod support;

mod act;
mod checks;
mod setup;
mod stage;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A tool that `make setup` puts below `target/tools`, wherever this build's target folder is.
fn tool(name: &str) -> PathBuf {
    let path = here().join("target/tools").join(name).join("bin").join(name);
    assert!(path.exists(), "{} is not there: scripts/setup.sh test", path.display());
    path
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
