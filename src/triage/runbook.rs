//! The runbook, embedded: one page per failure class.

use super::rules::Rules;
use crate::error::{Code, Error, Result};
use crate::files::nearest;

/// Every page: file name and text.
pub const PAGES: &[(&str, &str)] = &[
    ("acceptance-failed.md", include_str!("../../runbook/acceptance-failed.md")),
    ("artifact-missing.md", include_str!("../../runbook/artifact-missing.md")),
    ("baseline-exceeded.md", include_str!("../../runbook/baseline-exceeded.md")),
    ("baseline-not-reestablished.md", include_str!("../../runbook/baseline-not-reestablished.md")),
    ("cancelled.md", include_str!("../../runbook/cancelled.md")),
    ("capture-incomplete.md", include_str!("../../runbook/capture-incomplete.md")),
    ("cgroup-placement-failed.md", include_str!("../../runbook/cgroup-placement-failed.md")),
    ("cleanup-refused.md", include_str!("../../runbook/cleanup-refused.md")),
    ("correlation-not-clean.md", include_str!("../../runbook/correlation-not-clean.md")),
    ("determinism-drift.md", include_str!("../../runbook/determinism-drift.md")),
    ("disk-full.md", include_str!("../../runbook/disk-full.md")),
    ("ebpf-build-failed.md", include_str!("../../runbook/ebpf-build-failed.md")),
    ("evidence-invalid.md", include_str!("../../runbook/evidence-invalid.md")),
    ("fixture-dependencies-missing.md", include_str!("../../runbook/fixture-dependencies-missing.md")),
    ("fixture-timeout.md", include_str!("../../runbook/fixture-timeout.md")),
    ("github-api.md", include_str!("../../runbook/github-api.md")),
    ("hidden-write.md", include_str!("../../runbook/hidden-write.md")),
    ("host-unfit.md", include_str!("../../runbook/host-unfit.md")),
    ("in-progress.md", include_str!("../../runbook/in-progress.md")),
    ("interrupted.md", include_str!("../../runbook/interrupted.md")),
    ("out-of-memory.md", include_str!("../../runbook/out-of-memory.md")),
    ("passed.md", include_str!("../../runbook/passed.md")),
    ("ring-drops.md", include_str!("../../runbook/ring-drops.md")),
    ("runner-lost.md", include_str!("../../runbook/runner-lost.md")),
    ("sdk-policy-id-mismatch.md", include_str!("../../runbook/sdk-policy-id-mismatch.md")),
    ("sdk-version-drift.md", include_str!("../../runbook/sdk-version-drift.md")),
    ("setup-refused.md", include_str!("../../runbook/setup-refused.md")),
    ("setup-failed.md", include_str!("../../runbook/setup-failed.md")),
    ("skip-reported-as-success.md", include_str!("../../runbook/skip-reported-as-success.md")),
    ("time-limit.md", include_str!("../../runbook/time-limit.md")),
    ("tool-error.md", include_str!("../../runbook/tool-error.md")),
    ("unknown.md", include_str!("../../runbook/unknown.md")),
    ("upload-failed.md", include_str!("../../runbook/upload-failed.md")),
    ("verifier-rejected.md", include_str!("../../runbook/verifier-rejected.md")),
    ("waiting-for-runner.md", include_str!("../../runbook/waiting-for-runner.md")),
    ("workflow-invalid.md", include_str!("../../runbook/workflow-invalid.md")),
    ("workspace-not-writable.md", include_str!("../../runbook/workspace-not-writable.md")),
];

/// A page by its file name.
#[must_use]
pub fn page(name: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The page for a class, an error code (any case) or a page name; for a code its own line comes first.
///
/// # Errors
/// `ClassUnknown`, with the nearest name.
pub fn explain(rules: &Rules, name: &str) -> Result<String> {
    let wanted = name.trim().to_lowercase().replace('-', "_");
    let code = Code::ALL.iter().find(|code| code.name().eq_ignore_ascii_case(&wanted));
    if let Some(code) = code {
        let class = rules.class_of_code(code.name()).ok_or_else(|| {
            Error::new(Code::Internal, format!("no class of runbook/rules.yaml lists {}", code.name()))
        })?;
        let text = page(&class.page).unwrap_or_default();
        return Ok(format!(
            "{}: {}\nexit code {}, class {}\n\n{text}",
            code.name(),
            code.title(),
            code.exit().code(),
            class.id
        ));
    }
    let class = rules.class(&wanted).map(|class| class.page.clone());
    let file = class.unwrap_or_else(|| format!("{}.md", wanted.trim_end_matches(".md").replace('_', "-")));
    page(&file).map(str::to_owned).ok_or_else(|| {
        let unknown =
            Error::new(Code::ClassUnknown, format!("no failure class or error code is called {name:?}"));
        match nearest(&wanted, rules.classes().iter().map(|class| class.id.as_str())) {
            Some(near) => unknown.hint(format!("assay-gates explain {near}")),
            None => unknown.hint("assay-gates explain --list"),
        }
    })
}
