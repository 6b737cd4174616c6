//! What a row says of the line that it refers to, and whether that line says the same.
//!
//! A join names a call: lines of its layers carry that call's id, its tool, its decision. A cell names a class of claim: it
//! stands on lines of that class's layer only. What was measured is among the paths that the reference lists.

use crate::judge::scenario::rows::{ArchiveEvidence, MeasuredWrite};
use serde_json::Value;

/// The layers that a class of claim may stand on.
const GROUND: [(&str, &[&str]); 3] = [
    ("reported_tool_intent", &["layers/sdk.ndjson"]),
    ("policy_allow_evidence", &["layers/policy.ndjson"]),
    ("measured_filesystem_effect", &["layers/kernel.ndjson", "tool_effects.json"]),
];
/// What a joined claim may stand on.
const JOINED: [&str; 2] = ["correlation-report.json", "proof-pack-reference.json"];

/// What the row around a reference says.
#[derive(Clone, Debug, Default)]
pub(super) struct Says {
    /// The class of its claim; none for a join.
    pub claim: Option<String>,
    /// The call that decisions and effects carry too; none where only order joins them.
    pub joined: Option<String>,
    /// What the folder's reference says of the archive.
    pub evidence: Option<ArchiveEvidence>,
}

impl Says {
    /// What `value`, found in the file `target`, should be and is not: expected, found.
    pub(super) fn contradiction(&self, target: &str, value: &Value) -> Option<(String, String)> {
        if let Some(claim) = &self.claim {
            let known = GROUND.iter().find(|(class, _)| class == claim).map(|(_, files)| *files);
            let files = known.or_else(|| claim.starts_with("joined_").then_some(&JOINED[..]))?;
            if !files.iter().any(|file| target.ends_with(&format!("/{file}"))) {
                return Some((format!("{claim} to stand on {}", files.join(" or ")), target.to_owned()));
            }
        }
        let evidence = self.evidence.as_ref()?;
        let call = evidence.tool_call_id.as_str();
        let joined = self.joined.as_deref();
        let file = target.rsplit('/').next().unwrap_or_default();
        match file {
            "sdk.ndjson" => differs(
                value,
                &[
                    ("tool_call_id", Some(call)),
                    ("tool", Some(&evidence.tool)),
                    ("sdk_name", Some(&evidence.sdk_name)),
                    ("sdk_version", Some(&evidence.sdk_version)),
                ],
            ),
            "policy.ndjson" => differs(
                value,
                &[
                    ("tool_call_id", joined),
                    ("tool", Some(&evidence.tool)),
                    ("decision", Some(&evidence.policy_decision)),
                ],
            ),
            "correlation-report.json" => differs(
                value,
                &[("tool_call_id", joined), ("policy_decision", Some(&evidence.policy_decision))],
            ),
            "proof-pack-reference.json" => {
                (value.as_str() != Some(call)).then(|| (call.to_owned(), value.to_string()))
            }
            "kernel.ndjson" => measured(evidence, value, "value"),
            "tool_effects.json" => measured(evidence, value, "path"),
            _ => None,
        }
    }
}

/// The first field that is another than stated; those that nothing is stated of may be anything.
fn differs(value: &Value, fields: &[(&str, Option<&str>)]) -> Option<(String, String)> {
    fields.iter().find_map(|(name, stated)| {
        let stated = (*stated)?;
        let found = value.get(*name).and_then(Value::as_str);
        (found != Some(stated)).then(|| (format!("{name} {stated}"), found.unwrap_or("none").to_owned()))
    })
}

