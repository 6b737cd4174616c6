//! Whether a proof pack shows that a head passed what it needs.
//!
//! Never on the pack's word alone: what the pack says must agree with the trees of the head as git has them, with
//! the run as the API has it, and with the steps that the API recorded, in both directions.

use super::chained::{GATE_STEP, JobLog, logged};
use super::decision::{Decision, Required};
use crate::files::Sha256Digest;
use crate::pack::VerifiedPack;
use crate::pack::verify::Chained;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What a verified pack says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackFacts {
    /// SHA-256 of the zip, `sha256:…`; `None` for a folder.
    pub zip_digest: Option<String>,
    /// `source.repository`.
    pub repository: String,
    /// `source.head_sha`.
    pub head_sha: String,
    /// `source.workflow_path`.
    pub workflow_path: String,
    /// `source.run_id`.
    pub run_id: String,
    /// `source.run_attempt`.
    pub run_attempt: String,
    /// `inputs.gates`.
    pub selection: String,
    /// `inputs.build_ebpf`.
    pub build_ebpf: String,
    /// Gate and status, in order.
    pub gates: Vec<(String, String)>,
    /// Digest of each file that a gate was judged by: definition and policy, by its path in the pack.
    pub ground: BTreeMap<String, Sha256Digest>,
    /// Path to git object; `None` where the pack could not say.
    pub trees: BTreeMap<String, Option<String>>,
    /// What the job's log must hold.
    pub chains: Vec<Chained>,
}

impl PackFacts {
    /// What `pack` says. `name` gives the id of a gate for an alias that a dispatch may use.
    #[must_use]
    pub fn of(pack: &VerifiedPack, name: impl Fn(&str) -> String) -> Self {
        let manifest = pack.manifest();
        let source = &manifest.source;
        Self {
            zip_digest: pack.zip_sha256().map(|digest| digest.to_string()),
            repository: source.repository.clone(),
            head_sha: source.head_sha.clone(),
            workflow_path: source.workflow_path.clone(),
            run_id: source.run_id.clone(),
            run_attempt: source.run_attempt.clone(),
            selection: name(&manifest.inputs.gates),
            build_ebpf: manifest.inputs.build_ebpf.clone(),
            gates: manifest
                .gates
                .iter()
                .map(|row| (row.gate.clone(), row.status.as_str().to_owned()))
                .collect(),
            ground: manifest
                .payload_files
                .iter()
                .filter(|row| row.path.ends_with("/definition.yaml") || row.path.ends_with("/policy.yaml"))
                .map(|row| (row.path.clone(), row.sha256))
                .collect(),
            trees: manifest
                .content_provenance
                .path_trees
                .iter()
                .map(|(path, tree)| (path.clone(), tree.oid.clone()))
                .collect(),
            chains: pack.chains().to_vec(),
        }
    }
}

/// The run as the API has it; it was asked for in the repository of the claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// Run.
    pub run_id: String,
    /// Attempt, from 1.
    pub run_attempt: String,
    /// What started it.
    pub event: String,
    /// Workflow file.
    pub workflow_path: String,
    /// Commit.
    pub head_sha: String,
    /// `completed`, …
    pub status: String,
    /// `success`, …; `None` while it runs.
    pub conclusion: Option<String>,
    /// Digests of its artifacts by name.
    pub artifacts: BTreeMap<String, Option<String>>,
    /// Every step of every job of that attempt.
    pub steps: Vec<StepFact>,
    /// The jobs that measured, with their logs.
    pub logs: Vec<JobLog>,
}

/// A step as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFact {
    /// Its name.
    pub name: String,
    /// `success`, `failure`, `skipped`, …
    pub conclusion: Option<String>,
}

