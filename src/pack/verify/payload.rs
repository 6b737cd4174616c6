//! The files: exactly those that the manifest lists, each with its size and digest, and the lists over them.

use super::{Check, first_difference};
use crate::files::{Sha256Digest, pretty_sorted};
use crate::pack::build::all_subjects;
use crate::pack::manifest::{self as m, Role, Subject};
use crate::pack::names;
use crate::pack::statement::{checksums, statement, subjects};
use std::collections::BTreeSet;

/// Files beside the payload.
const TOP: [&str; 4] = [m::MANIFEST_PATH, m::CHECKSUMS_PATH, m::STATEMENT_PATH, m::BUNDLE_PATH];

impl Check<'_> {
    /// Rows, files, subjects, checksums, Statement, size.
    pub(super) fn payload(&mut self, manifest_sha256: Sha256Digest) {
        self.rows();
        self.exact_set();
        self.digests();
        self.subjects();
        self.lists(manifest_sha256);
        self.size();
    }

    fn rows(&mut self) {
        let rows = &self.manifest.payload_files;
        for pair in rows.windows(2) {
            if pair[0].path >= pair[1].path {
                self.fault(
                    "payload_order",
                    pair[1].path.clone(),
                    "rows sorted by path, each once",
                    format!("it after {}", pair[0].path),
                );
            }
        }
        for row in rows {
            if let Err(wrong) = names::check(&row.path) {
                self.fault("payload_name", row.path.clone(), wrong.expected, wrong.found);
            } else if !row.path.starts_with("payload/") {
                self.fault("payload_name", row.path.clone(), "a path below payload/", "another");
            }
        }
    }

    /// Both directions: nothing is missing, nothing is extra.
    fn exact_set(&mut self) {
        let listed: BTreeSet<&str> =
            self.manifest.payload_files.iter().map(|row| row.path.as_str()).collect();
        for path in self.source.members().keys() {
            if !listed.contains(path.as_str()) && !TOP.contains(&path.as_str()) {
                self.fault(
                    "payload_extra",
                    path.clone(),
                    "only files that the manifest lists",
                    "this one too",
                );
            }
        }
        for path in &listed {
            if !self.source.members().contains_key(*path) {
                self.fault("payload_missing", *path, "the file that the manifest lists", "none");
            }
        }
        for path in [m::CHECKSUMS_PATH, m::STATEMENT_PATH] {
            if !self.source.members().contains_key(path) {
                self.fault("payload_missing", path, "a file that every pack has", "none");
            }
        }
    }

    fn digests(&mut self) {
        for row in &self.manifest.payload_files {
            let Some(bytes) = self.source.members().get(&row.path) else { continue };
            if *bytes != row.bytes {
                self.fault(
                    "payload_size",
                    row.path.clone(),
                    format!("{} bytes", row.bytes),
                    format!("{bytes} bytes"),
                );
                continue;
            }
            match self.source.digest(&row.path) {
                Ok((digest, _)) => self.equal("payload_digest", &row.path, &row.sha256, &digest),
                Err(finding) => self.keep(finding),
            }
        }
    }

    /// The subjects follow from the rows; the object's from its copy in the payload.
    fn subjects(&mut self) {
        let rows = &self.manifest.payload_files;
        let object = rows.iter().find(|row| row.path == m::OBJECT_PATH).map(|row| (row.sha256, row.bytes));
        let expected = all_subjects(rows, object);
        let found = &self.manifest.proof_pack.subjects;
        let name = |subject: Option<&Subject>| {
            subject.map_or_else(
                || "none".to_owned(),
                |one| format!("{} ({}, {} bytes, {})", one.path, role(one.role), one.bytes, one.sha256),
            )
        };
        for index in 0..expected.len().max(found.len()) {
            if expected.get(index) != found.get(index) {
                self.fault(
                    "subjects",
                    format!("manifest.json#/proof_pack/subjects/{index}"),
                    name(expected.get(index)),
                    name(found.get(index)),
                );
                return;
            }
        }
    }

    /// Checksums and Statement hold the same subjects, and nothing else.
    fn lists(&mut self, manifest_sha256: Sha256Digest) {
        let named = subjects(self.manifest, manifest_sha256);
        if let Ok(text) = self.source.text(m::CHECKSUMS_PATH).map_err(|finding| self.keep(finding)) {
            let expected = checksums(&named);
            if text != expected {
                let (line, expected, found) = first_difference(&expected, &text);
                self.fault("checksums", format!("{}:{line}", m::CHECKSUMS_PATH), expected, found);
            }
        }
        if let Ok(text) = self.source.text(m::STATEMENT_PATH).map_err(|finding| self.keep(finding)) {
            // Two facts of the job stand nowhere else; the rest follows from the manifest.
            let value: serde_json::Value =
                crate::evidence::strict::value(text.as_bytes()).unwrap_or_default();
            let fact = |name: &str| {
                let pointer = format!("/predicate/buildDefinition/internalParameters/github/{name}");
                value.pointer(&pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
            };
            let expected = statement(self.manifest, &named, &fact("event_name"), &fact("runner_environment"));
            match pretty_sorted(&expected) {
                Ok(expected) if expected == text => {}
                Ok(expected) => {
                    let (line, expected, found) = first_difference(&expected, &text);
                    self.fault("statement", format!("{}:{line}", m::STATEMENT_PATH), expected, found);
                }
                Err(error) => self.fault(
                    "statement",
                    m::STATEMENT_PATH,
                    "a Statement that can be written",
                    error.to_string(),
                ),
            }
        }
    }

    fn size(&mut self) {
        let payload = self.manifest.payload_files.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
        let own = self.source.members().get(m::MANIFEST_PATH).copied().unwrap_or_default();
        self.equal(
            "pack_size",
            "manifest.json#/pack_size_bytes",
            &payload.saturating_add(own),
            &self.manifest.pack_size_bytes,
        );
    }
}

fn role(role: Role) -> String {
    serde_json::to_value(role).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
