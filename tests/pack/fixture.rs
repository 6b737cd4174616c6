//! A small proof root, as `run` leaves one: measured by a script instead of a kernel, judged and written by the code that
//! does so in earnest. And the provenance that goes with it.

use crate::run::{KEY, decision, effects, logs, open, summary, window};
use assay_gates::capture::{Effect, INVARIANTS, Invariant, Operation, Summary};
use assay_gates::error::Result;
use assay_gates::evidence::origins::origins;
use assay_gates::evidence::{Logs, Outputs, RunFacts, assemble};
use assay_gates::files::sha256;
use assay_gates::gate::{Catalog, Entry};
use assay_gates::judge::claims::ClaimClass;
use assay_gates::pack::{BuiltObject, Provenance};
use assay_gates::report::{Event, Sink};
use assay_gates::run::{BaselineUse, Measure, Measured, Options, ProofRoot, Run, Source};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Facts of a dispatch, without git and without a clock.
pub fn provenance() -> Provenance {
    let variables: BTreeMap<&str, &str> = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "owner/name"),
        ("GITHUB_SHA", HEAD),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_WORKFLOW", "Gates"),
        ("GITHUB_WORKFLOW_REF", "owner/name/.github/workflows/gates.yml@refs/heads/main"),
        ("GITHUB_WORKFLOW_SHA", HEAD),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_EVENT_NAME", "workflow_dispatch"),
        ("RUNNER_ENVIRONMENT", "self-hosted"),
    ]
    .into();
    let object = BuiltObject {
        bytes: OBJECT.to_vec(),
        compiler: "clang version 14.0.6".to_owned(),
        flags: "-O2 -g -target bpf".to_owned(),
        sources: BTreeMap::new(),
    };
    Provenance::gather(
        |name| variables.get(name).map(|value| (*value).to_owned()),
        Some(r#"{"inputs":{"gates":"all","build_ebpf":"true"}}"#),
        Path::new("/nonexistent"),
        Some(object),
    )
}

/// What stands for the kernel programs.
pub const OBJECT: &[u8] = b"\x7fELF a stand-in for the kernel programs";
/// The commit that everything was measured on.
pub const HEAD: &str = "0123456789012345678901234567890123456789";
/// Key of the gate in [`passed_root`].
pub const GATE: &str = "openai-agents-hidden-write";
/// Its archives.
pub const ARCHIVE: &str = "runner-kernel-only.tar.gz";
/// The policy of every gate that has one.
pub const POLICY: &str = "tools: {allow: [read_file]}\n";

/// Writes `text` below `root`, folders included.
pub fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let place = root.join(path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, text).unwrap();
}

/// `run.json` with these gates, of an invocation that measured none of them.
pub fn run_record(root: &Path, gates: &[&str]) {
    let record = json!({
        "schema": "assay.gates.run.v0", "session": "s", "started_at": "2026-11-21T10:00:00Z", "finished_at": null,
        "exit": null, "tool_version": "0", "object_sha256": null, "gates": gates, "added": [], "selection": "all",
        "runs": 3, "host": {"system": "Linux", "kernel": "6.18", "architecture": "x86_64"},
        "source": {"head_sha": HEAD, "dirty": false, "ref": "refs/heads/main", "repository": "owner/name"},
    });
    put(root, "run.json", record.to_string());
}

/// `doctor.json` of a fit host, with its spool at `place`.
pub fn doctor(root: &Path, place: &str) {
    let report = json!({
        "schema": "assay.gates.doctor.v0", "fit": true,
        "checks": [
            {"name": "disk", "status": "PASS", "found": format!("51.1 GiB free in {place}")},
            {"name": "clock", "status": "WARN", "found": "not kept by a time service", "fix": "timedatectl set-ntp true"},
        ],
    });
    put(root, "doctor.json", report.to_string());
}

/// A gate's definition. `scenario` makes it one whose report and measurement must agree.
pub fn definition(id: &str, class: ClaimClass, scenario: bool) -> String {
    let policy = class != ClaimClass::KernelAlone;
    let sdk = class == ClaimClass::ThreeLayers;
    let word = |there| if there { "required" } else { "absent" };
    let mut text = format!(
        "schema: assay.gates.gate.v0\nid: {id}\ntitle: A gate\ngroup: all\nlabel: OpenAI Agents kernel+policy\n\
         run_id: run_fixture\narchive: {ARCHIVE}\nagent_shim: openai-agents\ncommand: [node, agent.mjs]\n\
         layers: {{policy: {}, sdk: {}}}\n",
        word(policy),
        word(sdk)
    );
    if policy {
        text.push_str("policy: {file: policy.yaml}\n");
    }
    text.push_str("expect:\n  work_paths: [input.txt]\n  execs: [/usr/bin/node]\n  opens:\n    - {path: input.txt, access: read}\n");
    if policy {
        text.push_str("  decisions:\n    - {tool_call_id: tc_1, tool: read_file, decision: allow}\n");
        text.push_str(
            "  tool_effects:\n    tc_1:\n      - {operation: open, path: policy-input.txt, access: read}\n",
        );
    }
    if sdk {
        text.push_str("  sdk:\n    source: openai-agents-fixture\n    name: \"@openai/agents\"\n    version: 0.11.4\n    events: [tool_call_started, tool_call_completed, run_finished]\n    tool_call_ids: [tc_1]\n");
    }
    if scenario {
        text.push_str("scenario:\n  id: matched_safe_read\n  role: baseline\n  expected_verdict: positive_join\n  join_key: tool_call_id\n  join_grade: strong\n  non_claims: [does_not_claim_malicious_behavior]\n");
    }
    text
}

