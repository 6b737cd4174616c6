//! The in-toto Statement v1 over a pack's subjects, ready for any signer; and the checksums file over the same.

use super::manifest::{MANIFEST_PATH, Manifest, UPLOAD_FOLDER};
use crate::files::Sha256Digest;
use serde::Serialize;
use serde_json::{Value, json};

/// `_type`.
pub const TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType`.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";

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
