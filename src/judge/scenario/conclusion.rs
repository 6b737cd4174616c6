//! The rows that follow from an outcome.

use super::rows::{
    ArchiveEvidence, BaselineReference, ClaimClassCell, Digests, Health, Inputs, JoinResult, MeasuredWrite,
    PackOfGate, ProofPackReference, RedactionManifest, SemanticGapVerdict, Workflow, schema,
};
use super::{Input, Join, Measured, Run, Shown, Stop, name, texts};
use crate::error::{Code, Error, Result};
use crate::evidence::KernelEvent;
use crate::gate::{Scenario, ScenarioRole, ScenarioVerdict};
use serde::Serialize;
use std::collections::BTreeSet;

/// The rows of one review.
pub(super) struct Conclusion {
    pub reference: ProofPackReference,
    pub join: JoinResult,
    pub cells: Vec<ClaimClassCell>,
    pub verdict: SemanticGapVerdict,
    pub redaction: RedactionManifest,
    /// The write or read that makes the gap, for the texts.
    pub gap: Option<KernelEvent>,
    /// Why the row may not be cited; `None` when it may.
    pub not_citable: Option<&'static str>,
}

/// How the join reads, by outcome.
struct Grade {
    key: &'static str,
    value: Option<String>,
    grade: &'static str,
    scope: &'static str,
    unique: bool,
    fallback: bool,
}

impl Conclusion {
    pub(super) fn new(
        input: &Input,
        scenario: &Scenario,
        outcome: &std::result::Result<Shown, Vec<Stop>>,
    ) -> Self {
        let shown = outcome.as_ref().ok();
        let grade = grade(scenario, shown);
        let refs = References::new(input, shown);
        let reason = match outcome {
            Ok(shown) => reason(scenario, shown),
            Err(stops) => stops.iter().map(|stop| stop.reason.as_str()).collect::<Vec<_>>().join("; "),
        };
        let verdict = if shown.is_some() { scenario.expected_verdict } else { ScenarioVerdict::Inconclusive };
        let word = name(&verdict);
        let class = match verdict {
            ScenarioVerdict::PositiveJoin | ScenarioVerdict::SemanticGap => word.clone(),
            ScenarioVerdict::DiagnosticOnly | ScenarioVerdict::Inconclusive => "diagnostic".to_owned(),
        };
        let clean = if shown.is_some() { "clean" } else { "inconclusive" };
        let calibration = match shown {
            Some(shown) if matches!(shown.join, Join::ByOrder(_)) => "lossy",
            _ => clean,
        };
        Self {
            not_citable: not_citable(input),
            gap: shown.and_then(|shown| shown.gap.as_ref()).map(|gap| gap.event.clone()),
            cells: cells(scenario, shown, &refs, &reason),
            reference: reference(input, scenario, shown),
            redaction: redaction(input),
            verdict: SemanticGapVerdict {
                schema: schema::SEMANTIC_GAP_VERDICT.to_owned(),
                scenario_id: name(&scenario.id),
                role: name(&scenario.role),
                verdict: word,
                evidence_pack_claim_class: class,
                runner_health_status: clean.to_owned(),
                trace_calibration_status: calibration.to_owned(),
                join_key: grade.key.to_owned(),
                join_grade: grade.grade.to_owned(),
                fallback_used: grade.fallback,
                reason: reason.clone(),
                non_claims: scenario.non_claims.clone(),
            },
            join: JoinResult {
                schema: schema::JOIN_RESULT.to_owned(),
                left_artifact_role: "external_receipt".to_owned(),
                right_artifact_role: "measured_run_archive".to_owned(),
                join_key: grade.key.to_owned(),
                join_value: grade.value,
                join_grade: grade.grade.to_owned(),
                scope: grade.scope.to_owned(),
                unique_within_scope: grade.unique,
                fallback_used: grade.fallback,
                evidence_refs: refs.all(),
                notes: vec![reason],
            },
        }
    }

