//! Triage, the runbook, dispatch and watch, as a maintainer meets them.

mod rules;
