//! Triage, the runbook, dispatch and watch, as a maintainer meets them.

mod agents;
#[path = "../support/answers.rs"]
mod answers;
mod api;
mod broken;
mod commands;
mod corpus;
mod dispatch;
mod drops;
mod github;
mod page;
mod rules;
mod situations;
#[path = "../support/mod.rs"]
mod support;