    /// Name and text of each file of the review folder: declared order, indented by two.
    pub(super) fn files(&self) -> Result<Vec<(&'static str, String)>> {
        let mut files = vec![
            ("proof-pack-reference.json", pretty(&self.reference)?),
            ("join-result.json", pretty(&self.join)?),
            ("claim-class-cells.json", pretty(&self.cells)?),
            ("scenario-verdict.json", pretty(&self.verdict)?),
            ("redaction-manifest.json", pretty(&self.redaction)?),
            ("summary.md", texts::summary(self)),
        ];
        if self.verdict.verdict == "semantic_gap" {
            files.push(("finding.md", texts::finding(self)));
        }
        Ok(files)
    }
}

fn pretty<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(Code::Internal, format!("cannot serialise a row: {error}")).because(error)
    })?;
    Ok(text + "\n")
}

fn not_citable(input: &Input) -> Option<&'static str> {
    if input.invocation.dirty {
        Some("tracked files differed from the commit")
    } else if input.invocation.head_sha == "unknown" {
        Some("the commit is unknown")
    } else {
        None
    }
}

fn grade(scenario: &Scenario, shown: Option<&Shown>) -> Grade {
    let Some(shown) = shown else {
        return Grade {
            key: "tool_call_id",
            value: None,
            grade: "failed",
            scope: "diagnostic",
            unique: false,
            fallback: false,
        };
    };
    let diagnostic = Grade {
        key: "timestamp_or_order",
        value: None,
        grade: "diagnostic",
        scope: "diagnostic",
        unique: false,
        fallback: false,
    };
    match (&shown.join, scenario.role) {
        (Join::ByOrder(_), _) => Grade { grade: "weak", fallback: true, ..diagnostic },
        // The call is joined; the effect that the scenario is about belongs to no call.
        (Join::Strong(_), ScenarioRole::Fallback) => diagnostic,
        (Join::Strong(call), ScenarioRole::Baseline | ScenarioRole::Gap) => Grade {
            key: "tool_call_id",
            value: Some(call.reported.to_owned()),
            grade: "strong",
            scope: "tool_call",
            unique: true,
            fallback: false,
        },
    }
}

fn reason(scenario: &Scenario, shown: &Shown) -> String {
    let call = shown.join.call();
    let gap = shown.gap.as_ref().map_or(String::new(), |gap| describe(gap.event));
    match (scenario.role, &shown.join) {
        (ScenarioRole::Baseline, _) => {
            format!(
                "the SDK reported {} as {}, and inside that call the kernel measured its read and nothing else",
                call.reported, call.tool
            )
        }
        (ScenarioRole::Gap, _) => {
            format!(
                "inside the call {} that was reported as {}, the kernel also measured {gap}",
                call.reported, call.tool
            )
        }
        (ScenarioRole::Fallback, Join::ByOrder(_)) => format!(
            "the SDK reported {}, the decision and the effects carry {}: only tool and order fit, which joins nothing",
            call.reported, call.effects.tool_call_id
        ),
        (ScenarioRole::Fallback, Join::Strong(_)) => {
            format!("the kernel measured {gap} outside of every call: no call explains it")
        }
    }
}

/// A kernel record in words.
pub(super) fn describe(event: &KernelEvent) -> String {
    let access = event.access_mode.as_deref().unwrap_or("unknown");
    let path = event.value.as_deref().unwrap_or("an unknown path");
    match event.status.as_deref() {
        Some("error") => format!("a failed open of {path} for {access}"),
        _ => format!("an open of {path} for {access}"),
    }
}

/// References by what they show.
struct References {
    sdk: Vec<String>,
    policy: Vec<String>,
    measured: Vec<String>,
    joined: Vec<String>,
}

impl References {
    fn new(input: &Input, shown: Option<&Shown>) -> Self {
        let Some(shown) = shown else {
            return Self { sdk: Vec::new(), policy: Vec::new(), measured: Vec::new(), joined: Vec::new() };
        };
        let run = |number: usize| format!("payload/gates/{}/run-{number}", input.gate.gate.id);
        let first = format!("{}/extract", run(1));
        let kernel = shown
            .gap
            .iter()
            .chain(&shown.reads)
            .map(|found| format!("{first}/layers/kernel.ndjson#seq={}", found.event.seq));
        let attributed = shown
            .pointers
            .iter()
            .enumerate()
            .flat_map(|(at, pointers)| pointers.iter().map(move |pointer| (at + 1, pointer)));
        let measured = kernel
            .chain(attributed.map(|(number, pointer)| format!("{}/tool_effects.json{pointer}", run(number))));
        Self {
            sdk: shown
                .join
                .call()
                .sdk_seqs
                .iter()
                .map(|seq| format!("{first}/layers/sdk.ndjson#seq={seq}"))
                .collect(),
            policy: vec![format!("{first}/layers/policy.ndjson#seq=0")],
            measured: measured.collect(),
            joined: vec![
                format!("{first}/correlation-report.json#/bindings/0"),
                "proof-pack-reference.json#/runner_archive_evidence/tool_call_id".to_owned(),
            ],
        }
    }

