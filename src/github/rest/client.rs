//! Requests, their retries, and what answers mean.

use crate::error::{Code, Error, Result};
use crate::files::unlike_text;
use crate::github::transport;
use chrono::{DateTime, Utc};
use octocrab::{Octocrab, service::middleware::retry::RetryConfig};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Mutex;
use std::time::Duration;

/// Tries of a GET.
const TRIES: u32 = 5;
/// JSON answers are smaller than this.
const LARGEST_JSON: usize = 32 << 20;

/// Where and how to ask.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://api.github.com`, or `https://HOST/api/v3` of a GitHub Enterprise Server.
    pub base_url: String,
    /// `owner/name`.
    pub repository: String,
    /// The token; without one only public data, at a low rate.
    pub token: Option<String>,
    /// How long to wait, at most, until a rate limit ends.
    pub patience: Duration,
}

/// A connection to one repository's API.
pub struct Client {
    crab: Octocrab,
    pub(super) repository: String,
    patience: Duration,
    enterprise_server: bool,
    has_token: bool,
    server_time: Mutex<Option<DateTime<Utc>>>,
}

/// What became of a POST that was sent once.
#[derive(Clone, Debug, PartialEq)]
pub enum Posted {
    /// 2xx, with the body if it is JSON.
    Taken(serde_json::Value),
    /// GitHub says no: status and message.
    Refused(u16, String),
    /// GitHub limits the rate: how long to wait, and the message. As a rule it was not done.
    Limited(Duration, String),
    /// The answer doesn't tell whether it was done.
    Unclear(String),
}

