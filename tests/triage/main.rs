//! Triage, the runbook, dispatch and watch, as a maintainer meets them.

#[path = "../support/answers.rs"]
mod answers;
mod broken;
mod dispatch;
mod github;
mod page;
mod rules;
mod situations;
