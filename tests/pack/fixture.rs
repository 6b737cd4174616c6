//! A small proof root, as `run` leaves one, and the provenance that goes with it.

use assay_gates::pack::{BuiltObject, Provenance};
use std::collections::BTreeMap;
use std::path::Path;

/// Facts of a dispatch, without git and without a clock.
pub fn provenance() -> Provenance {
    let variables: BTreeMap<&str, &str> = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "owner/name"),
        ("GITHUB_SHA", "0123456789012345678901234567890123456789"),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_WORKFLOW", "Gates"),
        ("GITHUB_WORKFLOW_REF", "owner/name/.github/workflows/gates.yml@refs/heads/main"),
        ("GITHUB_WORKFLOW_SHA", "0123456789012345678901234567890123456789"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_EVENT_NAME", "workflow_dispatch"),
        ("RUNNER_ENVIRONMENT", "self-hosted"),
    ]
    .into();
    let object = BuiltObject {
        bytes: b"\x7fELF a stand-in for the kernel programs".to_vec(),
        compiler: "clang version 14.0.6".to_owned(),
        flags: "-O2 -g -target bpf".to_owned(),
        sources: BTreeMap::new(),
    };
    Provenance::gather(
        |name| variables.get(name).map(|value| (*value).to_owned()),
        Some(r#"{"inputs":{"gates":"all","build_ebpf":"true"}}"#),
        Path::new("/nonexistent"),
        Some(object),
    )
}

/// Writes `text` below `root`, folders included.
pub fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let place = root.join(path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, text).unwrap();
}

/// `run.json` with these gates.
pub fn run_record(root: &Path, gates: &[&str]) {
    let record = serde_json::json!({
        "schema": "assay.gates.run.v0", "session": "s", "started_at": "2026-11-21T10:00:00.5Z",
        "gates": gates, "selection": "all",
    });
    put(root, "run.json", record.to_string());
}