/// A measured path is one that the reference lists; the write that makes a gap is that write in every field.
fn measured(evidence: &ArchiveEvidence, value: &Value, field: &str) -> Option<(String, String)> {
    let path = value.get(field).and_then(Value::as_str).unwrap_or("none");
    let MeasuredWrite { path: wrote, kind, access_mode, operation_flags, status } =
        match evidence.measured_write.as_ref().filter(|write| write.path == path) {
            Some(write) => write,
            None if evidence.measured_paths.iter().any(|one| one == path) => return None,
            None => {
                return Some(("a path that the reference lists as measured".to_owned(), path.to_owned()));
            }
        };
    if field != "value" {
        return None;
    }
    let flags = value.get("operation_flags").cloned().unwrap_or_else(|| Value::Array(Vec::new()));
    let stated = Value::from(operation_flags.clone());
    if flags != stated {
        return Some((format!("operation_flags {stated} of {wrote}"), flags.to_string()));
    }
    differs(value, &[("kind", Some(kind)), ("access_mode", Some(access_mode)), ("status", Some(status))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn evidence() -> ArchiveEvidence {
        ArchiveEvidence {
            run_id: "r".into(),
            tool_call_id: "tc_1".into(),
            tool: "read_file".into(),
            sdk_name: "sdk".into(),
            sdk_version: "1".into(),
            policy_decision: "allow".into(),
            kernel_event_count: 2,
            workdir_prefix: "/w/".into(),
            measured_paths: vec!["/w/in".into(), "/w/out".into()],
            measured_write: Some(MeasuredWrite {
                path: "/w/out".into(),
                kind: "openat".into(),
                access_mode: "write".into(),
                operation_flags: vec!["create".into()],
                status: "success".into(),
            }),
        }
    }

    #[test]
    fn a_line_that_says_another_thing_than_the_row_is_a_contradiction() {
        let says = |claim: Option<&str>| Says {
            claim: claim.map(str::to_owned),
            joined: Some("tc_1".into()),
            evidence: Some(evidence()),
        };
        let sdk = json!({"tool_call_id": "tc_1", "tool": "read_file", "sdk_name": "sdk", "sdk_version": "1"});
        let wrote = json!({"value": "/w/out", "kind": "openat", "access_mode": "write",
            "operation_flags": ["create"], "status": "success"});
        let with = |base: &Value, key: &str, value: Value| {
            let mut changed = base.clone();
            changed[key] = value;
            changed
        };
        for (claim, target, value, held) in [
            (None, "e/layers/sdk.ndjson", sdk.clone(), true),
            (None, "e/layers/sdk.ndjson", with(&sdk, "tool_call_id", json!("tc_2")), false),
            (None, "e/layers/sdk.ndjson", with(&sdk, "tool", json!("write_file")), false),
            (Some("reported_tool_intent"), "e/layers/sdk.ndjson", sdk.clone(), true),
            (Some("policy_allow_evidence"), "e/layers/sdk.ndjson", sdk, false),
            (Some("joined_semantic_gap"), "e/layers/kernel.ndjson", wrote.clone(), false),
            (Some("measured_filesystem_effect"), "e/layers/kernel.ndjson", wrote.clone(), true),
            (None, "e/layers/kernel.ndjson", with(&wrote, "access_mode", json!("read")), false),
            (None, "e/layers/kernel.ndjson", with(&wrote, "operation_flags", json!([])), false),
            (None, "e/layers/kernel.ndjson", with(&wrote, "value", json!("/etc/passwd")), false),
            (None, "e/layers/kernel.ndjson", json!({"value": "/w/in"}), true),
            (None, "r/tool_effects.json", json!({"path": "/w/in"}), true),
            (None, "r/tool_effects.json", json!({"path": "/w/other"}), false),
            (
                None,
                "e/correlation-report.json",
                json!({"tool_call_id": "tc_1", "policy_decision": "deny"}),
                false,
            ),
            (None, "r/proof-pack-reference.json", json!("tc_1"), true),
            (None, "r/proof-pack-reference.json", json!("tc_9"), false),
        ] {
            let found = says(claim).contradiction(target, &value);
            assert_eq!(found.is_none(), held, "{claim:?} {target} {value}: {found:?}");
        }
    }
}
