//! Whether the runs of a gate gave the same evidence, and where they first part.

use crate::error::Result;
use crate::evidence::EffectSurface;
use crate::evidence::effect_surface::Actor;
use crate::evidence::tool_effects::CountedEffect;
use crate::files::{compact, pretty_sorted, sha256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::TextDiff;
use std::collections::BTreeSet;

/// What is compared of one run. Kernel order, pids and times are not: they are telemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct RunArtifacts {
    /// `observation-health.json`.
    pub health: Value,
    /// `capability-surface.json`.
    pub surface: Value,
    /// `correlation-report.json`.
    pub correlation: Value,
    /// `surface.json`: everything that was done, by whom.
    pub effects: EffectSurface,
    /// `kernel_set.json`: the set of kernel evidence with process ordinals for pids.
    pub kernel_set: Value,
    /// `layers/policy.ndjson`, as it is.
    pub policy: String,
    /// `layers/sdk.ndjson`, as it is.
    pub sdk: String,
}

/// The outcome of the comparison (`determinism` of `verdict.json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Determinism {
    /// Every artifact is the same in every run, and there was more than one run.
    pub agree: bool,
    /// How many runs were compared.
    pub runs: usize,
    /// Each artifact.
    pub compared: Vec<Compared>,
    /// The first difference, when they don't agree.
    pub divergence: Option<Divergence>,
}

/// One artifact over all runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// File name.
    pub artifact: String,
    /// The same in every run.
    pub agree: bool,
    /// Digest of the compared form, run by run.
    pub sha256: Vec<String>,
}

/// Where two runs first part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// File name.
    pub artifact: String,
    /// The two runs, from 1.
    pub runs: [usize; 2],
    /// What kind of thing differs.
    pub kind: DriftKind,
    /// Unified diff of the compared form, three lines of context, bounded.
    pub diff: String,
    /// What was done in one of the two runs only, or not as often; of `surface.json`. At most [`DRIFTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drifts: Vec<Drift>,
}

/// One effect in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Whose it is.
    pub actor: Actor,
    /// What was done; `count` is how often in the run that did it more often.
    pub effect: CountedEffect,
    /// How often in each of the two runs.
    pub counts: [u64; 2],
    /// Who did it in the run that did it more often: what the process ran, then what its parent ran, up to the root.
    pub chain: Vec<String>,
}

/// Effects of a drift that are spelt out; the diff holds more.
pub const DRIFTS: usize = 20;

/// What a drift touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// What was done differs: a path, an endpoint, a decision, a call.
    Evidence,
    /// Only how the observation went differs: counts and notes of health.
    Telemetry,
}

/// At most this many bytes of diff are kept: enough for ten screens.
const DIFF_LIMIT: usize = 64 * 1024;

/// Compares every run with the first.
///
/// # Errors
/// `Internal` when a value can't be serialised.
pub fn compare(runs: &[RunArtifacts]) -> Result<Determinism> {
    let mut compared = Vec::new();
    let mut divergence = None;
    for artifact in ARTIFACTS {
        let forms = runs.iter().map(artifact.form).collect::<Result<Vec<String>>>()?;
        let differing = forms.iter().position(|form| *form != forms[0]);
        compared.push(Compared {
            artifact: artifact.name.to_owned(),
            agree: differing.is_none(),
            sha256: forms.iter().map(|form| sha256(form.as_bytes()).to_string()).collect(),
        });
        if let (Some(other), None) = (differing, &divergence) {
            divergence = Some(Divergence {
                artifact: artifact.name.to_owned(),
                runs: [1, other + 1],
                kind: artifact.kind,
                diff: unified(artifact.name, &forms[0], &forms[other], other + 1),
                drifts: if artifact.name == SURFACE {
                    drifts(&runs[0].effects, &runs[other].effects)
                } else {
                    Vec::new()
                },
            });
        }
    }
    let agree = divergence.is_none() && runs.len() > 1;
    Ok(Determinism { agree, runs: runs.len(), compared, divergence })
}

struct Artifact {
    name: &'static str,
    kind: DriftKind,
    form: fn(&RunArtifacts) -> Result<String>,
}

const SURFACE: &str = "surface.json";

