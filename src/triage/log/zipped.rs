//! The zip that the log endpoints give.
//!
//! Layouts seen: `<job>/N_step.txt` per step, `<job>/system.txt`, `N_<job>.txt` or `-N_<job>.txt` per job. Step files
//! may be missing and entries may be corrupt; then the job's own file stands in, and what could not be read is named.

use super::scan::{Patterns, Scan, scan};
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;

/// More than this is not read from one entry: no log of ours comes near it.
const LARGEST: u64 = 16 << 30;

/// One log file of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFile {
    /// Name in the zip, or path.
    pub name: String,
    /// The job as the zip names it: without `/` and `:`, cut to 90 UTF-16 units.
    pub job: Option<String>,
    /// Number and name of the step.
    pub step: Option<(u32, String)>,
}

/// Opens a log zip.
///
/// # Errors
/// `LogUnreadable` when it is not a zip.
pub fn open_zip(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| {
        Error::new(Code::LogUnreadable, format!("expected a zip, found: {error}"))
            .at(path.display())
            .hint("download it again: gh run view RUN --log")
    })
}

/// Reads every log of the zip, step files first. The second list names what could not be read.
#[must_use]
pub fn read_zip(
    archive: &mut ZipArchive<BufReader<File>>,
    patterns: &Patterns,
) -> (Vec<(LogFile, Scan)>, Vec<String>) {
    let (mut read, mut missing) = (Vec::new(), Vec::new());
    let mut steps_size: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let mut whole_jobs = Vec::new();
    for index in 0..archive.len() {
        let (file, size) = match archive.by_index(index) {
            Ok(entry) if entry.is_file() => match entry.name() {
                Ok(name) => (place(&name), entry.size()),
                Err(error) => {
                    missing.push(format!("log entry {index}: {error}"));
                    continue;
                }
            },
            Ok(_) => continue,
            Err(error) => {
                missing.push(format!("log entry {index}: {error}"));
                continue;
            }
        };
        if !file.name.contains('/') {
            whole_jobs.push((index, file, size));
            continue;
        }
        match entry(archive, index, patterns) {
            Ok(scan) => {
                *steps_size.entry(file.job.clone()).or_default() += size;
                read.push((file, scan));
            }
            Err(error) => missing.push(format!("log {}: {error}", file.name)),
        }
    }
    for (index, file, size) in whole_jobs {
        // The step files hold the same text; the job's file is read when some of it is not in them.
        if steps_size.get(&file.job).is_some_and(|steps| *steps * 20 >= size * 19) {
            continue;
        }
        match entry(archive, index, patterns) {
            Ok(scan) => {
                let known = |hit: &super::Hit| {
                    let same = |other: &super::Hit| other.time == hit.time && other.text == hit.text;
                    read.iter().any(|(other, scan): &(LogFile, Scan)| {
                        other.job == file.job && scan.hits.iter().any(same)
                    })
                };
                let hits = scan.hits.iter().filter(|hit| !known(hit)).cloned().collect();
                read.push((file, Scan { hits, ..scan }));
            }
            Err(error) => missing.push(format!("log {}: {error}", file.name)),
        }
    }
    (read, missing)
}

fn entry(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
    patterns: &Patterns,
) -> Result<Scan, String> {
    let entry = archive.by_index(index).map_err(|error| error.to_string())?;
    if entry.size() > LARGEST {
        return Err(format!("{} bytes, larger than {LARGEST}", entry.size()));
    }
    scan(entry.take(LARGEST), patterns).map_err(|error| error.to_string())
}

/// Job and step from a name in the zip.
fn place(name: &str) -> LogFile {
    let numbered = |text: &str| {
        let (number, rest) = text.strip_suffix(".txt")?.split_once('_')?;
        Some((number.trim_start_matches('-').parse().ok()?, rest.to_owned()))
    };
    match name.split_once('/') {
        Some((job, file)) => {
            LogFile { name: name.to_owned(), job: Some(job.to_owned()), step: numbered(file) }
        }
        None => LogFile { name: name.to_owned(), job: numbered(name).map(|(_, job)| job), step: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zip_of(files: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = zip::ZipWriter::new(file.reopen().unwrap());
        for (name, text) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    fn found(files: &[(&str, &str)]) -> Vec<(String, Option<u32>, String)> {
        let zip = zip_of(files);
        let patterns = Patterns::new(["needle"]).unwrap();
        let (read, missing) = read_zip(&mut open_zip(zip.path()).unwrap(), &patterns);
        assert_eq!(missing, Vec::<String>::new());
        let flat = |(file, scan): (LogFile, Scan)| {
            let step = file.step.as_ref().map(|(number, _)| *number);
            scan.hits.into_iter().map(move |hit| (file.job.clone().unwrap_or_default(), step, hit.text))
        };
        read.into_iter().flat_map(flat).collect()
    }

    #[test]
    fn step_files_tell_the_step_and_are_not_read_twice() {
        let text = "2026-01-01T00:00:00.1Z needle\n";
        let files =
            [("gates/3_Gate kernel-only.txt", text), ("0_gates.txt", text), ("gates/system.txt", "x\n")];
        assert_eq!(found(&files), [("gates".into(), Some(3), "needle".into())]);
    }

    #[test]
    fn a_missing_step_file_is_made_up_for_by_the_jobs_file() {
        let files = [
            ("gates/1_Set up job.txt", "2026-01-01T00:00:00.1Z needle one\n"),
            (
                "-2147483648_gates.txt",
                "2026-01-01T00:00:00.1Z needle one\n2026-01-01T00:00:01.1Z needle two\n",
            ),
        ];
        assert_eq!(
            found(&files),
            [("gates".into(), Some(1), "needle one".into()), ("gates".into(), None, "needle two".into())]
        );
    }

    #[test]
    fn a_corrupt_entry_is_named_and_the_rest_is_read() {
        let zip = zip_of(&[("a/1_x.txt", &"needle one\n".repeat(50)), ("b/1_y.txt", "needle two\n")]);
        let mut bytes = std::fs::read(zip.path()).unwrap();
        // The data of the first entry begins after its 30-byte header and name.
        bytes[30 + 9 + 4] ^= 0xff;
        std::fs::write(zip.path(), &bytes).unwrap();
        let (read, missing) =
            read_zip(&mut open_zip(zip.path()).unwrap(), &Patterns::new(["needle"]).unwrap());
        assert!(missing.len() == 1 && missing[0].contains("a/1_x.txt"), "{missing:?}");
        assert_eq!(read.iter().filter(|(file, _)| file.name == "b/1_y.txt").count(), 1);
    }

    #[test]
    fn what_is_no_zip_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "PK but not really").unwrap();
        assert_eq!(open_zip(file.path()).unwrap_err().code(), Code::LogUnreadable);
    }
}