/// `summary` with a proof whose counters are those of `effects`: every invariant held, two canaries beside them. `object` is
/// the digest of the kernel programs.
fn balanced(mut summary: Summary, effects: &[Effect], object: &str) -> Summary {
    let count = |operation| effects.iter().filter(|effect| effect.operation == operation).count() + 2;
    let hooks = [
        ("openat", count(Operation::Open) + 2),
        ("exec", count(Operation::Exec)),
        ("birth", count(Operation::Fork)),
        ("exit", count(Operation::Exit)),
    ];
    let sum: usize = hooks.iter().map(|(_, count)| count).sum();
    let proof = &mut summary.proof;
    let facts = [("kernel_release", "6.18"), ("kernel_btf", "sha256:00"), ("object_sha256", object)];
    proof.environment.extend(facts.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for (hook, count) in hooks {
        proof.environment.insert(format!("records.{hook}"), format!("{count}/0"));
    }
    proof.invariants = INVARIANTS
        .iter()
        .map(|name| {
            let fact = facts.iter().find(|(fact, _)| fact == name).map(|(_, value)| (*value).to_owned());
            let seen = match *name {
                "emitted_equals_read" | "kept_equals_reread" => sum.to_string(),
                "births_recorded" => hooks[2].1.to_string(),
                "deaths_recorded" => hooks[3].1.to_string(),
                _ => "0".to_owned(),
            };
            let expected = if fact.is_some() { "known".to_owned() } else { seen.clone() };
            Invariant {
                name: (*name).to_owned(),
                held: true,
                expected,
                seen: fact.unwrap_or(seen),
                witness: "a script".to_owned(),
            }
        })
        .collect();
    summary
}

/// Measures without a kernel: each run is another, with canaries and kernel times of its own, in whatever root.
pub struct Script {
    measured: u64,
}

impl Script {
    pub fn new() -> Self {
        static MEASURED: AtomicU64 = AtomicU64::new(0);
        Self { measured: MEASURED.fetch_add(1_000, Ordering::Relaxed) }
    }
}

impl Script {
    fn effects(&self, calls: bool) -> Vec<Effect> {
        let mut all = effects();
        if calls {
            // Nothing is written outside of the call, as the report says.
            let exit = all.pop().unwrap();
            all.truncate(3);
            let read = open(3, "/run/assay-gates/work/policy-input.txt", 0o2_000_000, 3);
            all.push(Effect { call: Some("tc_1".to_owned()), ..read });
            all.push(Effect { seq: 4, ..exit });
        }
        for effect in &mut all {
            effect.time_ns = 1_000_000 * (self.measured + 1) + effect.seq;
        }
        all
    }

    fn summary(&self, calls: bool, effects: &[Effect]) -> Summary {
        let mut summary = balanced(summary(), effects, &sha256(OBJECT).to_string());
        if calls {
            summary.calls = vec![window("tc_1", "read_file", false)];
        }
        for (name, number) in [("canary.begin", 2 * self.measured), ("canary.end", 2 * self.measured + 1)] {
            summary.proof.environment.insert(name.to_owned(), format!("{number:032x}"));
        }
        summary.session_cgroup_id = Some(crate::run::CGROUP);
        summary
    }
}

impl Measure for Script {
    fn measure(&mut self, gate: &Entry, run: Run<'_>) -> Result<Measured> {
        let definition = &gate.definition;
        let calls = definition.policy.is_some();
        let effects = self.effects(calls);
        let mut summary = self.summary(calls, &effects);
        summary.proof.policy_origin = calls.then(|| "corroborated".to_owned());
        summary.proof.origins = origins(calls.then_some(true), definition.expect.sdk.is_some());
        self.measured += 1;
        let logs = match (calls, definition.expect.sdk.is_some()) {
            (true, true) => logs(),
            (true, false) => Logs { sdk: None, ..logs() },
            _ => Logs::default(),
        };
        if calls {
            let policy = decision(0, "tc_1", "read_file", "allow");
            let line = json!({"type": policy.source_event_type, "source": policy.source, "data": {
                "tool": policy.tool, "decision": policy.decision, "tool_call_id": policy.tool_call_id,
                "policy_digest": sha256(POLICY.as_bytes()).to_string(),
            }});
            run.out.join("policy-decisions.ndjson").write(format!("{line}\n").as_bytes())?;
        }
        if let Some(events) = &logs.sdk {
            let lines: Vec<String> =
                events.iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
            run.out.join("sdk-events.ndjson").write(lines.concat().as_bytes())?;
        }
        run.out.join("stdout.log").write(b"done\n")?;
        let facts = RunFacts {
            run_id: &definition.run_id,
            agent_shim: definition.agent_shim.name(),
            command: &definition.command,
            work: Some("/run/assay-gates/work"),
            env_keys: &[],
            kernel_event: Default::default(),
        };
        let outputs = Outputs {
            archive: run.out.join(&definition.archive),
            details: Some(run.out.clone()),
            extract: Some(run.out.join("extract")),
        };
        let written = assemble(&facts, &summary, effects.into_iter().map(Ok), &logs, &KEY, &outputs)?;
        Ok(Measured { summary, effects: written.effects, without_archive: None })
    }
}

struct Nobody;

impl Sink for Nobody {
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

/// A definition as it stands in the folder of gates, the one of this place among them.
pub fn shipped(text: &str, at: usize) -> String {
    text.replace("group: all", &format!("group: all\norder: {at}"))
}

/// Measures gates of these definitions into `root`, each at most once for a root.
pub fn measured(root: &Path, definitions: &[String]) {
    let folder = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (at, text) in definitions.iter().enumerate() {
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        put(folder.path(), &format!("{id}/gate.yaml"), shipped(text, at));
        put(folder.path(), &format!("{id}/policy.yaml"), POLICY);
        names.push(id);
    }
    let catalog = Catalog::load(folder.path()).unwrap();
    let selection = catalog.select(&names).unwrap();
    let options = Options {
        runs: 3,
        resume: false,
        selection: None,
        slow: 1,
        baselines: BaselineUse::None,
        source: Source {
            head_sha: HEAD.to_owned(),
            dirty: false,
            r#ref: "refs/heads/main".to_owned(),
            repository: "owner/name".to_owned(),
            workflow: None,
        },
        now: || "2026-11-21T10:00:00Z".to_owned(),
        told_to_stop: || None,
    };
    std::fs::create_dir_all(root).unwrap();
    let root = ProofRoot::open(root).unwrap();
    let finished =
        assay_gates::run::run(&catalog, &selection, &options, &root, &mut Script::new(), &mut Nobody)
            .unwrap();
    for verdict in &finished.verdicts {
        assert!(verdict.passed(), "{}: {:?}", verdict.gate, verdict.reasons);
    }
    doctor(&root.path(), "/var/lib");
    // A build with kernel programs names them; the pack of a test has others.
    let record = std::fs::read_to_string(root.path().join("run.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["object_sha256"] = json!(sha256(OBJECT).to_string());
    put(&root.path(), "run.json", assay_gates::files::pretty_sorted(&record).unwrap());
}

/// A root whose one gate passed three times, with the review rows of its scenario.
pub fn passed_root(root: &Path) {
    measured(root, &[definition(GATE, ClaimClass::ThreeLayers, true)]);
}

/// The same root as if other kernel programs had measured.
pub fn by_another_object(root: &Path, object: &[u8]) {
    let file = root.join("run.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, text.replace(&sha256(OBJECT).to_string(), &sha256(object).to_string())).unwrap();
    if !root.join("gates").exists() {
        return;
    }
    for gate in std::fs::read_dir(root.join("gates")).unwrap() {
        for run in 1..=3 {
            let file = gate.as_ref().unwrap().path().join(format!("run-{run}/capture_proof.json"));
            if !file.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let text = text.replace(&sha256(OBJECT).to_string(), &sha256(object).to_string());
            std::fs::write(file, text).unwrap();
        }
    }
    rechain(root);
}

/// The chain over each gate anew, over what stands there now: as somebody writes it who was not there.
pub fn rechain(root: &Path) {
    for gate in std::fs::read_dir(root.join("gates")).into_iter().flatten() {
        let gate = gate.unwrap().path();
        let Ok(text) = std::fs::read_to_string(gate.join("chain.ndjson")) else { continue };
        let (mut lines, mut previous) = (String::new(), serde_json::Value::Null);
        for line in text.lines() {
            let mut link: serde_json::Value = serde_json::from_str(line).unwrap();
            let folder = match link["run"].as_u64() {
                Some(run) => gate.join(format!("run-{run}")),
                None => gate.clone(),
            };
            let named = |name: &str| link["run"].is_u64() || link["files"].get(name).is_some();
            let mut files = BTreeMap::new();
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let (name, path) = entry.map(|entry| (entry.file_name(), entry.path())).unwrap();
                let name = name.into_string().unwrap();
                if path.is_file() && named(&name) {
                    files.insert(name, sha256(&std::fs::read(path).unwrap()).to_string());
                }
            }
            link["files"] = json!(files);
            link["previous"] = previous;
            let line = link.to_string();
            previous = json!(sha256(line.as_bytes()).to_string());
            lines.push_str(&format!("{line}\n"));
        }
        std::fs::write(gate.join("chain.ndjson"), lines).unwrap();
    }
}

/// A root whose gates of three layers passed three times.
pub fn passed_gates(root: &Path, names: &[&str]) {
    let all: Vec<String> =
        names.iter().map(|name| definition(name, ClaimClass::ThreeLayers, *name == GATE)).collect();
    measured(root, &all);
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
