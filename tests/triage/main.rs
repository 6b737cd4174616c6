//! Triage, the runbook, dispatch and watch, as a maintainer meets them.

mod answers;
mod github;
mod rules;
mod situations;
