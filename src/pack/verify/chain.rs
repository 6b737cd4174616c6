//! The chain over each gate: whole, from its nonce to the verdict, and over the very files of the pack.
//!
//! That the job really wrote it, only the job's log can say, which holds its nonces and its ends.

use super::Check;
use crate::evidence::strict;
use crate::files::{Sha256Digest, sha256};
use crate::pack::manifest::{GateRow, GateStatus};
use crate::run::chain::{CHAIN, Link, Step};
use std::collections::{BTreeMap, BTreeSet};

/// What the log of a job must have of a gate's chain, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chained {
    /// The gate.
    pub gate: String,
    /// The lines, in order.
    pub lines: Vec<String>,
}

impl Check<'_> {
    /// Every gate that has a chain, and that each gate that passed has one. Gives what the log must hold.
    pub(super) fn chains(&mut self) -> Vec<Chained> {
        let digests: BTreeMap<&str, Sha256Digest> =
            self.manifest.payload_files.iter().map(|row| (row.path.as_str(), row.sha256)).collect();
        let mut nonces = BTreeSet::new();
        let mut all = Vec::new();
        for row in &self.manifest.gates {
            let path = format!("payload/gates/{}/{CHAIN}", row.gate);
            if !self.source.members().contains_key(&path) {
                if row.status == GateStatus::Passed {
                    self.fault("chain", path, "the chain over a gate that passed", "none");
                }
                continue;
            }
            match self.source.text(&path) {
                Ok(text) => all.extend(self.chain(row, &path, &text, &digests, &mut nonces)),
                Err(finding) => self.keep(finding),
            }
        }
        if !all.is_empty() {
            self.limits.push(
                "that the job measured this while it ran: its log holds the nonce and the end of each chain (--run)".to_owned(),
            );
        }
        all
    }

    fn chain(
        &mut self,
        row: &GateRow,
        path: &str,
        text: &str,
        digests: &BTreeMap<&str, Sha256Digest>,
        nonces: &mut BTreeSet<String>,
    ) -> Option<Chained> {
        let folder = format!("payload/gates/{}", row.gate);
        let mut previous = None;
        let mut chained = Chained { gate: row.gate.clone(), lines: Vec::new() };
        // The last link of each kind speaks for what is there now.
        let mut last: BTreeMap<String, BTreeMap<String, Sha256Digest>> = BTreeMap::new();
        let mut ended = false;
        for (at, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", at + 1);
            let link: Link = match strict::value(line.as_bytes())
                .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()))
            {
                Ok(link) => link,
                Err(error) => {
                    self.fault("chain", place, "a link of its schema", error);
                    return None;
                }
            };
            let digest = sha256(line.as_bytes());
            let as_written = crate::files::compact(&link).is_ok_and(|own| own == line);
            let begins = matches!(link.step, Step::Begin { .. });
            for (held, expected) in [
                (link.schema == Link::SCHEMA, "its schema"),
                (link.seq == at as u64, "the next number"),
                (link.gate == row.gate, "the gate's own link"),
                (link.previous == previous, "the digest of the link before it"),
                (at > 0 || begins, "a chain that begins with a nonce"),
                (as_written, "a link as it is written"),
            ] {
                if !held {
                    self.fault("chain", place.clone(), expected, "another");
                    return None;
                }
            }
            if let Step::Begin { nonce } = &link.step {
                let whole = nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !whole || !nonces.insert(nonce.clone()) {
                    self.fault(
                        "chain",
                        place,
                        "a nonce of 32 hex digits that nothing else has",
                        nonce.clone(),
                    );
                    return None;
                }
            }
            chained.lines.extend(link.said(digest));
            ended = link.step == Step::End;
            let about = match &link.step {
                Step::Run { run } => format!("{folder}/run-{run}"),
                _ => folder.clone(),
            };
            let files = last.entry(about).or_default();
            if matches!(link.step, Step::Run { .. }) {
                files.clear();
            }
            files.extend(link.files);
            previous = Some(digest);
        }
        if !ended && row.status == GateStatus::Passed {
            self.fault("chain", path, "a chain that ends with the verdict", "one that does not end");
        }
        self.linked(row, path, &folder, &last, digests);
        Some(chained)
    }

    /// Every file that a link names is the pack's, and every file of a run is named.
    fn linked(
        &mut self,
        row: &GateRow,
        path: &str,
        folder: &str,
        last: &BTreeMap<String, BTreeMap<String, Sha256Digest>>,
        digests: &BTreeMap<&str, Sha256Digest>,
    ) {
        for (about, files) in last {
            for (name, digest) in files {
                let file = format!("{about}/{name}");
                match digests.get(file.as_str()) {
                    Some(found) if found == digest => {}
                    Some(found) => {
                        self.fault("chain", format!("{path}, {file}"), digest.to_string(), found.to_string())
                    }
                    None => self.fault("chain", format!("{path}, {file}"), "a file of the pack", "none"),
                }
            }
        }
        let own = |name: &str| matches!(name, "definition.yaml" | "policy.yaml" | "verdict.json");
        for file in digests.keys() {
            let Some(below) = file.strip_prefix(folder).and_then(|below| below.strip_prefix('/')) else {
                continue;
            };
            let about = match below.split_once('/') {
                None if own(below) => folder.to_owned(),
                Some((run, name)) if run.starts_with("run-") && !name.contains('/') => {
                    format!("{folder}/{run}")
                }
                _ => continue,
            };
            let name = below.rsplit('/').next().unwrap_or(below);
            // A run that was broken off has files and no link.
            let named = match last.get(&about) {
                Some(files) => {
                    files.contains_key(name) || row.status != GateStatus::Passed && about == folder
                }
                None => row.status != GateStatus::Passed,
            };
            if !named {
                self.fault("chain", format!("{path}, {file}"), "a link that names this file", "none");
            }
        }
    }
}