/// What is to be proved, of which head.
pub struct Claim<'a> {
    /// What the change needs, and its files.
    pub decision: &'a Decision,
    /// `owner/name`.
    pub repository: &'a str,
    /// The workflow whose runs count, `.github/workflows/gates.yml`.
    pub workflow_path: &'a str,
    /// Objects at the head of every path that the pack names.
    pub trees_of_head: &'a BTreeMap<String, Option<String>>,
    /// Ids of the gates in `all`.
    pub all: &'a [String],
    /// The branch that the change is measured against, and whether it is protected, as the API says.
    pub base: (&'a str, bool),
    /// Digests of every YAML file below `gates/` at the head.
    pub gates_of_head: &'a BTreeSet<Sha256Digest>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// It holds.
    pub held: bool,
    /// What was expected and what was found.
    pub detail: String,
}

/// Every condition, in order; the claim is proved when all hold.
#[must_use]
pub fn check(claim: &Claim<'_>, pack: &PackFacts, run: &RunFacts) -> Vec<Check> {
    let mut checks = Checks(Vec::new());
    let same = |checks: &mut Checks, name, expected: &str, found: &str| {
        checks.note(name, expected == found, format!("expected {expected}, found {found}"));
    };
    let (base, protected) = claim.base;
    let word =
        if protected { "is protected" } else { "is not, so whoever is checked can choose what is asked" };
    checks.note("base_protected", protected, format!("{base} {word}"));
    same(&mut checks, "workflow_path", claim.workflow_path, &pack.workflow_path);
    same(&mut checks, "run_workflow_path", claim.workflow_path, &run.workflow_path);
    checks.0.extend(recorded(claim.repository, pack, run).into_iter().filter(|check| check.name != OF_PACK));
    same(&mut checks, "run_event", "workflow_dispatch", &run.event);
    same(&mut checks, "run_status", "completed", &run.status);
    same(&mut checks, "run_conclusion", "success", run.conclusion.as_deref().unwrap_or("none"));
    same(&mut checks, "build_ebpf", "true", &pack.build_ebpf);
    digest(&mut checks, pack, run);
    gates(&mut checks, claim, pack);
    ground(&mut checks, claim, pack);
    content(&mut checks, claim, pack);
    checks.0
}

/// The workflow of the run, where no other one is asked for.
const OF_PACK: &str = "pack_workflow_path";

/// What the pack says of the run that measured, against GitHub's own record of that run: its facts, its steps, its log.
#[must_use]
pub fn recorded(repository: &str, pack: &PackFacts, run: &RunFacts) -> Vec<Check> {
    let mut checks = Checks(Vec::new());
    for (name, expected, found) in [
        ("repository", repository, &pack.repository),
        (OF_PACK, run.workflow_path.as_str(), &pack.workflow_path),
        ("run_id", &run.run_id, &pack.run_id),
        ("run_attempt", &run.run_attempt, &pack.run_attempt),
        ("run_head", &run.head_sha, &pack.head_sha),
    ] {
        checks.note(name, expected == found, format!("expected {expected}, found {found}"));
    }
    witness(&mut checks, pack, run);
    let (held, found) = logged(&pack.chains, &run.logs);
    checks.note("chain_in_log", held, found);
    checks.0
}

struct Checks(Vec<Check>);

impl Checks {
    fn note(&mut self, name: &'static str, held: bool, detail: impl Into<String>) {
        self.0.push(Check { name, held, detail: detail.into() });
    }
}

/// The pack is the artifact that the run uploaded, byte for byte.
fn digest(checks: &mut Checks, pack: &PackFacts, run: &RunFacts) {
    let name = format!("assay-runner-delegated-proof-pack-{}", run.run_id);
    let recorded = run.artifacts.get(&name).cloned().flatten();
    let (held, detail) = match (&pack.zip_digest, recorded) {
        (Some(found), Some(expected)) => {
            (*found == expected, format!("artifact {name}: expected {expected}, found {found}"))
        }
        (None, _) => {
            (false, "a folder has no digest to compare: give the zip as it was downloaded".to_owned())
        }
        (Some(_), None) => (false, format!("the run has no artifact {name} with a digest")),
    };
    checks.note("artifact_digest", held, detail);
}

