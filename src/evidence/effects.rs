//! `effects.ndjson`: every effect of a run, one per line, beyond what v0 names.

use super::redaction::Redactor;
use crate::capture::{Effect, Operation, PathValue};
use crate::error::{Code, Error, Result};
use crate::files::{Draft, RootPath, compact};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Schema id of a line.
pub const SCHEMA: &str = "assay.gates.effect.v0";
/// Longest line read; a path takes 4096 bytes, each of which JSON may write as six.
const MAX_LINE: u64 = 256 * 1024;

#[derive(Serialize)]
struct LineOut<'a> {
    schema: &'static str,
    run_id: &'a str,
    #[serde(flatten)]
    effect: &'a Effect,
}

/// What stands before the effect itself. Read apart from it: `flatten` would take three times as long.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
    #[serde(borrow)]
    run_id: Cow<'a, str>,
}

/// Replaces secrets in everything of an effect that the measured program could choose.
pub fn redact(effect: &mut Effect, redactor: &mut Redactor<'_>) {
    let exec = effect.operation == Operation::Exec;
    let mut path = |value: &mut PathValue| {
        if exec {
            redactor.exec("path", &mut value.value)
        } else {
            redactor.text("path", &mut value.value)
        }
        if let Some(requested) = &mut value.requested {
            redactor.text("path", requested);
        }
    };
    effect.path.as_mut().map(&mut path);
    effect.target.as_mut().map(&mut path);
    if let Some(endpoint) = &mut effect.endpoint {
        redactor.address("endpoint", endpoint);
    }
    if let Some(detail) = &mut effect.detail {
        redactor.text("detail", detail);
    }
    if !effect.argv.is_empty() {
        redactor.argv("argv", &mut effect.argv);
    }
    if let Some(call) = &mut effect.call {
        redactor.text("call", call);
    }
}

/// Writes effects to a temporary file beside its destination; [`Writer::finish`] puts it there whole.
pub struct Writer {
    out: BufWriter<Draft>,
    path: PathBuf,
    run_id: String,
}

impl Writer {
    /// Begins the file at `path`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(path: &RootPath, run_id: &str) -> Result<Self> {
        Ok(Self { out: BufWriter::new(path.begin()?), path: path.path(), run_id: run_id.to_owned() })
    }

    /// Appends one effect, already redacted; gives back the line without its end.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&mut self, effect: &Effect) -> Result<String> {
        let line = compact(&LineOut { schema: SCHEMA, run_id: &self.run_id, effect })?;
        self.out
            .write_all(line.as_bytes())
            .and_then(|()| self.out.write_all(b"\n"))
            .map_err(|error| Error::io("cannot write", &self.path, error))?;
        Ok(line)
    }

    /// Syncs the file and renames it into place.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.out.into_inner().map_err(|error| Error::io("cannot write", &path, error.into_error()))?.finish()
    }
}

/// Reads `effects.ndjson` line by line: schema, one run, contiguous sequence.
///
/// # Errors
/// `Io` when it can't be opened; each line gives `EvidenceInvalid`, naming file and line, when it breaks its contract.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Effect>> + use<>> {
    let file = std::fs::File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    Ok(read_from(BufReader::new(file), path, None))
}

/// [`read`] of bytes that come from elsewhere; `place` names them. With `run_id` every line must be of that run.
pub fn read_from<R: BufRead>(
    mut lines: R,
    place: &Path,
    run_id: Option<&str>,
) -> impl Iterator<Item = Result<Effect>> + use<R> {
    let path = place.to_owned();
    let mut run: Option<String> = run_id.map(str::to_owned);
    let mut seq = 0_u64;
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut line = Vec::new();
        match lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => {
                ended = true;
                return Some(Err(Error::io("cannot read", &path, error)));
            }
        }
        let result = parse(&line, seq, &mut run).map_err(|(expected, found)| {
            Error::new(Code::EvidenceInvalid, format!("expected {expected}, found {found}")).at(format!(
                "{}:{}",
                path.display(),
                seq + 1
            ))
        });
        ended = result.is_err();
        seq += 1;
        Some(result)
    })
}

fn parse(line: &[u8], seq: u64, run: &mut Option<String>) -> std::result::Result<Effect, (String, String)> {
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err((format!("a line ended within {MAX_LINE} bytes"), "no end".to_owned()));
    };
    let wrong = |error: serde_json::Error| ("an effect".to_owned(), error.to_string());
    // Both refuse a key of theirs that stands there twice.
    let head: Head = serde_json::from_slice(line).map_err(wrong)?;
    let effect: Effect = serde_json::from_slice(line).map_err(wrong)?;
    if head.schema != SCHEMA {
        return Err((format!("schema {SCHEMA}"), head.schema.into_owned()));
    }
    if run.get_or_insert_with(|| head.run_id.clone().into_owned()) != &head.run_id {
        return Err(("one run_id".to_owned(), head.run_id.into_owned()));
    }
    if effect.seq != seq {
        return Err((format!("seq {seq}"), effect.seq.to_string()));
    }
    Ok(effect)
}
