//! The event stream as JSON lines: for the proof root, and for whoever reads `--format jsonl`.

use super::{Event, Sink, output};
use crate::error::{Error, Result};
use crate::files::{append_whole, compact};
use serde::Serialize;
use std::fs::File;
use std::path::PathBuf;

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    #[serde(flatten)]
    event: &'a Event,
}

/// One event as one line (`assay.gates.event.v0`), newline included.
fn line(event: &Event) -> String {
    let mut text = compact(&Line { schema: "assay.gates.event.v0", event }).unwrap_or_default();
    text.push('\n');
    text
}

/// Writes to standard output.
#[derive(Debug, Default)]
pub struct Lines;

impl Sink for Lines {
    fn event(&mut self, event: &Event) -> Result<()> {
        output::data(&line(event));
        Ok(())
    }
}

/// Appends to a file, a line whole or not at all. An event that can't be kept ends the invocation.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    path: PathBuf,
}

impl Recorder {
    /// Appends to `file`, which is at `path`.
    #[must_use]
    pub fn new(file: File, path: PathBuf) -> Self {
        Self { file, path }
    }
}

impl Sink for Recorder {
    fn event(&mut self, event: &Event) -> Result<()> {
        append_whole(&mut self.file, line(event).as_bytes())
            .map_err(|error| Error::io("cannot append", &self.path, error))
    }
}

/// Hands every event to each of several views, in their order: what the first could not keep, the others don't show.
pub struct All(pub Vec<Box<dyn Sink>>);

impl Sink for All {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.iter_mut().try_for_each(|sink| sink.event(event))
    }
}
