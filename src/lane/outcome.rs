//! What a run says that left no proof: each end that GitHub knows is one of these, and none is a guess.

use super::decision::Required;
use super::proof::RunFacts;
use super::witness::Status;

/// How a run ended, as far as a proof is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// It still runs, or waits to.
    Running,
    /// Every job succeeded: its pack decides.
    Succeeded,
    /// A job failed: something was shown, and it was red.
    Failed,
    /// It ended before it could show anything; the word is GitHub's: `cancelled`, `timed_out`, `skipped`, …
    ShowedNothing(String),
}

impl RunOutcome {
    /// Of a run as the API has it.
    #[must_use]
    pub fn of(run: &RunFacts) -> Self {
        match (run.status.as_str(), run.conclusion.as_deref()) {
            ("completed", Some("success")) => Self::Succeeded,
            ("completed", Some("failure")) => Self::Failed,
            ("completed", Some(word)) => Self::ShowedNothing(word.to_owned()),
            ("completed", None) => Self::ShowedNothing("completed without a conclusion".to_owned()),
            _ => Self::Running,
        }
    }

    /// In words, after `run N `.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Running => "has not ended".to_owned(),
            Self::Succeeded => "succeeded".to_owned(),
            Self::Failed => "failed".to_owned(),
            Self::ShowedNothing(word) => format!("ended as {word}"),
        }
    }

    /// The commit status for a head that needs `required`; none for a success, which its pack must speak for.
    #[must_use]
    pub fn status(&self, context: &str, required: &Required, run: u64) -> Option<Status> {
        let Some(gate) = required.gate() else {
            return Some(Status::no_gate(context));
        };
        let words = self.words();
        match self {
            Self::Succeeded => None,
            Self::Failed => Some(Status::new(
                "failure",
                context,
                &format!("run {run} {words}: gate {gate} is not proved"),
                None,
            )),
            Self::Running => Some(Status::new(
                "pending",
                context,
                &format!("run {run} {words}; gate {gate} is needed"),
                None,
            )),
            Self::ShowedNothing(_) => {
                let what =
                    format!("run {run} {words} and shows nothing: assay-gates dispatch --gates {gate}");
                Some(Status::new("pending", context, &what, None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every conclusion that GitHub documents, and words that it does not.
    const CONCLUSIONS: [Option<&str>; 11] = [
        Some("success"),
        Some("failure"),
        Some("cancelled"),
        Some("skipped"),
        Some("timed_out"),
        Some("action_required"),
        Some("neutral"),
        Some("stale"),
        Some("startup_failure"),
        Some("a word of tomorrow"),
        None,
    ];

    #[test]
    fn every_end_of_a_run_has_a_status_that_names_it_and_none_but_success_could_be_a_proof() {
        let gate = Required::Gate("g".to_owned());
        for conclusion in CONCLUSIONS {
            let run = RunFacts {
                status: "completed".to_owned(),
                conclusion: conclusion.map(str::to_owned),
                ..RunFacts::default()
            };
            let outcome = RunOutcome::of(&run);
            let status = outcome.status("c", &gate, 7);
            let Some(status) = status else {
                assert_eq!(conclusion, Some("success"));
                continue;
            };
            assert_eq!(status.state, if conclusion == Some("failure") { "failure" } else { "pending" });
            let said = &status.description;
            assert!(
                said.starts_with("run 7 ") && said.contains("gate") && !said.contains("unknown"),
                "{said}"
            );
            if let Some(word) = conclusion.filter(|word| *word != "failure") {
                assert!(said.contains(word), "{said}");
            }
        }
        for status in ["queued", "in_progress", "waiting", "requested", "pending"] {
            let run = RunFacts { status: status.to_owned(), ..RunFacts::default() };
            assert_eq!(RunOutcome::of(&run), RunOutcome::Running);
        }
        assert_eq!(RunOutcome::Failed.status("c", &Required::None, 7).unwrap().state, "success");
    }
}
