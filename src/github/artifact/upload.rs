//! From a zip on disk to a stored artifact that is known to be that zip.

use super::client::{Service, block_id, uuid};
use super::limits::{self, ARTIFACTS_PER_JOB};
use super::readback;
use super::retry::{Backoff, Clock, Failure};
use super::wire;
use crate::error::{Code, Error, Result};
use crate::files::Sha256Digest;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use url::form_urlencoded::byte_serialize;

/// Bytes of a block, as the official client has them.
const BLOCK: usize = 8 * 1024 * 1024;

/// What to upload, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the artifact.
    pub name: String,
    /// The zip.
    pub zip: PathBuf,
    /// Days to keep it, already capped; `None` leaves it to the repository.
    pub retention_days: Option<u32>,
    /// Replace an artifact of that name.
    pub overwrite: bool,
}

/// What happens meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something to keep out of logs, before anything else is said.
    Mask(String),
    /// An attempt failed, or another way was taken.
    Said(String),
    /// Bytes that the blob store has taken, of all.
    Sent(u64, u64),
}

/// Who says that the stored artifact is the zip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The service's own listing has the same digest and size.
    Listing,
    /// The listing has no digest: every byte was read back and digested.
    Download,
}

/// A stored artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Id within the service and in the REST API.
    pub artifact_id: String,
    /// Its name.
    pub name: String,
    /// Bytes of the zip.
    pub bytes: u64,
    /// Digest of the zip.
    pub digest: Sha256Digest,
    /// When the service will drop it, when that was asked for.
    pub expires_at: Option<String>,
    /// Who confirmed it.
    pub proof: Proof,
    /// The answer to finalize was lost or refused, and the artifact was there all the same.
    pub recovered: bool,
}

struct Session<'a> {
    service: &'a Service,
    request: &'a Request,
    backoff: &'a Backoff,
    clock: &'a dyn Clock,
    notice: &'a mut dyn FnMut(Notice),
    expires_at: Option<String>,
}

/// Uploads `request.zip` and reads it back.
///
/// # Errors
/// `ArtifactName`, `ArtifactExists`, `ArtifactRefused`, `ArtifactGaveUp`, `ArtifactReadBack`; `PackChanged` when the zip
/// changed meanwhile; `Io`.
pub async fn upload(
    service: &Service,
    request: &Request,
    backoff: &Backoff,
    clock: &dyn Clock,
    notice: &mut dyn FnMut(Notice),
) -> Result<Uploaded> {
    limits::check_name(&request.name)?;
    let expires_at = request.retention_days.map(|days| limits::expiry(clock.now().into(), days));
    let mut session = Session { service, request, backoff, clock, notice, expires_at };
    session.run().await
}

