//! Whether what is stored is what was sent: by the service's listing, by its bytes, by the REST API.

use super::client::Service;
use super::retry::{Backoff, Clock, Failure};
use super::upload::{Notice, Proof, Uploaded};
use super::wire;
use crate::error::{Code, Error, Result};
use crate::files::Sha256Digest;
use crate::github::rest::Client;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The artifact of this name in this run, if the service lists one.
pub(super) async fn find(
    service: &Service,
    name: &str,
    clock: &dyn Clock,
) -> Result<Option<wire::Artifact>, Failure> {
    let body = wire::List {
        workflow_run_backend_id: &service.ids.run,
        workflow_job_run_backend_id: &service.ids.job,
        name_filter: name,
    };
    let listed: wire::Listed = service.call("ListArtifacts", &body, clock).await?;
    Ok(listed.artifacts.into_iter().find(|artifact| artifact.name == name))
}

/// Holds a listed artifact against what was sent.
pub(super) async fn confirm(
    service: &Service,
    found: &wire::Artifact,
    digest: Sha256Digest,
    bytes: u64,
    clock: &dyn Clock,
) -> Result<Proof, Failure> {
    let differs = |expected: String, found: String| {
        Failure::Final(
            Error::new(
                Code::ArtifactReadBack,
                format!("expected a stored artifact of {expected}, found {found}"),
            )
            .hint("the pack on disk is unharmed: upload it again with --overwrite"),
        )
    };
    match found.digest.as_deref().filter(|text| !text.is_empty()) {
        Some(stated) => {
            if stated != digest.to_string() || found.size != bytes.to_string() {
                return Err(differs(
                    format!("{bytes} bytes, {digest}"),
                    format!("{} bytes, {stated}", found.size),
                ));
            }
            Ok(Proof::Listing)
        }
        // Servers without digests state sizes that mean something else, too. Their bytes don't lie.
        None => {
            let (stored, length) = download_digest(service, found, clock).await?;
            if stored != digest || length != bytes {
                return Err(differs(format!("{bytes} bytes, {digest}"), format!("{length} bytes, {stored}")));
            }
            Ok(Proof::Download)
        }
    }
}

async fn download_digest(
    service: &Service,
    found: &wire::Artifact,
    clock: &dyn Clock,
) -> Result<(Sha256Digest, u64), Failure> {
    let or = |text: &String, own: &String| if text.is_empty() { own.clone() } else { text.clone() };
    let (run, job) = (
        or(&found.workflow_run_backend_id, &service.ids.run),
        or(&found.workflow_job_run_backend_id, &service.ids.job),
    );
    let body =
        wire::Named { workflow_run_backend_id: &run, workflow_job_run_backend_id: &job, name: &found.name };
    let signed: wire::Signed = service.call("GetSignedArtifactURL", &body, clock).await?;
    if signed.signed_url.is_empty() {
        return Err(Failure::Again { why: "the answer has no address to read from".to_owned(), after: None });
    }
    let mut response = service.get(&signed.signed_url, clock).await?;
    let (mut hasher, mut length) = (Sha256::new(), 0);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                hasher.update(&chunk);
                length += chunk.len() as u64;
            }
            Ok(None) => break,
            Err(_) => {
                return Err(Failure::Again {
                    why: format!("reading back broke off after {length} bytes"),
                    after: None,
                });
            }
        }
    }
    let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
    let digest = digest.parse().map_err(|error: String| Failure::Final(Error::new(Code::Internal, error)))?;
    Ok((digest, length))
}

/// An artifact as the REST API lists it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct RestArtifact {
    /// Id.
    pub id: u64,
    /// Name.
    pub name: String,
    /// Bytes of the zip.
    pub size_in_bytes: u64,
    /// `sha256:…`; absent on some servers.
    #[serde(default)]
    pub digest: Option<String>,
    /// Dropped already.
    #[serde(default)]
    pub expired: bool,
    /// When it will be dropped.
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Deserialize)]
struct RestList {
    artifacts: Vec<RestArtifact>,
}

/// Looks the artifact up through the REST API and compares size and, where there is one, digest.
///
/// # Errors
/// `ArtifactReadBack` when it differs, `ArtifactGaveUp` when it is not listed; what the API gives.
pub async fn compare_rest(
    api: &Client,
    run_id: &str,
    uploaded: &Uploaded,
    backoff: &Backoff,
    clock: &dyn Clock,
    notice: &mut dyn FnMut(Notice),
) -> Result<RestArtifact> {
    let name: String = url::form_urlencoded::byte_serialize(uploaded.name.as_bytes()).collect();
    let path = format!("/actions/runs/{run_id}/artifacts?name={name}&per_page=100");
    let outcome = backoff
        .run("look the artifact up", clock, &mut |text| notice(Notice::Said(text.to_owned())), async || {
            let list: RestList = api.get(&path).await.map_err(Failure::Final)?;
            list.artifacts
                .into_iter()
                .find(|artifact| artifact.id.to_string() == uploaded.artifact_id)
                .ok_or_else(|| Failure::Again {
                    why: "the REST API does not list it".to_owned(),
                    after: None,
                })
        })
        .await;
    let (found, _) = outcome.map_err(|failure| failure.into_error("cannot look the artifact up"))?;
    let stated = found.digest.clone().unwrap_or_else(|| uploaded.digest.to_string());
    if found.size_in_bytes != uploaded.bytes || stated != uploaded.digest.to_string() {
        return Err(Error::new(
            Code::ArtifactReadBack,
            format!(
                "expected {} bytes, {}, found {} bytes, {stated}",
                uploaded.bytes, uploaded.digest, found.size_in_bytes
            ),
        )
        .at(&uploaded.name));
    }
    Ok(found)
}
