//! Writes a pack's folder as one zip, the same bytes each time: entries sorted, one fixed time, one mode.

use crate::error::{Code, Error, Result};
use crate::files::{Draft, RootPath};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Entries from this size on get 64-bit sizes.
const LARGE: u64 = u32::MAX as u64;

/// Writes `members` of `folder` (path and length) to `out`, through a file beside it that is renamed at the end.
///
/// # Errors
/// `Io`; `Internal` when the zip can't be written.
pub fn write(folder: &RootPath, members: &BTreeMap<String, u64>, place: &RootPath) -> Result<()> {
    let out = &place.path();
    let failed = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => Error::io("cannot write the zip", out, error),
        other => Error::new(Code::Internal, format!("cannot write the zip: {other}"))
            .at(out.display())
            .because(other),
    };
    let inner = BufWriter::with_capacity(256 * 1024, place.begin()?);
    let out_file = Given { inner, failed: false, at: 0, end: 0 };
    let mut zip = ZipWriter::new(out_file);
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
        let mut file = place.expect_file()?;
        let place = place.path();
        let copied = copy(&mut file, &mut zip).map_err(|error| Error::io("cannot pack", &place, error))?;
        if copied != *bytes {
            return Err(Error::new(
                Code::PackChanged,
                format!("expected {bytes} bytes as when the pack was built, found {copied}"),
            )
            .at(place.display()));
        }
    }
    let writer = zip.finish().map_err(failed)?;
    let draft = writer.inner.into_inner();
    draft.map_err(|error| Error::io("cannot write the zip", out, error.into_error()))?.finish()
}

/// Fails once. A zip writer that is dropped after a failure tries to end its zip, and would complain of another failure on
/// standard error: it is given places that fit, and nothing of that is kept.
struct Given {
    inner: BufWriter<Draft>,
    failed: bool,
    at: u64,
    end: u64,
}

impl Given {
    fn once<T>(
        &mut self,
        after: T,
        act: impl FnOnce(&mut BufWriter<Draft>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.failed {
            return Ok(after);
        }
        act(&mut self.inner).inspect_err(|error| self.failed = error.kind() != io::ErrorKind::Interrupted)
    }
}

impl Write for Given {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.once(bytes.len(), |inner| inner.write(bytes))?;
        self.at += count as u64;
        self.end = self.end.max(self.at);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.once((), Write::flush)
    }
}

impl Seek for Given {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        let place = place.ok_or(io::ErrorKind::InvalidInput)?;
        self.at = self.once(place, |inner| inner.seek(to))?;
        Ok(self.at)
    }
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
