//! A run while it runs: what changed between two looks.

use super::model::{Job, Run};
use std::collections::BTreeMap;

/// One look at a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    attempt: u32,
    state: String,
    /// `job` or `job / step` to its state, in the order of the run.
    parts: Vec<(String, String)>,
}

impl Look {
    /// What a run and its jobs show now.
    #[must_use]
    pub fn new(run: &Run, jobs: &[Job]) -> Self {
        let mut parts = Vec::new();
        for job in jobs {
            let mut now = state(job.status.as_deref(), job.conclusion.as_deref());
            match job.runner_name.as_deref().filter(|name| !name.is_empty()) {
                Some(runner) if job.conclusion.is_none() => now = format!("{now} on {runner}"),
                None if job.conclusion.is_none() => {
                    now = format!("{now}, waits for {}", job.labels.join(", "))
                }
                _ => {}
            }
            parts.push((job.name.clone(), now));
            for step in job.steps.iter().flatten() {
                let now = state(step.status.as_deref(), step.conclusion.as_deref());
                if now != "queued" && now != "pending" {
                    parts.push((format!("{} / {}", job.name, step.name), now));
                }
            }
        }
        Self {
            attempt: run.run_attempt.unwrap_or(1),
            state: state(run.status.as_deref(), run.conclusion.as_deref()),
            parts,
        }
    }

    /// One line for each change since `before`.
    #[must_use]
    pub fn changes_since(&self, before: &Look) -> Vec<String> {
        let mut lines = Vec::new();
        if self.attempt != before.attempt || self.state != before.state {
            lines.push(format!("run, attempt {}: {}", self.attempt, self.state));
        }
        let known: BTreeMap<&str, &str> =
            before.parts.iter().map(|(name, state)| (name.as_str(), state.as_str())).collect();
        let other_attempt = self.attempt != before.attempt;
        for (name, state) in &self.parts {
            if other_attempt || known.get(name.as_str()) != Some(&state.as_str()) {
                lines.push(format!("{name}: {state}"));
            }
        }
        lines
    }

    /// What runs now, for a status line.
    #[must_use]
    pub fn now(&self) -> String {
        let running = self.parts.iter().rev().find(|(_, state)| state.starts_with("in_progress"));
        running.map_or_else(|| self.state.clone(), |(name, _)| name.clone())
    }
}

fn state(status: Option<&str>, conclusion: Option<&str>) -> String {
    conclusion.or(status).unwrap_or("unknown").to_owned()
}
