//! The decision log: one CloudEvents 1.0 line per decision.

use super::call_id::ConnectionName;
use super::decision::{Basis, Decision, Outcome, Reason};
use crate::error::{Code, Error, Result};
use crate::files::{Sha256Digest, compact};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;

/// CloudEvents type of a decision.
pub const DECISION_TYPE: &str = "assay.tool.decision";

/// What every line of one proxy has in common.
#[derive(Clone, Debug)]
pub struct Origin {
    /// CloudEvents source, a URI.
    pub source: String,
    /// A name for the wrapped server.
    pub label: String,
    /// Digest of the policy file.
    pub policy_digest: Sha256Digest,
    /// Names the connection in the ids of calls whose caller gave none; none where nobody counts connections.
    pub connection: Option<ConnectionName>,
}

/// The call that a line is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The tool.
    pub tool: &'a str,
    /// What joins the line to other layers.
    pub tool_call_id: &'a str,
    /// Name of the rule that gave that id.
    pub rule: &'a str,
    /// The JSON-RPC id; null when it can't be known.
    pub request_id: &'a Value,
    /// Digest of the request's bytes without the line's end: which request was decided on.
    pub request_digest: Sha256Digest,
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: String,
    r#type: &'static str,
    source: &'a str,
    time: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    tool: &'a str,
    match_basis: Basis,
    matched_rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typed_decision: Option<&'static str>,
    policy_version: &'static str,
    policy_digest: Sha256Digest,
    obligations: &'static [Obligation],
    label: &'a str,
    request_digest: Sha256Digest,
    tool_call_id_rule: &'a str,
    decision: Outcome,
    reason_code: Reason,
    reason: &'a str,
    tool_call_id: &'a str,
    request_id: &'a Value,
}

/// What an allowed call obliges whoever measures to.
#[derive(Serialize)]
struct Obligation {
    r#type: &'static str,
}

/// Of a call that nothing constrains: what it does is to be observed.
const OBSERVE_EFFECTS: &[Obligation] = &[Obligation { r#type: "observe_effects" }];

/// The line of one decision, without a line feed.
///
/// # Errors
/// `Internal` when the system has no random bytes for its id.
pub fn line(
    origin: &Origin,
    subject: &Subject<'_>,
    decision: &Decision,
    now: DateTime<Utc>,
) -> Result<String> {
    compact(&Envelope {
        specversion: "1.0",
        id: format!("evt_decision_{}", uuid()?),
        r#type: DECISION_TYPE,
        source: &origin.source,
        time: now.to_rfc3339_opts(SecondsFormat::Nanos, false),
        data: Data {
            tool: subject.tool,
            match_basis: decision.basis,
            matched_rule: decision.rule.as_deref(),
            typed_decision: decision.typed(),
            policy_version: "v0",
            policy_digest: origin.policy_digest,
            obligations: if decision.typed() == Some("allow_with_obligations") {
                OBSERVE_EFFECTS
            } else {
                &[]
            },
            label: &origin.label,
            request_digest: subject.request_digest,
            tool_call_id_rule: subject.rule,
            decision: decision.outcome,
            reason_code: decision.reason,
            reason: &decision.text,
            tool_call_id: subject.tool_call_id,
            request_id: subject.request_id,
        },
    })
}

/// A random UUID (version 4).
fn uuid() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no random bytes: {error}")))?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    Ok(format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_has_the_contracts_keys_in_the_contracts_order() {
        let digest = crate::files::sha256(b"x");
        let origin = Origin {
            source: "assay://runner-spike/r".into(),
            label: "fs".into(),
            policy_digest: digest,
            connection: None,
        };
        let decision = Decision {
            outcome: Outcome::Allow,
            reason: Reason::Unconstrained,
            text: "ok".into(),
            basis: Basis::Name,
            rule: Some("tools.allow: read_file".into()),
        };
        let request_id = json!(3);
        let subject = Subject {
            tool: "read_file",
            tool_call_id: "tc\n1",
            rule: "meta",
            request_id: &request_id,
            request_digest: digest,
        };
        let now = DateTime::from_timestamp(1_700_000_000, 5).unwrap();
        let text = line(&origin, &subject, &decision, now).unwrap();
        assert!(!text.contains('\n'));
        let value: Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["specversion", "id", "type", "source", "time", "data"]);
        let data: Vec<&str> = value["data"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(data.first(), Some(&"tool"));
        let tail = ["decision", "reason_code", "reason", "tool_call_id", "request_id"];
        assert_eq!(data[data.len() - tail.len()..], tail);
        assert_eq!(value["time"], "2023-11-14T22:13:20.000000005+00:00");
        assert_eq!(value["type"], "assay.tool.decision");
        assert_eq!(value["data"]["typed_decision"], "allow_with_obligations");
        assert_eq!(value["data"]["obligations"], json!([{"type": "observe_effects"}]));
        assert_eq!(value["data"]["policy_digest"], digest.to_string());
        let id = value["id"].as_str().unwrap().strip_prefix("evt_decision_").unwrap();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