impl Session<'_> {
    async fn run(&mut self) -> Result<Uploaded> {
        let known_absent = self.clear_name().await?;
        let mut signed = self.create(known_absent).await?;
        let mut attempt = 1;
        // A block that may have arrived can't be sent again to every server: some append it twice. So a broken upload
        // begins anew, with a new address where the service gives one, and with new block ids.
        let (digest, bytes) = loop {
            match self.send(&signed).await {
                Ok(sent) => break sent,
                Err(failure) => {
                    attempt += 1;
                    self.pause("upload", attempt, failure).await?;
                    signed = self.create_again(signed).await?;
                }
            }
        };
        let (artifact_id, recovered) = self.finalize(digest, bytes).await?;
        let (artifact_id, proof) = self.read_back(artifact_id, digest, bytes).await?;
        Ok(Uploaded {
            artifact_id,
            name: self.request.name.clone(),
            bytes,
            digest,
            expires_at: self.expires_at.clone(),
            proof,
            recovered,
        })
    }

    /// Makes sure that the name is free, or frees it. True when the service said that nothing has it.
    async fn clear_name(&mut self) -> Result<bool> {
        // Servers differ in what they do with a name that is taken (refuse, replace, append); asking first is the same
        // everywhere. One that can't list before the first artifact exists drops the connection: then creation decides.
        let found = match readback::find(self.service, &self.request.name, self.clock).await {
            Ok(found) => found,
            Err(Failure::Missing { .. }) => None,
            // What keeps every connection from being made keeps the next one too.
            Err(Failure::Final(error)) if error.code() == Code::ArtifactEnvironment => return Err(error),
            Err(failure) => {
                self.say(format!("artifacts of this run could not be listed beforehand: {}", failure.why()));
                if self.request.overwrite {
                    self.delete().await?;
                }
                return Ok(false);
            }
        };
        match found {
            None => Ok(true),
            Some(_) if self.request.overwrite => {
                self.delete().await?;
                Ok(true)
            }
            Some(artifact) => Err(exists(&self.request.name, &artifact.database_id)),
        }
    }

    async fn delete(&mut self) -> Result<()> {
        let body = wire::Named {
            workflow_run_backend_id: &self.service.ids.run,
            workflow_job_run_backend_id: &self.service.ids.job,
            name: &self.request.name,
        };
        let (service, clock) = (self.service, self.clock);
        let notice = &mut *self.notice;
        let outcome = self
            .backoff
            .run(
                "delete the earlier artifact",
                clock,
                &mut |text| notice(Notice::Said(text.to_owned())),
                async || service.call::<_, wire::Done>("DeleteArtifact", &body, clock).await,
            )
            .await;
        match outcome {
            Ok((answer, _)) if answer.ok => Ok(()),
            Ok(_) => {
                Err(Error::new(Code::ArtifactRefused, "the service did not delete the earlier artifact")
                    .at(&self.request.name))
            }
            Err(Failure::Missing { .. }) => Ok(()),
            Err(failure) => Err(failure.into_error("cannot delete the earlier artifact")),
        }
    }

    /// A signed address for a new artifact.
    async fn create(&mut self, known_absent: bool) -> Result<String> {
        match self.try_create().await {
            Ok((signed, _)) => Ok(signed),
            // An answer was lost, and then the name was taken: by that very request, for it was free before.
            Err((Failure::Conflict { .. }, attempts)) if attempts > 1 && known_absent => {
                self.say(
                    "the name was taken by an attempt of ours whose answer was lost; starting over"
                        .to_owned(),
                );
                self.delete().await?;
                let again = self.try_create().await;
                again
                    .map(|(signed, _)| signed)
                    .map_err(|(failure, _)| failure.into_error("cannot create the artifact"))
            }
            Err((Failure::Conflict { .. }, _)) => Err(exists(&self.request.name, "")),
            Err((failure, _)) => {
                let error = failure.into_error("cannot create the artifact");
                Err(match error.advice() {
                    Some(_) => error,
                    None => error
                        .hint(format!("the service keeps at most {ARTIFACTS_PER_JOB} artifacts of a job")),
                })
            }
        }
    }

    /// A new address after a broken upload; where the service won't give one for a name that it has, the earlier one.
    async fn create_again(&mut self, earlier: String) -> Result<String> {
        match self.try_create().await {
            Ok((signed, _)) => Ok(signed),
            Err((Failure::Conflict { .. }, _)) => Ok(earlier),
            Err((failure, _)) => Err(failure.into_error("cannot begin the upload again")),
        }
    }

    async fn try_create(&mut self) -> Result<(String, u32), (Failure, u32)> {
        let body = wire::Create {
            workflow_run_backend_id: &self.service.ids.run,
            workflow_job_run_backend_id: &self.service.ids.job,
            name: &self.request.name,
            expires_at: self.expires_at.as_deref(),
            version: wire::VERSION,
        };
        let (service, clock) = (self.service, self.clock);
        let notice = &mut *self.notice;
        let mut attempts = 0;
        let outcome = self
            .backoff
            .run(
                "create the artifact",
                clock,
                &mut |text| notice(Notice::Said(text.to_owned())),
                async || {
                    attempts += 1;
                    let created: wire::Created = service.call("CreateArtifact", &body, clock).await?;
                    if !created.ok || created.signed_upload_url.is_empty() {
                        return Err(Failure::Again {
                            why: "the answer has no address to upload to".to_owned(),
                            after: None,
                        });
                    }
                    Ok(created.signed_upload_url)
                },
            )
            .await;
        match outcome {
            Ok((signed, _)) => {
                for mask in masks(&signed) {
                    (self.notice)(Notice::Mask(mask));
                }
                Ok((signed, attempts))
            }
            Err(failure) => Err((failure, attempts)),
        }
    }

    /// Sends every block and the list of them; digests on the way.
    async fn send(&mut self, signed: &str) -> Result<(Sha256Digest, u64), Failure> {
        let path = self.request.zip.clone();
        let mut file = open(&path).map_err(Failure::Final)?;
        let total = file
            .seek(SeekFrom::End(0))
            .and_then(|length| file.rewind().map(|()| length))
            .map_err(|error| Failure::Final(Error::io("cannot read", &path, error)))?;
        let upload = uuid();
        let (mut hasher, mut sent, mut ids) = (Sha256::new(), 0_u64, Vec::new());
        while sent < total {
            let block = read_block(&mut file)
                .map_err(|error| Failure::Final(Error::io("cannot read", &path, error)))?;
            if block.is_empty() {
                break;
            }
            hasher.update(&block);
            let id = block_id(&upload, ids.len() as u64);
            let escaped: String = byte_serialize(id.as_bytes()).collect();
            let length = block.len() as u64;
            self.service
                .put(signed, &format!("comp=block&blockid={escaped}"), false, block, self.clock)
                .await?;
            sent += length;
            ids.push(id);
            (self.notice)(Notice::Sent(sent, total));
        }
        if sent != total {
            return Err(Failure::Final(
                Error::new(Code::PackChanged, format!("expected {total} bytes, found {sent}"))
                    .at(path.display()),
            ));
        }
        let list = block_list(&ids);
        let (service, clock) = (self.service, self.clock);
        let notice = &mut *self.notice;
        // The list may be sent twice: it says the same both times.
        self.backoff
            .run("list the blocks", clock, &mut |text| notice(Notice::Said(text.to_owned())), async || {
                service.put(signed, "comp=blocklist", true, list.clone().into_bytes(), clock).await
            })
            .await?;
        let digest = format!("sha256:{}", hex::encode(hasher.finalize()));
        let digest =
            digest.parse().map_err(|error: String| Failure::Final(Error::new(Code::Internal, error)))?;
        Ok((digest, total))
    }

    /// Says that all is there. When the answer is lost or refused although the blob is stored, the listing decides.
    async fn finalize(&mut self, digest: Sha256Digest, bytes: u64) -> Result<(String, bool)> {
        let service = self.service;
        let body = wire::Finalize {
            workflow_run_backend_id: &service.ids.run,
            workflow_job_run_backend_id: &service.ids.job,
            name: &self.request.name,
            size: bytes.to_string(),
            hash: digest.to_string(),
        };
        let mut attempt = 1;
        loop {
            let failure = match service.call::<_, wire::Done>("FinalizeArtifact", &body, self.clock).await {
                Ok(done) if done.ok => return Ok((done.artifact_id, false)),
                Ok(_) => Failure::Again { why: "the answer says that it is not ok".to_owned(), after: None },
                Err(failure) => failure,
            };
            if let Some(id) = self.stored(digest, bytes).await {
                self.say(format!("finalize: {}; the artifact is stored all the same", failure.why()));
                return Ok((id, true));
            }
            attempt += 1;
            self.pause("finalize", attempt, failure).await?;
        }
    }

    /// The id of the artifact when the service has it with this very content.
    async fn stored(&mut self, digest: Sha256Digest, bytes: u64) -> Option<String> {
        let found = readback::find(self.service, &self.request.name, self.clock).await.ok()??;
        readback::confirm(self.service, &found, digest, bytes, self.clock).await.ok()?;
        Some(found.database_id)
    }

    /// Lists and compares; where the listing has no digest, reads every byte back.
    async fn read_back(&mut self, id: String, digest: Sha256Digest, bytes: u64) -> Result<(String, Proof)> {
        let (service, clock, name) = (self.service, self.clock, &self.request.name);
        let notice = &mut *self.notice;
        let outcome = self
            .backoff
            .run(
                "read the artifact back",
                clock,
                &mut |text| notice(Notice::Said(text.to_owned())),
                async || {
                    match readback::find(service, name, clock).await {
                        Ok(Some(found)) => readback::confirm(service, &found, digest, bytes, clock)
                            .await
                            .map(|proof| (found, proof)),
                        // It was stored a moment ago: a listing may need a moment more.
                        Ok(None) | Err(Failure::Missing { .. }) => Err(Failure::Again {
                            why: "the service does not list it".to_owned(),
                            after: None,
                        }),
                        Err(failure) => Err(failure),
                    }
                },
            )
            .await;
        let ((found, proof), _) =
            outcome.map_err(|failure| failure.into_error("cannot read the artifact back"))?;
        if !id.is_empty() && !found.database_id.is_empty() && found.database_id != id {
            return Err(Error::new(
                Code::ArtifactReadBack,
                format!("expected the artifact {id}, found {} under its name", found.database_id),
            )
            .at(name));
        }
        Ok((if id.is_empty() { found.database_id } else { id }, proof))
    }

    async fn pause(&mut self, what: &str, next: u32, failure: Failure) -> Result<()> {
        let notice = &mut *self.notice;
        self.backoff
            .wait(what, next, failure, self.clock, &mut |text| notice(Notice::Said(text.to_owned())))
            .await
            .map_err(|failure| failure.into_error(what))
    }

    fn say(&mut self, text: String) {
        (self.notice)(Notice::Said(text));
    }
}