fn gates(checks: &mut Checks, claim: &Claim<'_>, pack: &PackFacts) {
    let required = &claim.decision.required;
    checks.note(
        "selection",
        required.shown_by(&pack.selection),
        format!("expected {} or all, found {}", required.gate().unwrap_or("anything"), pack.selection),
    );
    let names: BTreeSet<&str> = pack.gates.iter().map(|(gate, _)| gate.as_str()).collect();
    checks.note("gates_once", names.len() == pack.gates.len(), "every gate stands once in the pack");
    let failed: Vec<String> = pack
        .gates
        .iter()
        .filter(|(_, s)| s != "passed")
        .map(|(gate, status)| format!("{gate}: {status}"))
        .collect();
    checks.note(
        "gates_passed",
        failed.is_empty() && !pack.gates.is_empty(),
        if failed.is_empty() { format!("{} gates", pack.gates.len()) } else { failed.join(", ") },
    );
    let wanted: Vec<&str> = match required {
        Required::None => Vec::new(),
        Required::Gate(gate) => vec![gate],
        Required::All => claim.all.iter().map(String::as_str).collect(),
    };
    let missing: Vec<&str> = wanted.into_iter().filter(|gate| !names.contains(gate)).collect();
    checks.note(
        "gates_present",
        missing.is_empty(),
        if missing.is_empty() {
            "every required gate is there".to_owned()
        } else {
            format!("missing: {}", missing.join(", "))
        },
    );
}

/// The API's own record of the steps, in both directions.
fn witness(checks: &mut Checks, pack: &PackFacts, run: &RunFacts) {
    let recorded: Vec<(&str, &str)> = run
        .steps
        .iter()
        .filter_map(|step| {
            Some((step.name.strip_prefix(GATE_STEP)?, step.conclusion.as_deref().unwrap_or("none")))
        })
        .collect();
    let claimed: BTreeSet<&str> =
        pack.gates.iter().filter(|(_, status)| status == "passed").map(|(gate, _)| gate.as_str()).collect();
    let unseen: Vec<String> = claimed
        .iter()
        .filter_map(|gate| {
            let found: Vec<&str> =
                recorded.iter().filter(|(name, _)| name == gate).map(|(_, c)| *c).collect();
            (found.is_empty() || found.iter().any(|conclusion| *conclusion != "success")).then(|| {
                format!(
                    "{gate}: {}",
                    if found.is_empty() { "no such step".to_owned() } else { found.join(", ") }
                )
            })
        })
        .collect();
    checks.note(
        "steps_witness_gates",
        unseen.is_empty() && !claimed.is_empty(),
        if unseen.is_empty() { format!("{} steps", claimed.len()) } else { unseen.join("; ") },
    );
    let unclaimed: Vec<&str> = recorded
        .iter()
        .filter(|(gate, conclusion)| *conclusion == "success" && !claimed.contains(gate))
        .map(|(gate, _)| *gate)
        .collect();
    checks.note(
        "gates_claim_steps",
        unclaimed.is_empty(),
        if unclaimed.is_empty() {
            "no step succeeded that the pack is silent about".to_owned()
        } else {
            unclaimed.join(", ")
        },
    );
}

/// The definitions and policies that gates were judged by are the head's, byte for byte.
fn ground(checks: &mut Checks, claim: &Claim<'_>, pack: &PackFacts) {
    let mut foreign: Vec<&str> = pack
        .ground
        .iter()
        .filter(|(_, digest)| !claim.gates_of_head.contains(digest))
        .map(|(path, _)| path.as_str())
        .collect();
    let without = |gate: &str| !pack.ground.contains_key(&format!("payload/gates/{gate}/definition.yaml"));
    foreign.extend(pack.gates.iter().map(|(gate, _)| gate.as_str()).filter(|gate| without(gate)));
    checks.note(
        "judged_by_head",
        foreign.is_empty(),
        if foreign.is_empty() {
            format!("{} definitions and policies", pack.ground.len())
        } else {
            format!("not what stands below gates/ at the head: {}", foreign.join(", "))
        },
    );
}

