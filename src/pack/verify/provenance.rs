//! The eBPF object: its provenance file, the manifest and the capture proofs must name one and the same.

use super::Check;
use crate::evidence::strict;
use crate::files::pretty_sorted;
use crate::pack::manifest as m;
use crate::pack::provenance::{BUILD_CEILING, BUILD_SCHEMA, BuildProvenance};
use serde_json::Value;

impl Check<'_> {
    /// `build_provenance`, `content_provenance` and the file behind them.
    pub(super) fn provenance(&mut self) {
        let manifest = self.manifest;
        let row = manifest.payload_files.iter().find(|row| row.path == m::BUILD_PROVENANCE_PATH);
        if manifest.build_provenance.ebpf.as_ref() != row {
            self.fault(
                "build_provenance",
                "manifest.json#/build_provenance/ebpf",
                "the row of the provenance file, or null without one",
                "another",
            );
        }
        let stated = manifest.content_provenance.source.as_deref();
        if stated != row.map(|row| row.path.as_str()) {
            self.fault(
                "build_provenance",
                "manifest.json#/content_provenance/source",
                "the provenance file, or null without one",
                stated.unwrap_or("null"),
            );
        }
        for (path, tree) in &manifest.content_provenance.path_trees {
            let oid = tree.oid.as_deref().is_some_and(|oid| {
                matches!(oid.len(), 40 | 64)
                    && oid.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            });
            if oid == tree.error.is_some() {
                self.fault(
                    "path_trees",
                    format!("manifest.json#/content_provenance/path_trees/{}", path.replace('/', "~1")),
                    "a git object id, or the reason why there is none",
                    format!("{:?} and {:?}", tree.oid, tree.error),
                );
            }
        }
        if let Some(row) = row {
            let path = row.path.clone();
            self.provenance_file(&path);
        }
        self.measuring_object();
    }

    /// The invocation's record and every capture proof name the object that the pack carries.
    fn measuring_object(&mut self) {
        let manifest = self.manifest;
        let rows = &manifest.payload_files;
        let Some(object) = rows.iter().find(|row| row.path == m::OBJECT_PATH) else {
            self.limits
                .push("which kernel programs measured: the pack carries none to compare with".to_owned());
            return;
        };
        let expected = object.sha256.hex();
        let passed = manifest.gates.iter().any(|gate| gate.status == m::GateStatus::Passed);
        for row in rows {
            let pointer = match row.path.as_str() {
                "payload/run.json" => "/object_sha256",
                path if path.ends_with("/capture_proof.json") => "/environment/object_sha256",
                _ => continue,
            };
            let value =
                self.source.text(&row.path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let stated = value.as_ref().and_then(|value| value.pointer(pointer)).and_then(Value::as_str);
            // What measured nothing may name nothing.
            let stated = stated.or(passed.then_some("none"));
            if let Some(stated) = stated
                && stated.strip_prefix("sha256:").unwrap_or(stated) != expected
            {
                self.fault("measuring_object", format!("{}#{pointer}", row.path), expected.clone(), stated);
            }
        }
    }

    fn provenance_file(&mut self, path: &str) {
        let text = match self.source.text(path) {
            Ok(text) => text,
            Err(finding) => return self.keep(finding),
        };
        let build: BuildProvenance = match strict::typed(text.as_bytes()) {
            Ok(build) => build,
            Err(error) => return self.fault("build_provenance", path, "the published schema", error),
        };
        if pretty_sorted(&build).is_ok_and(|canonical| canonical != text) {
            self.fault(
                "build_provenance",
                path,
                "sorted keys, two spaces, a newline at the end",
                "another form",
            );
        }
        let manifest = self.manifest;
        let object = manifest.payload_files.iter().find(|row| row.path == m::OBJECT_PATH);
        let (digest, bytes) =
            object.map_or_else(|| ("no object".to_owned(), 0), |row| (row.sha256.hex(), row.bytes));
        let source = &manifest.source;
        for (pointer, expected, found) in [
            ("schema", BUILD_SCHEMA, build.schema.as_str()),
            ("build/claim_ceiling", BUILD_CEILING, &build.build.claim_ceiling),
            ("created_at", &manifest.created_at, &build.created_at),
            ("object/path", m::OBJECT_SUBJECT, &build.object.path),
            ("object/sha256", &digest, &build.object.sha256),
            ("source/head_sha", &source.head_sha, &build.source.head_sha),
            ("source/ref", &source.r#ref, &build.source.r#ref),
            ("source/repository", &source.repository, &build.source.repository),
            ("source/workflow", &source.workflow_name, &build.source.workflow),
            ("source/workflow_sha", &source.workflow_sha, &build.source.workflow_sha),
            ("source/run_id", &source.run_id, &build.source.run_id),
            ("source/run_attempt", &source.run_attempt, &build.source.run_attempt),
        ] {
            self.equal("build_provenance", &format!("{path}#/{pointer}"), expected, found);
        }
        self.equal(
            "build_provenance",
            &format!("{path}#/object/size_bytes"),
            &bytes,
            &build.object.size_bytes,
        );
        if build.source.path_trees != manifest.content_provenance.path_trees {
            self.fault(
                "build_provenance",
                format!("{path}#/source/path_trees"),
                "the trees of the manifest",
                "others",
            );
        }
    }
}