/// Evidence first, so that the first divergence is the one that matters; and of that, what says most.
const ARTIFACTS: &[Artifact] = &[
    Artifact { name: SURFACE, kind: DriftKind::Evidence, form: |run| surface_form(&run.effects) },
    Artifact {
        name: "kernel_set.json",
        kind: DriftKind::Evidence,
        form: |run| pretty_sorted(&run.kernel_set),
    },
    Artifact {
        name: "capability-surface.json",
        kind: DriftKind::Evidence,
        form: |run| pretty_sorted(&run.surface),
    },
    Artifact { name: "layers/policy.ndjson", kind: DriftKind::Evidence, form: |run| Ok(run.policy.clone()) },
    Artifact { name: "layers/sdk.ndjson", kind: DriftKind::Evidence, form: |run| Ok(run.sdk.clone()) },
    Artifact {
        name: "correlation-report.json",
        kind: DriftKind::Evidence,
        form: |run| pretty_sorted(&without_cgroup_ids(&run.correlation)),
    },
    Artifact {
        name: "observation-health.json",
        kind: DriftKind::Telemetry,
        form: |run| pretty_sorted(&run.health),
    },
];

/// One effect a line, so that a diff reads as a list of what was done.
fn surface_form(surface: &EffectSurface) -> Result<String> {
    let mut text = String::new();
    for ((actor, effect), count) in surface.comparable() {
        text.push_str(&compact(&(actor, CountedEffect { count, ..effect }))?);
        text.push('\n');
    }
    Ok(text)
}

fn drifts(first: &EffectSurface, other: &EffectSurface) -> Vec<Drift> {
    let (before, after) = (first.comparable(), other.comparable());
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing = keys.into_iter().filter_map(|key| {
        let counts = [&before, &after].map(|side| side.get(key).copied().unwrap_or(0));
        (counts[0] != counts[1]).then_some((key, counts))
    });
    differing
        .map(|((actor, effect), counts)| {
            let more = if counts[0] > counts[1] { first } else { other };
            let process = more
                .effects
                .iter()
                .find(|one| {
                    one.actor == *actor && CountedEffect { count: 0, ..one.effect.clone() } == *effect
                })
                .and_then(|one| one.processes.first().copied());
            Drift {
                actor: actor.clone(),
                effect: CountedEffect { count: counts[0].max(counts[1]), ..effect.clone() },
                counts,
                chain: process.map(|process| more.chain(process)).unwrap_or_default(),
            }
        })
        .take(DRIFTS)
        .collect()
}

impl Divergence {
    /// `run 2: unlink /x in call tc_1 (read_file), by rm x of python3 agent.py`, one for each effect that differs.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        let [a, b] = self.runs;
        self.drifts
            .iter()
            .map(|drift| {
                let [before, after] = drift.counts;
                let times = match (before, after) {
                    (0, 1) => format!("run {b} only"),
                    (1, 0) => format!("run {a} only"),
                    _ => format!("{before} times in run {a}, {after} in run {b}"),
                };
                let by = if drift.chain.is_empty() {
                    String::new()
                } else {
                    format!(", by {}", drift.chain.join(" of "))
                };
                format!("{times}: {} {}{by}", drift.effect.named(), drift.actor)
            })
            .collect()
    }
}

/// A cgroup's id is new in every run; its presence is what counts.
fn without_cgroup_ids(correlation: &Value) -> Value {
    let mut correlation = correlation.clone();
    if let Some(bindings) = correlation.get_mut("bindings").and_then(Value::as_array_mut) {
        for id in bindings.iter_mut().filter_map(|binding| binding.get_mut("cgroup_id")) {
            *id = Value::from("<cgroup>");
        }
    }
    correlation
}

