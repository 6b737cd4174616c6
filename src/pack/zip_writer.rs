//! Writes a pack's folder as one zip, the same bytes each time: entries sorted, one fixed time, one mode.

use super::root::open_regular;
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Entries from this size on get 64-bit sizes.
const LARGE: u64 = u32::MAX as u64;

/// Writes `members` of `folder` (path and length) to `out`, through a file beside it that is renamed at the end.
///
/// # Errors
/// `Io`; `Internal` when the zip can't be written.
pub fn write(folder: &Path, members: &BTreeMap<String, u64>, out: &Path) -> Result<()> {
    let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(beside).map_err(|error| Error::io("cannot create the folder", beside, error))?;
    let temporary = tempfile::Builder::new()
        .prefix(".assay-gates-")
        .tempfile_in(beside)
        .map_err(|error| Error::io("cannot create a temporary file in", beside, error))?;
    let failed = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => Error::io("cannot write the zip", out, error),
        other => Error::new(Code::Internal, format!("cannot write the zip: {other}"))
            .at(out.display())
            .because(other),
    };
    let mut zip = ZipWriter::new(BufWriter::with_capacity(256 * 1024, temporary.as_file()));
    for (path, bytes) in members {
        // Archives are compressed already; deflating them again costs time and gains nothing.
        let method =
            if path.ends_with(".gz") { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level((method == CompressionMethod::Deflated).then_some(6))
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644)
            .large_file(*bytes >= LARGE);
        zip.start_file(path.as_str(), options).map_err(failed)?;
        let place = folder.join(path);
        let mut file = open_regular(&place)?;
        let copied = copy(&mut file, &mut zip).map_err(|error| Error::io("cannot pack", &place, error))?;
        if copied != *bytes {
            return Err(Error::new(
                Code::PackChanged,
                format!("expected {bytes} bytes as when the pack was built, found {copied}"),
            )
            .at(place.display()));
        }
    }
    let mut writer = zip.finish().map_err(failed)?;
    writer.flush().map_err(|error| Error::io("cannot write the zip", out, error))?;
    drop(writer);
    let io_failed = |error| Error::io("cannot write the zip", out, error);
    temporary.as_file().sync_all().map_err(io_failed)?;
    readable(temporary.as_file()).map_err(io_failed)?;
    temporary.persist(out).map_err(|error| io_failed(error.error))?;
    Ok(())
}

/// Temporary files are private; a pack is for whoever uploads it.
pub(super) fn readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _no_modes = file;
    Ok(())
}

fn copy(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..count])?;
        total += count as u64;
    }
}
