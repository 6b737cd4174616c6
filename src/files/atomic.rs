//! Writes that are either whole or not there, to a path of whoever calls.

use super::RootPath;
use crate::error::Result;
use crate::host::rights::Rights;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Appends `bytes` whole or not at all: what a full disk cut off is taken back, so that a later line begins a line.
///
/// # Errors
/// What writing fails with.
pub fn append_whole(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(bytes).inspect_err(|_| {
        let _best_effort = file.set_len(before);
    })
}

/// Replaces `path` by `bytes` through a temporary file beside it, synced before the rename.
///
/// # Errors
/// `Io`, naming the path, when the folder can't be created, written or renamed in.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    RootPath::of(path, Rights::own())?.write(bytes)
}

/// Writes `value` as our own JSON files are written: indented by two, sorted keys, newline at the end.
///
/// # Errors
/// As [`write_atomic`]; `Internal` when the value can't be serialised.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_atomic(path, super::pretty_sorted(value)?.as_bytes())
}
