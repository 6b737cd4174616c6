//! `manifest.json` by itself: schema, canonical form, and what follows from its own words.

use super::{Check, first_difference};
use crate::evidence::strict;
use crate::files::pretty_sorted;
use crate::pack::finding::Finding;
use crate::pack::manifest::{self as m, Manifest, WorkflowFacts};

/// Reads a manifest; duplicate and unknown keys are refused.
///
/// # Errors
/// What is not of the schema, and where.
pub fn parse(text: &str) -> Result<Manifest, Finding> {
    let wrong =
        |found: String| Finding::new("manifest_schema", m::MANIFEST_PATH, "the published schema", found);
    let value = strict::value(text.as_bytes()).map_err(wrong)?;
    let schema = value.get("schema").and_then(|schema| schema.as_str()).unwrap_or("none");
    if schema != m::SCHEMA {
        return Err(Finding::new(
            "manifest_schema",
            format!("{}#/schema", m::MANIFEST_PATH),
            m::SCHEMA,
            schema,
        ));
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

impl Check<'_> {
    /// Fixed words, canonical form, and facts that are stated twice.
    pub(super) fn manifest(&mut self, text: &str) {
        let manifest = self.manifest;
        match pretty_sorted(manifest) {
            Ok(canonical) if canonical == text => {}
            Ok(canonical) => {
                let (line, expected, found) = first_difference(&canonical, text);
                self.fault("manifest_canonical", format!("{}:{line}", m::MANIFEST_PATH), expected, found);
            }
            Err(error) => self.fault(
                "manifest_canonical",
                m::MANIFEST_PATH,
                "a manifest that can be written",
                error.to_string(),
            ),
        }
        for (pointer, expected, found) in [
            ("kind", m::KIND, &manifest.kind),
            ("claim_ceiling", m::CLAIM_CEILING, &manifest.claim_ceiling),
            ("proof_pack/schema", m::SCHEMA, &manifest.proof_pack.schema),
            ("verification_modes/historical", m::MODE_HISTORICAL, &manifest.verification_modes.historical),
            ("verification_modes/current_state", m::MODE_CURRENT, &manifest.verification_modes.current_state),
            ("expected_size_policy/action", m::SIZE_ACTION, &manifest.expected_size_policy.action),
        ] {
            self.equal("manifest_words", &format!("{}#/{pointer}", m::MANIFEST_PATH), expected, found);
        }
        self.equal(
            "manifest_words",
            "manifest.json#/retention_days",
            &m::RETENTION_DAYS,
            &manifest.retention_days,
        );
        self.equal(
            "manifest_words",
            "manifest.json#/expected_size_policy/soft_cap_bytes",
            &m::SOFT_CAP_BYTES,
            &manifest.expected_size_policy.soft_cap_bytes,
        );
        let boundary = &manifest.evidence_boundary;
        for (pointer, found) in [
            ("separate_from_normalized_runner_evidence", boundary.separate_from_normalized_runner_evidence),
            ("not_a_runner_emitted_artifact", boundary.not_a_runner_emitted_artifact),
        ] {
            self.equal(
                "manifest_words",
                &format!("manifest.json#/evidence_boundary/{pointer}"),
                &true,
                &found,
            );
        }
        let time = chrono::DateTime::parse_from_rfc3339(&manifest.created_at)
            .map(|time| time.to_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        if time.as_ref() != Ok(&manifest.created_at) {
            self.fault(
                "manifest_time",
                "manifest.json#/created_at",
                "a time like 2026-01-31T12:00:00Z",
                manifest.created_at.clone(),
            );
        }
        if manifest.workflow != WorkflowFacts::of(&manifest.source, &manifest.inputs) {
            self.fault(
                "manifest_workflow",
                "manifest.json#/workflow",
                "the same facts as in source and inputs",
                "others",
            );
        }
        self.source_facts();
    }

    fn source_facts(&mut self) {
        let source = &self.manifest.source;
        for (pointer, value) in [
            ("repository", &source.repository),
            ("head_sha", &source.head_sha),
            ("ref", &source.r#ref),
            ("workflow_name", &source.workflow_name),
            ("workflow_path", &source.workflow_path),
            ("workflow_sha", &source.workflow_sha),
            ("run_id", &source.run_id),
            ("run_attempt", &source.run_attempt),
            ("run_url", &source.run_url),
        ] {
            if value.is_empty() || value.chars().any(char::is_control) {
                self.fault(
                    "manifest_source",
                    format!("manifest.json#/source/{pointer}"),
                    "one line of text",
                    value.clone(),
                );
            }
        }
        if source.run_url != crate::pack::LOCAL {
            let tail = format!("/{}/actions/runs/{}", source.repository, source.run_id);
            if !source.run_url.starts_with("https://") && !source.run_url.starts_with("http://")
                || !source.run_url.ends_with(&tail)
            {
                self.fault(
                    "manifest_source",
                    "manifest.json#/source/run_url",
                    format!("the page {tail} of that run"),
                    source.run_url.clone(),
                );
            }
        }
    }
}
