//! What GitHub itself recorded of a run, and the commit status that says what came of it.

use super::decision::Required;
use super::proof::{RunFacts, StepFact};
use crate::error::{Code, Error, Result};
use crate::github::rest::{Client, Posted};
use serde::Serialize;

/// Everything that a proof is compared with, of the newest attempt of `run`, but the logs of its jobs.
///
/// # Errors
/// What the API's answers fail with.
pub async fn run_facts(client: &Client, run: u64) -> Result<RunFacts> {
    let found = client.run(run, None).await?;
    let attempt = found.run_attempt.unwrap_or(1);
    let jobs = client.jobs(run, attempt).await?;
    let artifacts = client.artifacts(run).await?;
    Ok(RunFacts {
        run_id: found.id.to_string(),
        run_attempt: attempt.to_string(),
        event: found.event.unwrap_or_default(),
        // The API may put `@refs/…` behind the path.
        workflow_path: found
            .path
            .as_deref()
            .unwrap_or_default()
            .split('@')
            .next()
            .unwrap_or_default()
            .to_owned(),
        head_sha: found.head_sha,
        status: found.status.unwrap_or_default(),
        conclusion: found.conclusion,
        artifacts: artifacts.into_iter().map(|artifact| (artifact.name, artifact.digest)).collect(),
        steps: jobs
            .into_iter()
            .flat_map(|job| job.steps.unwrap_or_default())
            .map(|step| StepFact { name: step.name, conclusion: step.conclusion })
            .collect(),
        logs: Vec::new(),
    })
}

/// The gate that the newest status of `head` under `context` says was proved, if it says so: a proof once shown is not
/// taken back by a later look at the rules, nor by a run that showed nothing.
///
/// # Errors
/// What the API's answers fail with.
pub async fn standing_proof(client: &Client, head: &str, context: &str) -> Result<Option<Required>> {
    let statuses = client.statuses(head).await?;
    let newest = statuses.into_iter().find(|status| status.context == context);
    Ok(newest.filter(|status| status.state == "success").and_then(|status| {
        let said = status.description.unwrap_or_default();
        let (gate, run) = said.strip_prefix(PROVED.0)?.split_once(PROVED.1)?;
        run.parse::<u64>().ok()?;
        Required::try_from(gate.to_owned()).ok()
    }))
}

/// What stands around the gate in the description of a proof, before the number of the run.
const PROVED: (&str, &str) = ("gate ", " passed in run ");

/// A commit status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `success`, `failure`, `pending`.
    pub state: &'static str,
    /// `lane-check/proof`.
    pub context: String,
    /// What a reader of the pull request sees; at most 140 characters.
    pub description: String,
    /// Page of the run that is the proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_url: Option<String>,
}

impl Status {
    /// A status whose description fits.
    #[must_use]
    pub fn new(state: &'static str, context: &str, description: &str, target_url: Option<String>) -> Self {
        const LIMIT: usize = 140;
        let description = match description.char_indices().nth(LIMIT) {
            None => description.to_owned(),
            Some(_) => description.chars().take(LIMIT - 1).chain(['…']).collect(),
        };
        Self { state, context: context.to_owned(), description, target_url }
    }

    /// `gate` was proved by `run`. [`standing_proof`] reads it.
    #[must_use]
    pub fn proved(context: &str, gate: &str, run: u64) -> Self {
        Self::new("success", context, &format!("{}{gate}{}{run}", PROVED.0, PROVED.1), None)
    }

    /// Nothing needs to be proved.
    #[must_use]
    pub fn no_gate(context: &str) -> Self {
        Self::new("success", context, "no gate is needed for this change", None)
    }

    /// Posts it for the commit `head`, once.
    ///
    /// # Errors
    /// `LaneStatus` when it was refused, or when GitHub did not say whether it was taken.
    pub async fn post(&self, client: &Client, head: &str) -> Result<()> {
        let failed =
            |what: String| Error::new(Code::LaneStatus, format!("the commit status of {head}: {what}"));
        match client.post_once(&format!("/statuses/{head}"), self).await? {
            Posted::Taken(_) => Ok(()),
            Posted::Refused(status, message) => Err(failed(format!("refused with {status}: {message}"))
                .hint("the token needs the permission commit statuses: write")),
            Posted::Limited(wait, message) => {
                Err(failed(format!("the rate is limited for {} s: {message}", wait.as_secs()))
                    .hint("repeat the command when that time is over"))
            }
            Posted::Unclear(what) => Err(failed(format!("it is not known whether it was taken: {what}"))
                .hint("posting a status again is harmless: repeat the command")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn a_description_is_cut_by_characters_to_what_github_takes() {
        let status = Status::new("success", "c", &"ä".repeat(200), None);
        assert_eq!(status.description.chars().count(), 140);
        assert!(status.description.ends_with('…'));
        assert_eq!(Status::new("success", "c", &"ä".repeat(140), None).description, "ä".repeat(140));
    }
}