impl Client {
    /// Connects to nothing yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `GithubRepository` for a repository that isn't `owner/name`; `Usage` for a base URL that isn't one.
    pub fn new(settings: Settings) -> Result<Self> {
        let fits = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !part.starts_with('.')
        };
        if !settings.repository.split_once('/').is_some_and(|(owner, name)| fits(owner) && fits(name)) {
            let wrong = format!("expected a repository as owner/name, found {:?}", settings.repository);
            return Err(Error::new(Code::GithubRepository, wrong));
        }
        let base = url::Url::parse(&settings.base_url).map_err(|error| {
            Error::new(Code::Usage, format!("{:?} is no base URL: {error}", settings.base_url))
        })?;
        let host = base.host_str().unwrap_or_default().to_owned();
        let mut http = transport::client()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30));
        if matches!(host.as_str(), "127.0.0.1" | "[::1]" | "localhost") {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| unreachable(&error.to_string()))?;
        let mut builder = Octocrab::builder()
            .base_uri(base.as_str().trim_end_matches('/'))
            .map_err(|error| Error::new(Code::Usage, format!("{base} is no base URL: {error}")))?
            .add_retry_config(RetryConfig::None);
        let has_token = settings.token.is_some();
        if let Some(token) = settings.token {
            builder = builder.personal_token(token);
        }
        let crab = builder.build_with_reqwest(http).map_err(|error| unreachable(&text_of(&error)))?;
        Ok(Self {
            crab,
            repository: settings.repository,
            patience: settings.patience,
            enterprise_server: base.path().trim_end_matches('/').ends_with("/api/v3"),
            has_token,
            server_time: Mutex::new(None),
        })
    }

    /// `owner/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The server is a GitHub Enterprise Server.
    #[must_use]
    pub fn is_enterprise_server(&self) -> bool {
        self.enterprise_server
    }

    /// The clock of the server, as its last answer told it.
    #[must_use]
    pub fn server_time(&self) -> Option<DateTime<Utc>> {
        self.server_time.lock().ok().and_then(|time| *time)
    }

    /// GETs `path` below the repository, e.g. `/actions/runs/1`.
    ///
    /// # Errors
    /// `GithubNotFound`, `GithubRefused`, `GithubRateLimited`, `GithubUnreachable`; `GithubAnswer` for JSON that
    /// doesn't fit.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut last = None;
        for attempt in 0..TRIES {
            let response = match self.open(path, attempt).await? {
                Ok(response) => response,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            match body(response).await {
                // What stands between, a proxy or a page of GitHub's own troubles, may be gone a moment later.
                Ok(bytes) => match unlike_text(&bytes) {
                    Some(what) if !bytes.starts_with(b"{") => last = Some(not_github(path, &what)),
                    _ => {
                        return serde_json::from_slice(&bytes).map_err(|error| {
                            let what = format!("unexpected answer to GET {path}: {error}");
                            Error::new(Code::GithubAnswer, what)
                        });
                    }
                },
                Err(error) => last = Some(unreachable(&error)),
            }
        }
        Err(last.unwrap_or_else(|| unreachable("no answer")))
    }

    /// One try of a GET. The outer error is final; after the inner one the next try may go better.
    pub(super) async fn open(&self, path: &str, attempt: u32) -> Result<Result<reqwest::Response>> {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(250 << (attempt - 1).min(5))).await;
        }
        let response = match self.crab._get(self.route(path)).await {
            Ok(response) => reqwest::Response::from(response.map(reqwest::Body::wrap)),
            Err(error) => {
                return match transport::permanent(&error) {
                    Some((why, advice)) => Err(unreachable(&why).hint(advice)),
                    None => Ok(Err(unreachable(&text_of(&error)))),
                };
            }
        };
        self.note_time(response.headers());
        let status = response.status();
        if status.is_success() {
            let html = response
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
            return Ok(if html { Err(not_github(path, "an HTML page")) } else { Ok(response) });
        }
        let headers = response.headers().clone();
        let url_host = response.url().host_str().map(str::to_owned);
        let message = message(response).await;
        let limited = limit(status, &headers, &message, attempt, Utc::now());
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(unreachable(&format!("{status}: {message}"))
                .hint("the proxy wants a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"));
        }
        if let Some(wait) = limited {
            let error = rate_limited(wait, &message);
            if wait > self.patience || attempt + 1 >= TRIES {
                return Err(error);
            }
            tracing::info!(seconds = wait.as_secs(), "waiting for the rate limit");
            tokio::time::sleep(wait).await;
            return Ok(Err(error));
        }
        if status.is_server_error() {
            let host = url_host.unwrap_or_default();
            return Ok(Err(unreachable(&format!("{host} answered {status} to GET {path}: {message}"))));
        }
        Err(self.refusal(status, path, &message))
    }

    /// POSTs once. Whatever comes back, it is not sent again.
    ///
    /// # Errors
    /// `Internal` when the body can't be serialised.
    pub async fn post_once<B: Serialize + ?Sized>(&self, path: &str, body_to_send: &B) -> Result<Posted> {
        let response = match self.crab._post(self.route(path), Some(body_to_send)).await {
            Ok(response) => reqwest::Response::from(response.map(reqwest::Body::wrap)),
            Err(octocrab::Error::Serde { source, .. }) => {
                return Err(Error::new(Code::Internal, format!("cannot serialise: {source}")));
            }
            Err(error) => return Ok(Posted::Unclear(text_of(&error))),
        };
        self.note_time(response.headers());
        let status = response.status();
        if status.is_success() {
            // The status alone says that it was taken.
            let bytes = body(response).await.unwrap_or_default();
            return Ok(Posted::Taken(serde_json::from_slice(&bytes).unwrap_or_default()));
        }
        let refused = matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 409 | 410 | 413 | 415 | 422);
        let headers = response.headers().clone();
        let message = message(response).await;
        match limit(status, &headers, &message, 0, Utc::now()) {
            Some(wait) => Ok(Posted::Limited(wait, message)),
            None if refused => Ok(Posted::Refused(status.as_u16(), message)),
            None => Ok(Posted::Unclear(format!("{status}: {message}"))),
        }
    }

    fn route(&self, path: &str) -> String {
        format!("/repos/{}{path}", self.repository)
    }

    fn note_time(&self, headers: &HeaderMap) {
        let date = headers.get("date").and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok());
        if let (Some(date), Ok(mut time)) = (date, self.server_time.lock()) {
            *time = Some(date.with_timezone(&Utc));
        }
    }

    fn refusal(&self, status: StatusCode, path: &str, message: &str) -> Error {
        let permission = permission(path);
        let what = format!("GET {path} of {}: {status}: {message}", self.repository);
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let missing = Error::new(Code::GithubNotFound, what);
                if self.has_token {
                    missing.hint(format!("a private repository is hidden from a token without {permission}"))
                } else {
                    missing.hint("a private repository needs a token: export GH_TOKEN=$(gh auth token)")
                }
            }
            StatusCode::UNAUTHORIZED => {
                Error::new(Code::GithubToken, what).hint("export GH_TOKEN=$(gh auth token)")
            }
            _ => Error::new(Code::GithubRefused, what)
                .hint(format!("the token needs the permission {permission}")),
        }
    }
}

/// The fine-grained permission that a route needs.
fn permission(path: &str) -> &'static str {
    let words = [
        ("/actions/runners", "administration: read"),
        ("/dispatches", "actions: write"),
        ("/actions", "actions: read"),
        ("/check-runs", "checks: read"),
        ("/statuses", "commit statuses: write"),
    ];
    words.iter().find(|(part, _)| path.contains(part)).map_or("contents: read", |(_, permission)| permission)
}

