//! The event stream as JSON lines: for the proof root, and for whoever reads `--format jsonl`.

use super::{Event, Sink, output};
use crate::files::compact;
use serde::Serialize;
use std::fs::File;
use std::io::Write;

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
    fn event(&mut self, event: &Event) {
        output::data(&line(event));
    }
}

/// Appends to a file; what could not be written is said once and counted.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    lost: u64,
}

impl Recorder {
    /// Appends to `file`.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, lost: 0 }
    }
}

impl Sink for Recorder {
    fn event(&mut self, event: &Event) {
        if let Err(error) = self.file.write_all(line(event).as_bytes()) {
            if self.lost == 0 {
                output::diagnostic(&format!("warning: cannot write events.jsonl: {error}"));
            }
            self.lost += 1;
        }
    }
}

/// Hands every event to each of several views.
pub struct All(pub Vec<Box<dyn Sink>>);

impl Sink for All {
    fn event(&mut self, event: &Event) {
        for sink in &mut self.0 {
            sink.event(event);
        }
    }
}
