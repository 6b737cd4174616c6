//! Triage, the runbook, dispatch and watch, as a maintainer meets them.

mod agents;
#[path = "../support/answers.rs"]
mod answers;
mod broken;
mod corpus;
mod dispatch;
mod drops;
mod github;
mod page;
mod rules;
mod situations;
#[path = "../support/mod.rs"]
mod support;