fn unified(name: &str, first: &str, other: &str, run: usize) -> String {
    let mut diff = TextDiff::from_lines(first, other)
        .unified_diff()
        .context_radius(3)
        .header(&format!("run-1/{name}"), &format!("run-{run}/{name}"))
        .to_string();
    if diff.len() > DIFF_LIMIT {
        let end = (0..=DIFF_LIMIT).rev().find(|at| diff.is_char_boundary(*at)).unwrap_or(0);
        diff.truncate(end);
        diff.push_str("\n… the diff goes on\n");
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn surface(unlinked: &[&str]) -> EffectSurface {
        let unlink = |path: &&str| {
            json!({
                "actor": {"call": {"id": "tc_1", "tool": "read_file"}},
                "effect": {"operation": "unlink", "syscall": "unlinkat", "path": path, "count": 1},
                "processes": [2],
            })
        };
        serde_json::from_value(json!({
            "schema": EffectSurface::SCHEMA, "run_id": "r", "telemetry": 0,
            "effects": unlinked.iter().map(unlink).collect::<Vec<_>>(),
            "processes": [{"process": 0, "command": "python3 agent.py"}, {"process": 2, "parent": 0, "command": "rm b"}],
        }))
        .unwrap()
    }

    fn run() -> RunArtifacts {
        RunArtifacts {
            health: json!({"notes": ["n"]}),
            surface: json!({"filesystem_paths": ["/a"]}),
            correlation: json!({"bindings": [{"cgroup_id": 7, "tool_call_id": "t"}]}),
            kernel_set: json!({"entries": [{"value": "/a", "count": 1}]}),
            effects: surface(&["/a"]),
            policy: "{}\n".into(),
            sdk: String::new(),
        }
    }

    #[test]
    fn equal_runs_agree_whatever_their_cgroup() {
        let mut other = run();
        other.correlation["bindings"][0]["cgroup_id"] = json!(8);
        let outcome = compare(&[run(), other, run()]).unwrap();
        assert!(outcome.agree);
        assert!(outcome.compared.iter().all(|artifact| artifact.sha256.len() == 3));
    }

    #[test]
    fn a_cgroup_id_that_is_missing_in_one_run_is_a_difference() {
        let mut other = run();
        other.correlation["bindings"][0].as_object_mut().unwrap().remove("cgroup_id");
        assert_eq!(compare(&[run(), other]).unwrap().divergence.unwrap().artifact, "correlation-report.json");
    }

    #[test]
    fn every_artifact_that_drifts_is_found_and_named() {
        let changes: [(fn(&mut RunArtifacts), &str, DriftKind); 7] = [
            (|run| run.effects = surface(&["/a", "/b"]), "surface.json", DriftKind::Evidence),
            (|run| run.kernel_set["entries"][0]["count"] = json!(2), "kernel_set.json", DriftKind::Evidence),
            (
                |run| run.surface["filesystem_paths"][0] = json!("/b"),
                "capability-surface.json",
                DriftKind::Evidence,
            ),
            (|run| run.policy.push('\n'), "layers/policy.ndjson", DriftKind::Evidence),
            (|run| run.sdk.push('x'), "layers/sdk.ndjson", DriftKind::Evidence),
            (
                |run| run.correlation["bindings"][0]["tool_call_id"] = json!("u"),
                "correlation-report.json",
                DriftKind::Evidence,
            ),
            (|run| run.health["notes"][0] = json!("m"), "observation-health.json", DriftKind::Telemetry),
        ];
        for (change, artifact, kind) in changes {
            let mut third = run();
            change(&mut third);
            let outcome = compare(&[run(), run(), third]).unwrap();
            let divergence = outcome.divergence.unwrap();
            assert!(!outcome.agree);
            assert_eq!(
                (divergence.artifact.as_str(), divergence.runs, divergence.kind),
                (artifact, [1, 3], kind)
            );
            assert!(divergence.diff.contains("@@"), "{}", divergence.diff);
        }
    }

    #[test]
    fn a_drift_says_operation_path_chain_run_and_call_and_who_was_born_first_is_none() {
        let mut third = run();
        third.effects = surface(&["/a", "/b"]);
        let divergence = compare(&[run(), run(), third]).unwrap().divergence.unwrap();
        assert_eq!(
            divergence.said(),
            ["run 3 only: unlink /b in call tc_1 (read_file), by rm b of python3 agent.py"]
        );
        let mut other = run();
        other.effects.effects[0].processes = BTreeSet::from([1]);
        other.effects.processes.clear();
        assert!(compare(&[run(), other]).unwrap().agree);
    }

    #[test]
    fn one_run_alone_proves_nothing() {
        assert!(!compare(&[run()]).unwrap().agree);
        assert!(!compare(&[]).unwrap().agree);
    }
}