/// How long to wait when the answer is a rate limit, as GitHub's documentation says: what `Retry-After` asks for; else,
/// when the quota is used up, until it is filled again; else a minute at least, and longer each time.
fn limit(
    status: StatusCode,
    headers: &HeaderMap,
    message: &str,
    attempt: u32,
    now: DateTime<Utc>,
) -> Option<Duration> {
    if !matches!(status.as_u16(), 403 | 429) {
        return None;
    }
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |name: &str| text(name)?.parse::<i64>().ok();
    let seconds = |seconds: i64| Some(Duration::from_secs(seconds.clamp(0, 86_400).unsigned_abs()));
    if let Some(asked) = text("retry-after") {
        let date = || Some(DateTime::parse_from_rfc2822(asked).ok()?.timestamp() - now.timestamp());
        if let Some(asked) = asked.parse().ok().or_else(date) {
            return seconds(asked);
        }
    }
    if number("x-ratelimit-remaining") == Some(0) {
        return seconds(number("x-ratelimit-reset").map_or(60, |reset| reset - now.timestamp() + 1));
    }
    let words = ["secondary rate limit", "rate limit exceeded", "abuse detection", "too many requests"];
    let message = message.to_lowercase();
    let limited = status == StatusCode::TOO_MANY_REQUESTS || words.iter().any(|word| message.contains(word));
    limited.then(|| Duration::from_secs(60 << attempt.min(5)))
}

fn not_github(path: &str, what: &str) -> Error {
    Error::new(Code::GithubAnswer, format!("expected an answer of GitHub's API to GET {path}, found {what}"))
        .hint("a proxy or a login page stands between: check HTTPS_PROXY, NO_PROXY and --api-url")
}

pub(super) fn rate_limited(wait: Duration, message: &str) -> Error {
    let minutes = wait.as_secs().div_ceil(60);
    Error::new(Code::GithubRateLimited, format!("the rate limit ends in {minutes} min: {message}"))
        .hint("a token has a higher limit: export GH_TOKEN=$(gh auth token)")
}

pub(super) fn unreachable(what: &str) -> Error {
    Error::new(Code::GithubUnreachable, what.to_owned())
}

/// The innermost cause says most.
fn text_of(error: &octocrab::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// The body of an answer, bounded.
async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_JSON {
            return Err(format!("an answer larger than {LARGEST_JSON} bytes"));
        }
    }
    Ok(bytes)
}

/// `message` of an error answer, and of its `errors`, or the beginning of what came instead.
async fn message(response: reqwest::Response) -> String {
    let bytes = body(response).await.unwrap_or_default();
    let json: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let of_json = json.as_ref().and_then(|json| json.get("message")?.as_str());
    let text = of_json.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_is_told_from_a_refusal() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.insert(*name, value.parse().unwrap());
            }
            map
        };
        let seconds = |status, pairs: &[(&'static str, &'static str)]| {
            limit(status, &headers(pairs), "Forbidden", 0, now).map(|wait| wait.as_secs())
        };
        assert_eq!(seconds(StatusCode::FORBIDDEN, &[]), None);
        assert_eq!(seconds(StatusCode::FORBIDDEN, &[("retry-after", "7")]), Some(7));
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1030")];
        assert_eq!(seconds(StatusCode::FORBIDDEN, &spent), Some(31));
        assert_eq!(seconds(StatusCode::TOO_MANY_REQUESTS, &[]), Some(60));
        assert_eq!(seconds(StatusCode::BAD_GATEWAY, &[("retry-after", "7")]), None);
        assert_eq!(
            seconds(StatusCode::FORBIDDEN, &[("retry-after", "Thu, 01 Jan 1970 00:16:49 GMT")]),
            Some(9)
        );
        // A secondary limit may come with neither header, whatever the quota says.
        let left = headers(&[("x-ratelimit-remaining", "4981"), ("x-ratelimit-reset", "4000")]);
        for (status, message) in [
            (StatusCode::FORBIDDEN, "You have exceeded a secondary rate limit. Please wait a few minutes."),
            (StatusCode::FORBIDDEN, "You have triggered an abuse detection mechanism."),
            (StatusCode::FORBIDDEN, "API rate limit exceeded for user ID 1."),
            (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        ] {
            let waits =
                [0, 1, 2].map(|attempt| limit(status, &left, message, attempt, now).unwrap().as_secs());
            assert_eq!(waits, [60, 120, 240], "{message}");
        }
        assert_eq!(
            limit(StatusCode::FORBIDDEN, &left, "Resource not accessible by integration", 0, now),
            None
        );
    }

    #[test]
    fn a_refusal_names_the_permission_that_is_missing() {
        assert_eq!(permission("/actions/runners?per_page=100"), "administration: read");
        assert_eq!(permission("/actions/workflows/gates.yml/dispatches"), "actions: write");
        assert_eq!(permission("/check-runs/1/annotations"), "checks: read");
        assert_eq!(permission("/compare/a...b"), "contents: read");
    }
}
