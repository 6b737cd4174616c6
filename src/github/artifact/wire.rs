//! Requests and answers of the service, in the spelling that all its implementations take.

use serde::{Deserialize, Deserializer, Serialize};

/// The version whose rules need no `mime_type`.
pub const VERSION: i32 = 4;

#[derive(Clone, Debug, Serialize)]
pub struct Create<'a> {
    pub workflow_run_backend_id: &'a str,
    pub workflow_job_run_backend_id: &'a str,
    pub name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<&'a str>,
    pub version: i32,
}

#[derive(Debug, Deserialize)]
pub struct Created {
    #[serde(default)]
    pub ok: bool,
    #[serde(alias = "signedUploadUrl", default)]
    pub signed_upload_url: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Finalize<'a> {
    pub workflow_run_backend_id: &'a str,
    pub workflow_job_run_backend_id: &'a str,
    pub name: &'a str,
    /// int64 in JSON is a string.
    pub size: String,
    pub hash: String,
}

/// Answer to finalize and to delete.
#[derive(Debug, Deserialize)]
pub struct Done {
    #[serde(default)]
    pub ok: bool,
    #[serde(alias = "artifactId", default, deserialize_with = "number_or_text")]
    pub artifact_id: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct List<'a> {
    pub workflow_run_backend_id: &'a str,
    pub workflow_job_run_backend_id: &'a str,
    pub name_filter: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct Listed {
    #[serde(default)]
    pub artifacts: Vec<Artifact>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Artifact {
    #[serde(alias = "workflowRunBackendId", default)]
    pub workflow_run_backend_id: String,
    #[serde(alias = "workflowJobRunBackendId", default)]
    pub workflow_job_run_backend_id: String,
    #[serde(alias = "databaseId", default, deserialize_with = "number_or_text")]
    pub database_id: String,
    pub name: String,
    #[serde(default, deserialize_with = "number_or_text")]
    pub size: String,
    #[serde(default)]
    pub digest: Option<String>,
}

/// Names one artifact: for its deletion, and for its signed address.
#[derive(Clone, Debug, Serialize)]
pub struct Named<'a> {
    pub workflow_run_backend_id: &'a str,
    pub workflow_job_run_backend_id: &'a str,
    pub name: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct Signed {
    #[serde(alias = "signedUrl", default)]
    pub signed_url: String,
}

/// What a twirp server says when it refuses.
#[derive(Debug, Default, Deserialize)]
pub struct Refusal {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub msg: String,
}

/// protojson writes int64 as text; some servers write a number.
fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(i64),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Text(text) => text,
        Either::Number(number) => number.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_both_spellings_and_unknown_fields_are_ignored() {
        for text in [
            r#"{"ok":true,"signed_upload_url":"https://x/?sig=a%3D","new":1}"#,
            r#"{"ok":true, "signedUploadUrl":"https://x/?sig=a%3D"}"#,
        ] {
            let created: Created = serde_json::from_str(text).unwrap();
            assert!(created.ok && created.signed_upload_url.ends_with("a%3D"));
        }
        for text in [r#"{"ok":true,"artifact_id":"7"}"#, r#"{"ok":true,"artifactId":7}"#] {
            assert_eq!(serde_json::from_str::<Done>(text).unwrap().artifact_id, "7");
        }
    }
}