/// The measured code is the head's: the same trees, and no changed file outside of them unless the commit is the same.
fn content(checks: &mut Checks, claim: &Claim<'_>, pack: &PackFacts) {
    let differ: Vec<String> = pack
        .trees
        .iter()
        .filter(|(path, oid)| oid.is_none() || claim.trees_of_head.get(*path) != Some(oid))
        .map(|(path, oid)| format!("{path}: {}", oid.as_deref().unwrap_or("unknown")))
        .collect();
    checks.note(
        "content_trees",
        differ.is_empty() && !pack.trees.is_empty(),
        if differ.is_empty() {
            format!("{} trees", pack.trees.len())
        } else {
            format!("differ from the head: {}", differ.join(", "))
        },
    );
    let same_commit = pack.head_sha == claim.decision.head;
    let outside: Vec<&str> = claim
        .decision
        .files
        .iter()
        .filter(|file| file.gate != Required::None)
        .map(|file| file.path.as_str())
        .filter(|path| !pack.trees.keys().any(|tree| is_below(tree, path)))
        .collect();
    checks.note(
        "content_covers_change",
        same_commit || outside.is_empty(),
        match (same_commit, outside.as_slice()) {
            (true, _) => "the pack measured this very commit".to_owned(),
            (false, []) => "every gated file lies in a compared tree".to_owned(),
            (false, some) => {
                format!("not in a compared tree, so only the same commit counts: {}", some.join(", "))
            }
        },
    );
}