fn exists(name: &str, id: &str) -> Error {
    let id = if id.is_empty() { String::new() } else { format!(" (id {id})") };
    Error::new(Code::ArtifactExists, format!("this run has an artifact {name}{id} already"))
        .at(name)
        .hint("add --overwrite to replace it, or choose another --name")
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| Error::io("cannot open", path, error))
}

fn read_block(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    file.take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

fn block_list(ids: &[String]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?><BlockList>");
    for id in ids {
        text.push_str("<Latest>");
        text.push_str(id);
        text.push_str("</Latest>");
    }
    text.push_str("</BlockList>");
    text
}

/// What must not be seen of a signed address: its signature, as it stands and decoded.
fn masks(signed: &str) -> Vec<String> {
    let query = signed.split_once('?').map_or("", |(_, query)| query);
    let Some(raw) = query.split('&').find_map(|pair| pair.strip_prefix("sig=")) else { return Vec::new() };
    let decoded: String = url::form_urlencoded::parse(format!("s={raw}").as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect();
    let mut masks = vec![raw.to_owned()];
    if decoded != raw {
        masks.push(decoded);
    }
    masks.retain(|mask| !mask.is_empty());
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_masked_in_both_forms() {
        assert_eq!(masks("https://x/a?se=1&sig=ab%2Bc%3D&sp=cw"), ["ab%2Bc%3D", "ab+c="]);
        assert_eq!(masks("https://x/a?sig=abc"), ["abc"]);
        assert!(masks("https://x/a").is_empty());
    }
}
