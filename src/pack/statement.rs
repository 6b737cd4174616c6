//! The in-toto Statement v1 over a pack's subjects, ready for any signer; and the checksums file over the same.

use super::manifest::{GateStatus, MANIFEST_PATH, Manifest, UPLOAD_FOLDER};
use crate::files::Sha256Digest;
use serde::Serialize;
use serde_json::{Value, json};

/// `_type`.
pub const TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of `statement.intoto.json`.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// `predicateType` of [`test_result`].
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";

/// A name and its digest, as a Statement writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Relative to the workspace.
    pub name: String,
    /// The digest.
    pub sha256: Sha256Digest,
}

/// The manifest first, then every subject in the manifest's order.
#[must_use]
pub fn subjects(manifest: &Manifest, manifest_digest: Sha256Digest) -> Vec<Named> {
    let own = Named { name: format!("{UPLOAD_FOLDER}{MANIFEST_PATH}"), sha256: manifest_digest };
    std::iter::once(own)
        .chain(
            manifest
                .proof_pack
                .subjects
                .iter()
                .map(|subject| Named { name: subject.path.clone(), sha256: subject.sha256 }),
        )
        .collect()
}

/// `subject-checksums.txt`: hex digest, two spaces, path.
#[must_use]
pub fn checksums(subjects: &[Named]) -> String {
    subjects.iter().map(|subject| format!("{}  {}\n", subject.sha256.hex(), subject.name)).collect()
}

/// `statement.intoto.json`: unsigned. `event_name` and `runner_environment` are the job's.
#[must_use]
pub fn statement(
    manifest: &Manifest,
    subjects: &[Named],
    event_name: &str,
    runner_environment: &str,
) -> Value {
    let source = &manifest.source;
    let repository = source
        .run_url
        .split_once("/actions/runs/")
        .map_or_else(|| source.repository.clone(), |(repository, _)| repository.to_owned());
    json!({
        "_type": TYPE,
        "subject": subjects
            .iter()
            .map(|subject| json!({"name": subject.name, "digest": {"sha256": subject.sha256.hex()}}))
            .collect::<Vec<_>>(),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {
                    "workflow": {"ref": source.r#ref, "repository": repository, "path": source.workflow_path},
                },
                "internalParameters": {
                    "github": {"event_name": event_name, "runner_environment": runner_environment},
                },
                "resolvedDependencies": [{
                    "uri": format!("git+{repository}@{}", source.r#ref),
                    "digest": {"gitCommit": source.head_sha},
                }],
            },
            "runDetails": {
                "builder": {"id": format!("{repository}/{}@{}", source.workflow_path, source.r#ref)},
                "metadata": {"invocationId": format!("{}/attempts/{}", source.run_url, source.run_attempt)},
            },
        },
    })
}

/// The in-toto test-result predicate v0.1 over the same subjects: a gate is a test. It follows from the manifest alone,
/// so that `verify` can hold a signed one against it. The predicate knows no test that was skipped or did not end:
/// whatever did not pass stands under `failedTests`.
#[must_use]
pub fn test_result(manifest: &Manifest) -> Value {
    let (passed, failed): (Vec<_>, Vec<_>) =
        manifest.gates.iter().partition(|gate| gate.status == GateStatus::Passed);
    let names = |gates: Vec<&super::manifest::GateRow>| -> Value {
        gates.into_iter().map(|gate| gate.gate.as_str()).collect()
    };
    let all_passed = failed.is_empty() && !passed.is_empty();
    let configuration = manifest.payload_files.iter().filter(|row| is_configuration(&row.path));
    json!({
        "result": if all_passed { "PASSED" } else { "FAILED" },
        "configuration": configuration
            .map(|row| json!({"name": row.path, "digest": {"sha256": row.sha256.hex()}}))
            .collect::<Vec<_>>(),
        "url": manifest.source.run_url,
        "passedTests": names(passed),
        "warnedTests": [],
        "failedTests": names(failed),
    })
}

/// `payload/gates/<gate>/` and what a gate was asked to be and to do.
fn is_configuration(path: &str) -> bool {
    let name =
        path.strip_prefix("payload/gates/").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
    matches!(name, Some("definition.yaml" | "policy.yaml" | "baseline.json"))
}
