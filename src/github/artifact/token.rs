//! The job's runtime token, and the two ids in it that name the job to the service.

use crate::error::{Code, Error, Result};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

/// `ACTIONS_RUNTIME_TOKEN`. Never printed: its `Debug` form is three stars.
#[derive(Clone)]
pub struct RuntimeToken(String);

impl std::fmt::Debug for RuntimeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Names of the workflow run and the job in the service; opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendIds {
    /// A UUID on GitHub, a number on others.
    pub run: String,
    /// The same.
    pub job: String,
}

impl RuntimeToken {
    /// Takes a token as it stands in the environment.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The token itself, for the header and for the runner's mask.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The ids of the scope `Actions.Results:<run>:<job>` in the token's claim `scp`. The signature is the service's to check.
    ///
    /// # Errors
    /// `ArtifactEnvironment` says which part is missing, without showing the token.
    pub fn backend_ids(&self) -> Result<BackendIds> {
        let wrong = |found: &str| {
            Error::new(
                Code::ArtifactEnvironment,
                format!("expected a token with the scope Actions.Results:<run>:<job>, found {found}"),
            )
            .at("ACTIONS_RUNTIME_TOKEN")
            .hint(
                "the runner sets it for actions, not for `run:` steps: call this command from a local action",
            )
        };
        let payload = self.0.split('.').nth(1).ok_or_else(|| wrong("no JWT"))?;
        let bytes = URL_SAFE_NO_PAD
            .decode(payload)
            .or_else(|_| URL_SAFE.decode(payload))
            .map_err(|_| wrong("a middle part that is not base64url"))?;
        let claims: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|_| wrong("a middle part that is not JSON"))?;
        let scopes =
            claims.get("scp").and_then(|value| value.as_str()).ok_or_else(|| wrong("no claim scp"))?;
        for scope in scopes.split(' ') {
            let parts: Vec<&str> = scope.split(':').collect();
            if let ["Actions.Results", run, job] = parts.as_slice()
                && !run.is_empty()
                && !job.is_empty()
            {
                return Ok(BackendIds { run: (*run).to_owned(), job: (*job).to_owned() });
            }
        }
        Err(wrong("other scopes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> RuntimeToken {
        RuntimeToken::new(format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn ids_come_from_the_results_scope_wherever_it_stands() {
        let ids = token(r#"{"scp":"Actions.Other:x Actions.Results:run-1:job-2 Actions.Results:a:b:c"}"#)
            .backend_ids();
        assert_eq!(ids.unwrap(), BackendIds { run: "run-1".into(), job: "job-2".into() });
    }

    #[test]
    fn an_unfit_token_is_refused_without_being_shown() {
        for bad in [
            token(r#"{"scp":"Actions.Results:only"}"#),
            token("{}"),
            token("x"),
            RuntimeToken::new("secret-opaque".into()),
            RuntimeToken::new("a.!!.c".into()),
        ] {
            let error = bad.backend_ids().unwrap_err();
            let shown = format!("{error} {error:?} {bad:?}");
            assert!(!shown.contains("secret") && !shown.contains(bad.reveal()), "{shown}");
        }
    }
}
