//! Each gate's row: its files, its log, its verdict, and whether they say the same.

use super::{Check, first_difference};
use crate::evidence::strict;
use crate::files::pretty_sorted;
use crate::judge::GateVerdict;
use crate::pack::build::pass_lines;
use crate::pack::manifest::{FileRow, GateRow, GateStatus, Role};
use std::collections::BTreeSet;

/// Runs of a gate that passed.
const RUNS: usize = 3;

impl Check<'_> {
    /// Every gate, and that no file belongs to a gate that has no row.
    pub(super) fn gates(&mut self) {
        let mut seen = BTreeSet::new();
        for (index, gate) in self.manifest.gates.iter().enumerate() {
            if !seen.insert(gate.gate.as_str()) {
                self.fault(
                    "gate_twice",
                    format!("manifest.json#/gates/{index}"),
                    "each gate once",
                    gate.gate.clone(),
                );
            }
            self.gate_files(gate);
            self.gate_log(gate);
            self.gate_verdict(gate);
        }
        for row in &self.manifest.payload_files {
            let gate = row
                .path
                .strip_prefix("payload/gates/")
                .and_then(|rest| rest.split_once('/'))
                .map(|(gate, _)| gate);
            if let Some(gate) = gate
                && !seen.contains(gate)
            {
                self.fault("gate_unlisted", row.path.clone(), "a gate that the manifest lists", gate);
            }
        }
    }

    /// The rows of a gate are exactly its archives, its selected JSON and its log.
    fn gate_files(&mut self, gate: &GateRow) {
        let prefix = format!("payload/gates/{}/", gate.gate);
        let with = |role: Role| -> Vec<FileRow> {
            let rows = self.manifest.payload_files.iter();
            rows.filter(|row| row.path.starts_with(&prefix) && Role::of(&row.path) == role).cloned().collect()
        };
        let (archives, json) = (with(Role::RunnerArchive), with(Role::GateJson));
        let log =
            self.manifest.payload_files.iter().find(|row| row.path == format!("{prefix}gate.log")).cloned();
        for (what, expected, found) in [
            ("archives", &archives, &gate.archives),
            ("selected_json", &json, &gate.selected_json),
            ("gate_log", &log.into_iter().collect(), &gate.gate_log.iter().cloned().collect::<Vec<_>>()),
        ] {
            if expected != found {
                let first = expected
                    .iter()
                    .zip(found.iter())
                    .position(|(a, b)| a != b)
                    .unwrap_or(expected.len().min(found.len()));
                let shown = |rows: &[FileRow]| {
                    rows.get(first).map_or_else(
                        || "no further row".to_owned(),
                        |row| format!("{} {}", row.path, row.sha256),
                    )
                };
                self.fault("gate_files", format!("{prefix}#{what}/{first}"), shown(expected), shown(found));
            }
        }
        let any = self.manifest.payload_files.iter().any(|row| row.path.starts_with(&prefix));
        match gate.status {
            GateStatus::Missing if any => {
                self.fault("gate_status", prefix, "no file of a gate that is missing", "some")
            }
            GateStatus::Passed if gate.archives.len() < RUNS => {
                self.fault(
                    "gate_status",
                    prefix,
                    format!("at least {RUNS} archives of a gate that passed"),
                    gate.archives.len().to_string(),
                );
            }
            _ => {}
        }
    }

    /// PASS lines are those of the log.
    fn gate_log(&mut self, gate: &GateRow) {
        let path = format!("payload/gates/{}/gate.log", gate.gate);
        let lines = match &gate.gate_log {
            Some(_) => match self.source.reader(&path).map(pass_lines) {
                Ok(Ok(lines)) => lines,
                Ok(Err(error)) => return self.fault("gate_log", path, "a readable log", error.to_string()),
                // Said already: the file is missing.
                Err(_) => return,
            },
            None => Vec::new(),
        };
        if lines != gate.pass_lines {
            let at = lines
                .iter()
                .zip(&gate.pass_lines)
                .position(|(a, b)| a != b)
                .unwrap_or(lines.len().min(gate.pass_lines.len()));
            let shown =
                |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "no further line".to_owned());
            self.fault(
                "pass_lines",
                format!("manifest.json, gate {}, pass_lines/{at}", gate.gate),
                shown(&lines),
                shown(&gate.pass_lines),
            );
        }
    }

    /// `verdict.json` says the same as the row.
    fn gate_verdict(&mut self, gate: &GateRow) {
        let path = format!("payload/gates/{}/verdict.json", gate.gate);
        if !self.source.members().contains_key(&path) {
            if gate.status == GateStatus::Passed {
                self.fault("gate_verdict", path, "the verdict of a gate that passed", "none");
            }
            return;
        }
        let text = match self.source.text(&path) {
            Ok(text) => text,
            Err(finding) => return self.keep(finding),
        };
        let verdict: GateVerdict = match strict::typed(text.as_bytes()) {
            Ok(verdict) => verdict,
            Err(error) => return self.fault("gate_verdict", path, "a verdict of its schema", error),
        };
        if let Ok(canonical) = pretty_sorted(&verdict)
            && canonical != text
        {
            let (line, expected, found) = first_difference(&canonical, &text);
            self.fault("gate_verdict", format!("{path}:{line}"), expected, found);
        }
        self.equal("gate_verdict", &format!("{path}#/schema"), "assay.gates.verdict.v0", &verdict.schema);
        self.equal("gate_verdict", &format!("{path}#/gate"), gate.gate.as_str(), &verdict.gate);
        // A pack may downgrade (passed without archives is incomplete), never upgrade.
        let word = verdict.status.word();
        if word != gate.status.as_str() && gate.status != GateStatus::Incomplete {
            self.fault("gate_status", format!("{path}#/status"), gate.status.as_str(), word);
        }
        if gate.status == GateStatus::Passed {
            self.equal("gate_verdict", &format!("{path}#/runs"), &gate.archives.len(), &verdict.runs.len());
        }
        for (index, run) in verdict.runs.iter().enumerate() {
            let Some(archive) = &run.archive else { continue };
            let place = format!("{path}#/runs/{index}/archive");
            if !archive.path.contains(&format!("/run-{}/", run.run)) {
                self.fault(
                    "gate_verdict",
                    place.clone(),
                    format!("the archive of run {}", run.run),
                    archive.path.clone(),
                );
            }
            match gate.archives.iter().find(|row| row.path == format!("payload/{}", archive.path)) {
                Some(row) => {
                    self.equal("gate_verdict", &place, row.sha256.to_string().as_str(), &archive.sha256);
                    self.equal("gate_verdict", &place, &row.bytes, &archive.bytes);
                }
                None => self.fault("gate_verdict", place, "an archive of this gate", archive.path.clone()),
            }
        }
    }
}
