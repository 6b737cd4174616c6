//! One request at a time: to the service, and to the blob store behind its signed addresses.

use super::retry::{Clock, Failure};
use super::token::{BackendIds, RuntimeToken};
use super::wire;
use crate::error::{Code, Error, Result};
use crate::github::transport;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, SystemTime};
use url::Url;

/// The blob store's protocol version; one that Azure serves and others ignore.
const BLOB_VERSION: &str = "2024-11-04";
/// Longest answer of the service.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To a connection.
    pub connect: Duration,
    /// For a whole call of the service.
    pub call: Duration,
    /// For a whole block.
    pub block: Duration,
    /// Without a byte while an artifact is read back.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            call: Duration::from_secs(180),
            block: Duration::from_secs(300),
            idle: Duration::from_secs(60),
        }
    }
}

/// The service as one job sees it.
#[derive(Debug)]
pub struct Service {
    http: reqwest::Client,
    origin: String,
    bearer: HeaderValue,
    timeouts: Timeouts,
    /// The job's names.
    pub(super) ids: BackendIds,
}

impl Service {
    /// Prepares calls to the origin of `results_url` (its path is not part of the service's address).
    ///
    /// # Errors
    /// `ArtifactEnvironment` when the address or the token can't be used.
    pub fn new(results_url: &str, token: &RuntimeToken, timeouts: Timeouts) -> Result<Self> {
        let unfit = |name: &str, what: String| Error::new(Code::ArtifactEnvironment, what).at(name);
        let url = Url::parse(results_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                unfit("ACTIONS_RESULTS_URL", "expected an http(s) address, found another text".to_owned())
            })?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal())).map_err(|_| {
            unfit("ACTIONS_RUNTIME_TOKEN", "expected a token of visible characters, found others".to_owned())
        })?;
        bearer.set_sensitive(true);
        Ok(Self {
            http: http_client(timeouts)?,
            origin: url.origin().ascii_serialization(),
            bearer,
            timeouts,
            ids: token.backend_ids()?,
        })
    }

    /// One call of the service.
    pub(super) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: &str,
        request: &Q,
        clock: &dyn Clock,
    ) -> Result<A, Failure> {
        let address = format!("{}/twirp/github.actions.results.api.v1.ArtifactService/{method}", self.origin);
        let body = crate::files::compact(request).map_err(Failure::Final)?;
        let response = self
            .http
            .post(address)
            .header(AUTHORIZATION, self.bearer.clone())
            .header(CONTENT_TYPE, "application/json")
            .timeout(self.timeouts.call)
            .body(body)
            .send()
            .await
            .map_err(|error| again(&error))?;
        let status = response.status();
        let after = retry_after(response.headers(), clock);
        let bytes = bounded(response).await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| Failure::Again {
                why: format!("expected a JSON answer to {method}, found {} ({error})", shown(&bytes)),
                after,
            });
        }
        let refusal: wire::Refusal = serde_json::from_slice(&bytes).unwrap_or_default();
        let why = if refusal.msg.is_empty() {
            format!("{method} was answered with {status} {}", shown(&bytes))
        } else {
            format!("{method} was answered with {status} {}: {}", refusal.code, refusal.msg)
        };
        Err(refused(status, why, after))
    }

    /// Puts one block, or the list of blocks, at a signed address.
    pub(super) async fn put(
        &self,
        signed: &str,
        query: &str,
        list: bool,
        body: Vec<u8>,
        clock: &dyn Clock,
    ) -> Result<(), Failure> {
        // The signature covers the query as it was given; some servers check it with its padding. So nothing is
        // parsed and written anew: the text gets a tail.
        let joint = if signed.contains('?') { '&' } else { '?' };
        let address = format!("{signed}{joint}{query}");
        let mut request = self
            .http
            .put(address)
            .header("x-ms-version", BLOB_VERSION)
            .header("x-ms-client-request-id", uuid())
            .header(CONTENT_LENGTH, body.len())
            .timeout(self.timeouts.block);
        request = if list {
            request
                .header(CONTENT_TYPE, "application/xml")
                .header("x-ms-blob-content-type", "application/zip")
        } else {
            request.header(CONTENT_TYPE, "application/octet-stream")
        };
        let response = request.body(body).send().await.map_err(|error| again(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let after = retry_after(response.headers(), clock);
        let bytes = bounded(response).await.unwrap_or_default();
        let why = format!("the blob store answered {status} {}", shown(&bytes));
        // A signed address that ran out is answered by 401 or 403: a new one helps.
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::CONFLICT => {
                Err(Failure::Again { why, after })
            }
            _ => Err(refused(status, why, after)),
        }
    }

    /// Starts to read what a signed address holds. No token goes along.
    pub(super) async fn get(&self, signed: &str, clock: &dyn Clock) -> Result<Response, Failure> {
        let response = self.http.get(signed).send().await.map_err(|error| again(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = retry_after(response.headers(), clock);
        let bytes = bounded(response).await.unwrap_or_default();
        Err(refused(status, format!("reading back was answered with {status} {}", shown(&bytes)), after))
    }
}

/// A client with the machine's proxies and certificates, and the one TLS implementation that this program has.
///
/// # Errors
/// `Internal` when it can't be made.
fn http_client(timeouts: Timeouts) -> Result<reqwest::Client> {
    transport::client()
        .user_agent(concat!("assay-gates/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .read_timeout(timeouts.idle.max(timeouts.call))
        .build()
        .map_err(|error| {
            Error::new(Code::Internal, format!("cannot prepare an HTTP client: {}", chain(&error)))
        })
}

fn refused(status: StatusCode, why: String, after: Option<Duration>) -> Failure {
    // Quota does not come back within minutes.
    let quota = why.contains("insufficient usage") || why.contains("uota exceeded");
    match status.as_u16() {
        _ if quota => Failure::Final(
            Error::new(Code::ArtifactRefused, why).hint("free artifact storage, or raise its limit"),
        ),
        409 => Failure::Conflict { why },
        404 => Failure::Missing { why },
        408 | 425 | 429 | 500 | 502 | 503 | 504 => Failure::Again { why, after },
        // A proxy in between, not the service: the same request passes a moment later.
        403 if why.contains("intermediary") => Failure::Again { why, after },
        407 => Failure::Final(
            Error::new(Code::ArtifactEnvironment, why)
                .hint("the proxy wants a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
        ),
        _ => Failure::Final(Error::new(Code::ArtifactRefused, why)),
    }
}

/// A request that got no whole answer. The address is left out: a signed one is a key.
fn again(error: &reqwest::Error) -> Failure {
    if let Some((why, advice)) = transport::permanent(error) {
        let what = format!("no connection to the artifact service ({why})");
        return Failure::Final(Error::new(Code::ArtifactEnvironment, what).hint(advice));
    }
    let kind = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    Failure::Again { why: format!("{kind} ({})", chain(error)), after: None }
}

/// The causes of an error, without the error itself: only its head names the address.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.dedup();
    if causes.is_empty() { "no cause given".to_owned() } else { causes.join(": ") }
}

async fn bounded(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| again(&error))? {
        if bytes.len() + chunk.len() > ANSWER_LIMIT {
            return Err(Failure::Again { why: format!("an answer above {ANSWER_LIMIT} bytes"), after: None });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The beginning of an answer that is not what it should be, for a message.
fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(120).collect();
    // A blob store may repeat the address, signature included.
    if text.is_empty() {
        "an empty body".to_owned()
    } else if text.contains("sig=") {
        "a body with an address".to_owned()
    } else {
        format!("{text:?}")
    }
}

fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = chrono::DateTime::parse_from_rfc2822(text).ok()?.into();
    Some(date.duration_since(clock.now()).unwrap_or_default())
}

/// Names blocks: all of one length, none like those of another artifact or attempt.
pub(super) fn block_id(upload: &str, index: u64) -> String {
    STANDARD.encode(format!("{upload}{index:012}"))
}

/// A random (version 4) UUID.
pub(super) fn uuid() -> String {
    let mut bytes = [0_u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Not a secret: unlike other uploads is enough, and the time is that.
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = nanos.to_le_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
