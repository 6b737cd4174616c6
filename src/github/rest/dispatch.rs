//! Starting the workflow once and only once.
//!
//! A dispatch carries a nonce that the workflow shows in its run's name. Whatever the answer says or fails to say, the
//! run is then found by listing; a second POST is never sent.

use super::client::{Client, Posted, rate_limited};
use super::model::{Branch, Run};
use super::runs::RunQuery;
use crate::error::{Code, Error, Result};
use chrono::{DateTime, Duration as Span, Utc};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Looks for the run of a dispatch that a rate limit answered.
const LOOKS_WHEN_LIMITED: u32 = 3;
/// GitHub lists no more runs than this of one query.
const MOST_LISTED: u32 = 1000;

/// What to start.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// File name of the workflow.
    pub workflow: String,
    /// Branch or tag.
    pub reference: String,
    /// Inputs beside the nonce.
    pub inputs: BTreeMap<String, String>,
    /// Unique to this dispatch; `[nonce]` stands in the run's name.
    pub nonce: String,
    /// Times that the list is asked, and the pause between.
    pub looks: (u32, Duration),
}

/// 16 random hex digits.
///
/// # Errors
/// `Internal` when the system gives no randomness.
pub fn nonce() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no randomness: {error}")))?;
    Ok(hex::encode(bytes))
}

impl Client {
    /// A branch as it is now: its commit, and whether it is protected.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn branch(&self, name: &str) -> Result<Branch> {
        self.get(&format!("/branches/{name}")).await
    }

    /// The branch that is checked out by default.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn default_branch(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Repository {
            default_branch: String,
        }
        Ok(self.get::<Repository>("").await?.default_branch)
    }

    /// Dispatches once, and finds the run.
    ///
    /// # Errors
    /// `DispatchRefused` when GitHub says no; `DispatchUnclear` when it was taken or may have been and no run with the
    /// nonce showed up.
    pub async fn dispatch(&self, dispatch: &Dispatch) -> Result<u64> {
        let begun = self.server_time().unwrap_or_else(Utc::now);
        let mut inputs = dispatch.inputs.clone();
        inputs.insert("nonce".to_owned(), dispatch.nonce.clone());
        let mut body = serde_json::json!({ "ref": dispatch.reference, "inputs": inputs });
        // Enterprise Servers don't know the field yet, and may refuse it.
        if let (false, Some(map)) = (self.is_enterprise_server(), body.as_object_mut()) {
            map.insert("return_run_details".to_owned(), true.into());
        }
        let path = format!("/actions/workflows/{}/dispatches", dispatch.workflow);
        let unclear = match self.post_once(&path, &body).await? {
            Posted::Taken(answer) => {
                match answer.get("workflow_run_id").and_then(serde_json::Value::as_u64) {
                    Some(run) => return Ok(run),
                    None => "GitHub took it".to_owned(),
                }
            }
            Posted::Refused(status, message) => {
                let refused = Error::new(Code::DispatchRefused, format!("{status}: {message}"));
                return Err(match status {
                    401 | 403 => refused.hint("the token needs the permission actions: write"),
                    404 => refused
                        .hint(format!("is there a workflow {} on the default branch?", dispatch.workflow)),
                    _ => refused,
                });
            }
            Posted::Limited(wait, message) => {
                // Limited before it was taken, says the documentation; one look makes sure, and never a second POST.
                let once = Dispatch { looks: (LOOKS_WHEN_LIMITED, dispatch.looks.1), ..dispatch.clone() };
                return match self.find_dispatched(&once, begun).await {
                    Ok(Some(run)) => Ok(run.id),
                    _ => Err(rate_limited(wait, &format!("{message}; nothing was dispatched"))),
                };
            }
            Posted::Unclear(why) => {
                format!("the answer to the dispatch doesn't say whether it was taken ({why})")
            }
        };
        match self.find_dispatched(dispatch, begun).await {
            Ok(Some(run)) => Ok(run.id),
            Ok(None) => Err(self.unclear(dispatch, &unclear)),
            Err(error) => Err(self.unclear(dispatch, &format!("{unclear}; {error}"))),
        }
    }

    async fn find_dispatched(&self, dispatch: &Dispatch, begun: DateTime<Utc>) -> Result<Option<Run>> {
        // The clocks of API and runs may differ; the nonce decides, the time only keeps the list short.
        let since = (begun - Span::minutes(5)).format("%Y-%m-%dT%H:%M:%SZ");
        let filters = vec![("event", "workflow_dispatch".to_owned()), ("created", format!(">={since}"))];
        let query = RunQuery { filters, count: MOST_LISTED };
        let mark = format!("[{}]", dispatch.nonce);
        let mut last = None;
        for look in 0..dispatch.looks.0 {
            if look > 0 {
                tokio::time::sleep(dispatch.looks.1).await;
            }
            match self.runs(&dispatch.workflow, &query).await {
                Ok(runs) => {
                    last = None;
                    let ours =
                        |run: &Run| run.display_title.as_deref().is_some_and(|title| title.contains(&mark));
                    if let Some(run) = runs.into_iter().find(ours) {
                        return Ok(Some(run));
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(None), Err)
    }

    fn unclear(&self, dispatch: &Dispatch, why: &str) -> Error {
        let what = format!("{why}, and no run named [{}] showed up; it was not sent again", dispatch.nonce);
        Error::new(Code::DispatchUnclear, what).hint(format!(
            "gh run list --repo {} --workflow {} --event workflow_dispatch",
            self.repository(),
            dispatch.workflow
        ))
    }
}