    fn all(&self) -> Vec<String> {
        [&self.measured, &self.sdk, &self.policy, &self.joined].into_iter().flatten().cloned().collect()
    }
}

fn cells(scenario: &Scenario, shown: Option<&Shown>, refs: &References, reason: &str) -> Vec<ClaimClassCell> {
    let joined = match scenario.expected_verdict {
        ScenarioVerdict::SemanticGap => "joined_semantic_gap",
        ScenarioVerdict::PositiveJoin => "joined_positive_join",
        ScenarioVerdict::DiagnosticOnly | ScenarioVerdict::Inconclusive => "joined_diagnostic",
    };
    let strong = scenario.role != ScenarioRole::Fallback;
    let rows = [
        (
            "reported_tool_intent",
            "external_receipt",
            "strong",
            "reported",
            &refs.sdk,
            "what the SDK says of itself",
        ),
        (
            "policy_allow_evidence",
            "external_receipt",
            "strong",
            "reported",
            &refs.policy,
            "what the proxy decided and logged",
        ),
        (
            "measured_filesystem_effect",
            "measured_run_archive",
            "strong",
            "measured",
            &refs.measured,
            "what the kernel showed",
        ),
        (joined, "joined_artifacts", if strong { "strong" } else { "weak" }, "derived", &refs.joined, reason),
    ];
    let cell = |(claim, role, strength, basis, refs, note): (&str, &str, &str, &str, &Vec<String>, &str)| {
        let carried = shown.is_some();
        ClaimClassCell {
            schema: schema::CLAIM_CLASS_CELL.to_owned(),
            claim_type: claim.to_owned(),
            artifact_role: if carried { role } else { "none" }.to_owned(),
            claim_strength: if carried { strength } else { "absent" }.to_owned(),
            claim_basis: basis.to_owned(),
            evidence_refs: refs.clone(),
            notes: vec![if carried { note } else { reason }.to_owned()],
            non_claims: vec![
                "does_not_claim_malicious_behavior".to_owned(),
                "does_not_claim_policy_failure".to_owned(),
            ],
        }
    };
    rows.into_iter().map(cell).collect()
}

fn reference(input: &Input, scenario: &Scenario, shown: Option<&Shown>) -> ProofPackReference {
    let invocation = input.invocation;
    let gate = &input.gate;
    let kind = match scenario.role {
        ScenarioRole::Gap => "gap",
        ScenarioRole::Baseline => "positive",
        ScenarioRole::Fallback => "diagnostic",
    };
    let state = match (shown, not_citable(input)) {
        (None, _) => "inconclusive",
        (Some(_), Some(_)) => "not-citable",
        (Some(_), None) => "verified",
    };
    let status =
        if shown.is_none() && gate.verdict.passed() { "incomplete" } else { gate.verdict.status.word() };
    let first = gate.runs.first();
    ProofPackReference {
        kind: "delegated_gap_reference".to_owned(),
        scenario_id: name(&scenario.id),
        status: format!("delegated-{kind}-smoke-{state}"),
        created_at: invocation.created_at.clone(),
        workflow: Workflow {
            name: invocation.workflow.clone(),
            run_id: invocation.run_id.clone(),
            run_url: invocation.run_url.clone(),
            r#ref: invocation.r#ref.clone(),
            head_sha: invocation.head_sha.clone(),
            inputs: Inputs { gates: invocation.selection.clone(), build_ebpf: invocation.build_ebpf.clone() },
        },
        proof_pack: PackOfGate {
            artifact_id: None,
            artifact_name: format!("assay-runner-delegated-proof-pack-{}", invocation.run_id),
            artifact_url: None,
            expires_at: None,
            manifest_path: "assay-runner-proof-upload/manifest.json".to_owned(),
            gate: gate.gate.id.clone(),
            gate_status: status.to_owned(),
            archive_count: gate.runs.len() as u64,
            pass_lines: gate.pass_lines.to_vec(),
        },
        same_head_positive_baseline: input.baseline.as_ref().map(baseline),
        runner_archive_evidence: first.zip(shown).map(|(run, shown)| archive_evidence(input, run, shown)),
        health: first.map(|run| Health {
            kernel_layer: run.health.kernel_layer.clone(),
            ringbuf_drops: run.health.ringbuf_drops,
            policy_layer: run.health.policy_layer.clone(),
            sdk_layer: run.health.sdk_layer.clone(),
            cgroup_correlation: run.health.cgroup_correlation.clone(),
            correlation_status: run.correlation.status.clone(),
            ambiguities: run.correlation.ambiguities.len() as u64,
        }),
        determinism: Digests {
            capability_surface_sha256: first.map(|run| run.files[0].to_string()),
            correlation_report_sha256: first.map(|run| run.files[1].to_string()),
            observation_health_sha256: first.map(|run| run.files[2].to_string()),
            archive_sha256: gate.runs.iter().map(|run| run.archive.to_string()).collect(),
        },
        non_claims: scenario.non_claims.clone(),
    }
}