fn is_below(tree: &str, path: &str) -> bool {
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::sha256;
    use crate::lane::FileDecision;

    struct World {
        decision: Decision,
        trees: BTreeMap<String, Option<String>>,
        all: Vec<String>,
        protected: bool,
        gates_of_head: BTreeSet<Sha256Digest>,
        pack: PackFacts,
        run: RunFacts,
    }

    fn step(name: &str, conclusion: &str) -> StepFact {
        StepFact { name: name.into(), conclusion: Some(conclusion.into()) }
    }

    fn proved() -> World {
        let trees: BTreeMap<String, Option<String>> =
            [("ebpf".to_owned(), Some("t1".to_owned())), ("src/capture".to_owned(), Some("t2".to_owned()))]
                .into();
        let file = |path: &str, gate: Required| FileDecision {
            path: path.into(),
            rules: vec!["r".into()],
            gate,
            reason: "r".into(),
        };
        World {
            decision: Decision {
                schema: "assay.gates.lane.v0",
                base: "b".into(),
                head: "h2".into(),
                required: Required::All,
                files: vec![file("README.md", Required::None), file("ebpf/a.c", Required::All)],
            },
            trees: trees.clone(),
            all: vec!["one".into(), "two".into()],
            protected: true,
            gates_of_head: [sha256(b"d")].into(),
            pack: PackFacts {
                zip_digest: Some("sha256:aa".into()),
                repository: "o/r".into(),
                head_sha: "h1".into(),
                workflow_path: ".github/workflows/gates.yml".into(),
                run_id: "7".into(),
                run_attempt: "1".into(),
                selection: "all".into(),
                build_ebpf: "true".into(),
                gates: vec![("one".into(), "passed".into()), ("two".into(), "passed".into())],
                ground: ["one", "two"]
                    .map(|gate| (format!("payload/gates/{gate}/definition.yaml"), sha256(b"d")))
                    .into(),
                trees,
                chains: vec![Chained {
                    gate: "one".into(),
                    lines: vec!["chain begin gate=one nonce=0".into()],
                }],
            },
            run: RunFacts {
                run_id: "7".into(),
                run_attempt: "1".into(),
                event: "workflow_dispatch".into(),
                workflow_path: ".github/workflows/gates.yml".into(),
                head_sha: "h1".into(),
                status: "completed".into(),
                conclusion: Some("success".into()),
                artifacts: [("assay-runner-delegated-proof-pack-7".to_owned(), Some("sha256:aa".to_owned()))]
                    .into(),
                steps: vec![
                    step("Set up job", "success"),
                    step("Gate: one", "success"),
                    step("Gate: two", "success"),
                ],
                logs: vec![JobLog {
                    job: "Measure".into(),
                    steps: vec![(
                        "Gate: one".into(),
                        "2026-11-21T10:00:00Z".parse().unwrap(),
                        "2026-11-21T10:00:09Z".parse().unwrap(),
                    )],
                    text: "2026-11-21T10:00:01.5Z chain begin gate=one nonce=0\n".into(),
                }],
            },
        }
    }

    fn failed(world: &World) -> Vec<&'static str> {
        let claim = Claim {
            decision: &world.decision,
            repository: "o/r",
            workflow_path: ".github/workflows/gates.yml",
            trees_of_head: &world.trees,
            all: &world.all,
            base: ("main", world.protected),
            gates_of_head: &world.gates_of_head,
        };
        check(&claim, &world.pack, &world.run)
            .into_iter()
            .filter(|check| !check.held)
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn a_pack_that_agrees_with_git_and_with_the_api_proves_the_head() {
        assert_eq!(failed(&proved()), [""; 0]);
    }

    #[test]
    fn each_single_disagreement_is_found_and_named() {
        type Change = (&'static str, fn(&mut World));
        let changes: [Change; 27] = [
            ("chain_in_log", |w| w.run.logs.clear()),
            ("chain_in_log", |w| w.pack.chains.clear()),
            ("chain_in_log", |w| w.pack.chains[0].lines[0].push('1')),
            ("base_protected", |w| w.protected = false),
            ("judged_by_head", |w| w.gates_of_head.clear()),
            ("judged_by_head", |w| w.pack.ground.pop_first().map_or((), drop)),
            ("repository", |w| w.pack.repository = "o/fork".into()),
            ("workflow_path", |w| w.pack.workflow_path = "x.yml".into()),
            ("run_workflow_path", |w| w.run.workflow_path = "x.yml".into()),
            ("run_event", |w| w.run.event = "pull_request".into()),
            ("run_attempt", |w| w.run.run_attempt = "2".into()),
            ("run_head", |w| w.run.head_sha = "h0".into()),
            ("run_status", |w| w.run.status = "in_progress".into()),
            ("run_conclusion", |w| w.run.conclusion = None),
            ("build_ebpf", |w| w.pack.build_ebpf = "false".into()),
            ("artifact_digest", |w| w.pack.zip_digest = Some("sha256:bb".into())),
            ("artifact_digest", |w| w.pack.zip_digest = None),
            ("artifact_digest", |w| w.run.artifacts.clear()),
            ("selection", |w| w.pack.selection = "one".into()),
            ("gates_present", |w| w.all.push("three".into())),
            ("gates_once", |w| w.pack.gates.push(("one".into(), "passed".into()))),
            ("steps_witness_gates", |w| w.run.steps[1].conclusion = Some("failure".into())),
            ("steps_witness_gates", |w| w.run.steps[2].name = "Gate:two".into()),
            ("gates_claim_steps", |w| w.run.steps.push(step("Gate: three", "success"))),
            ("content_trees", |w| w.trees.insert("ebpf".into(), Some("t9".into())).map_or((), drop)),
            ("content_trees", |w| w.pack.trees.insert("src/capture".into(), None).map_or((), drop)),
            ("content_covers_change", |w| w.decision.files[1].path = "ebpfx/a.c".into()),
        ];
        for (expected, change) in changes {
            let mut world = proved();
            change(&mut world);
            assert_eq!(failed(&world), [expected]);
        }
    }

    #[test]
    fn a_gate_that_did_not_pass_proves_nothing_though_its_step_is_red_too() {
        let mut world = proved();
        world.pack.gates[1].1 = "failed".into();
        world.run.steps[2].conclusion = Some("failure".into());
        assert_eq!(failed(&world), ["gates_passed"]);
    }

    #[test]
    fn an_empty_pack_proves_nothing() {
        let mut world = proved();
        world.pack.gates.clear();
        world.pack.trees.clear();
        world.run.steps.clear();
        for name in
            ["gates_passed", "gates_present", "steps_witness_gates", "content_trees", "content_covers_change"]
        {
            assert!(failed(&world).contains(&name), "{name}");
        }
    }

    #[test]
    fn the_very_commit_needs_no_compared_tree_for_a_changed_file() {
        let mut world = proved();
        world.decision.files[1].path = "elsewhere/a.c".into();
        world.decision.head = "h1".into();
        assert_eq!(failed(&world), [""; 0]);
    }
}
