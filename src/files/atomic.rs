//! Writes that are either whole or not there.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Replaces `path` by `bytes` through a temporary file beside it, synced before the rename.
///
/// # Errors
/// `Io`, naming the path, when the folder can't be created, written or renamed in.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, true)
}

/// As [`write_atomic`], without waiting for the disk: for what can be made again from a file that is there.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_copy(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes, false)
}

fn write(path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let at = |doing: &'static str| move |error| Error::io(doing, path, error);
    std::fs::create_dir_all(folder).map_err(at("cannot create the folder"))?;
    let mut file = tempfile::Builder::new()
        .prefix(".assay-gates-")
        .tempfile_in(folder)
        .map_err(at("cannot create a temporary file beside it"))?;
    file.write_all(bytes).map_err(at("cannot write"))?;
    if sync {
        file.as_file().sync_all().map_err(at("cannot sync"))?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))
            .map_err(at("cannot set the mode"))?;
    }
    file.persist(path).map_err(|error| Error::io("cannot rename into place", path, error.error))?;
    Ok(())
}

/// Writes `value` as our own JSON files are written: indented by two, sorted keys, newline at the end.
///
/// # Errors
/// As [`write_atomic`]; `Internal` when the value can't be serialised.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_atomic(path, super::pretty_sorted(value)?.as_bytes())
}