fn baseline(measured: &Measured) -> BaselineReference {
    BaselineReference {
        gate: measured.gate.id.clone(),
        gate_status: measured.verdict.status.word().to_owned(),
        archive_count: measured.runs.len() as u64,
        pass_lines: measured.pass_lines.to_vec(),
        archive_sha256: measured.runs.iter().map(|run| run.archive.to_string()).collect(),
    }
}

fn archive_evidence(input: &Input, run: &Run, shown: &Shown) -> ArchiveEvidence {
    let call = shown.join.call();
    let prefix = format!("{}/", input.work);
    let paths: BTreeSet<&str> = run
        .kernel
        .iter()
        .filter(|event| event.kind == "openat")
        .filter_map(|event| event.value.as_deref())
        .filter(|path| path.starts_with(&prefix))
        .collect();
    let wrote =
        shown.gap.as_ref().map(|gap| gap.event).filter(|event| event.access_mode.as_deref() == Some("write"));
    ArchiveEvidence {
        run_id: run.health.run_id.clone(),
        tool_call_id: call.reported.to_owned(),
        tool: call.tool.to_owned(),
        sdk_name: call.sdk_name.to_owned(),
        sdk_version: call.sdk_version.to_owned(),
        policy_decision: call.effects.decision.clone().unwrap_or_default(),
        kernel_event_count: run.kernel.len() as u64,
        measured_paths: paths.into_iter().map(str::to_owned).collect(),
        measured_write: wrote.map(|event| MeasuredWrite {
            path: event.value.clone().unwrap_or_default(),
            kind: event.kind.clone(),
            access_mode: event.access_mode.clone().unwrap_or_default(),
            operation_flags: event.operation_flags.clone(),
            status: event.status.clone().unwrap_or_default(),
        }),
        workdir_prefix: prefix,
    }
}

fn redaction(input: &Input) -> RedactionManifest {
    let records: Vec<_> = input.gate.runs.iter().filter_map(|run| run.health.redaction.as_ref()).collect();
    let modes: BTreeSet<&str> = records.iter().map(|record| record.mode.as_str()).collect();
    let hits: u64 = records.iter().map(|record| record.redacted_count).sum();
    let omitted = [
        "arguments and results of tool calls",
        "contents of files",
        "values of environment variables",
        "messages between agent and model",
    ];
    RedactionManifest {
        schema: schema::REDACTION_MANIFEST.to_owned(),
        created_at: input.invocation.created_at.clone(),
        policy: if modes.is_empty() {
            "none".to_owned()
        } else {
            modes.into_iter().collect::<Vec<_>>().join(", ")
        },
        redaction_applied: hits > 0,
        omitted_content: omitted.map(str::to_owned).to_vec(),
        notes: vec![format!(
            "{hits} values were replaced in {} archives before anything was hashed",
            records.len()
        )],
    }
}
