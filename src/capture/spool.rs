//! Where raw records wait between the ring and the evidence: a file without a name in a folder that only the driver can enter.

#![cfg_attr(
    not(all(feature = "capture", target_os = "linux")),
    allow(dead_code, reason = "only the kernel's consumer writes one")
)]

use crate::error::{Code, Error, Result, is_full};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How much is kept. What comes after is counted, not kept, and the run is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Records.
    pub records: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The writing side. Never fails while records come in: the first failure is kept for the end.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    budget: Budget,
    kept: u64,
    bytes: u64,
    over_budget: u64,
    failure: Option<std::io::Error>,
}

/// The reading side.
#[derive(Debug)]
pub struct Spooled {
    file: File,
    /// Records kept.
    pub records: u64,
    /// Bytes kept.
    pub bytes: u64,
    /// Records that came after the budget was used up.
    pub over_budget: u64,
    /// Why writing stopped, if it did.
    pub failure: Option<String>,
    /// It stopped because the disk is full.
    pub disk_full: bool,
}

impl Spool {
    /// A spool in `folder`.
    ///
    /// # Errors
    /// `Io`, when the file can't be made.
    pub fn create(folder: &Path, budget: Budget) -> Result<Self> {
        let file = tempfile::tempfile_in(folder)
            .map_err(|error| Error::io("cannot make the record spool", folder, error))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { file, budget, kept: 0, bytes: 0, over_budget: 0, failure: None })
    }

    /// Keeps one record.
    pub fn keep(&mut self, record: &[u8]) {
        if self.failure.is_some() {
            return;
        }
        if self.over_budget > 0
            || self.kept >= self.budget.records
            || self.bytes + record.len() as u64 > self.budget.bytes
        {
            self.over_budget += 1;
            return;
        }
        let length = (record.len() as u32).to_le_bytes();
        match self.file.write_all(&length).and_then(|()| self.file.write_all(record)) {
            Ok(()) => {
                self.kept += 1;
                self.bytes += record.len() as u64;
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Whether more came than is kept.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.over_budget > 0
    }

    /// Closes the writing side.
    ///
    /// # Errors
    /// `CaptureConsumer`, when the file can't be read back at all.
    pub fn finish(self) -> Result<Spooled> {
        let (file, unwritten) = self.file.into_parts();
        let mut failure = self.failure;
        let mut file = file;
        if let (None, Ok(rest)) = (&failure, &unwritten) {
            failure = file.write_all(rest).err();
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| {
            Error::new(Code::CaptureConsumer, format!("cannot reread the spool: {error}"))
        })?;
        let disk_full = failure.as_ref().is_some_and(|error| is_full(error, Path::new("")));
        let failure = failure.map(|error| error.to_string());
        Ok(Spooled {
            file,
            records: self.kept,
            bytes: self.bytes,
            over_budget: self.over_budget,
            failure,
            disk_full,
        })
    }
}

impl Spooled {
    /// Calls `each` with every record, in order. Can be done any number of times.
    ///
    /// # Errors
    /// `CaptureConsumer` when the file ends inside a record; what `each` fails with.
    pub fn read(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut reader = self.reader()?;
        let mut buffer = Vec::new();
        while reader.next_into(&mut buffer)? {
            each(&buffer)?;
        }
        Ok(())
    }

    /// A reader from the first record on, with a file position of its own.
    ///
    /// # Errors
    /// `CaptureConsumer`, when the file can't be reread.
    pub fn reader(&self) -> Result<SpoolReader> {
        let file = self.file.try_clone().map_err(|error| unreadable(&error))?;
        Ok(SpoolReader {
            file: BufReader::with_capacity(1 << 20, Positioned { file, at: 0 }),
            left: self.records,
        })
    }
}

/// A file read at a position of its own, so that readers of the same spool don't disturb each other.
#[derive(Debug)]
struct Positioned {
    file: File,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.at)?;
        #[cfg(not(unix))]
        let count = {
            self.file.seek(SeekFrom::Start(self.at))?;
            self.file.read(buffer)?
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads the records of a spool one by one.
#[derive(Debug)]
pub struct SpoolReader {
    file: BufReader<Positioned>,
    left: u64,
}

impl SpoolReader {
    /// Reads the next record into `buffer`; `false` at the end.
    ///
    /// # Errors
    /// `CaptureConsumer` when the file ends before its last record.
    pub fn next_into(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(|error| unreadable(&error))?;
        buffer.resize(u32::from_le_bytes(length) as usize, 0);
        self.file.read_exact(buffer).map_err(|error| unreadable(&error))?;
        Ok(true)
    }
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::new(Code::CaptureConsumer, format!("the record spool can't be read back: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_reads_back_in_order_as_often_as_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(folder.path(), Budget { records: 10, bytes: 1000 }).unwrap();
        spool.keep(b"one");
        spool.keep(b"");
        spool.keep(&[7; 500]);
        let spooled = spool.finish().unwrap();
        for _ in 0..2 {
            let mut sizes = Vec::new();
            spooled
                .read(|record| {
                    sizes.push(record.len());
                    Ok(())
                })
                .unwrap();
            assert_eq!(sizes, [3, 0, 500]);
        }
    }

    #[test]
    fn what_exceeds_the_budget_is_counted_and_nothing_after_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(folder.path(), Budget { records: 10, bytes: 10 }).unwrap();
        spool.keep(&[0; 8]);
        spool.keep(&[0; 8]);
        spool.keep(&[0; 1]);
        let spooled = spool.finish().unwrap();
        assert_eq!((spooled.records, spooled.bytes, spooled.over_budget), (1, 8, 2));
    }
}
