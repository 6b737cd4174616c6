//! The order of things: what is measured when, what is on disk before what, what a second invocation keeps.

use super::*;
use crate::capture::{
    CaptureProof, Effect, INVARIANTS, Invariant, NetworkCounts, Operation, Outcome, PathState, PathValue,
    Summary,
};
use crate::evidence::{Logs, Outputs, RedactionKey, RunFacts, assemble};
use crate::host::WORK;
use std::path::PathBuf;

mod mutations;

thread_local! {
    /// Who told the invocation to stop.
    static TOLD: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// Writes a run's evidence as the kernel would have given it, and notes each measurement.
struct Script {
    key: RedactionKey,
    measured: Vec<String>,
    /// What was said to come next, each time.
    announced: Vec<Option<String>>,
    /// What each measurement does beside what kernel-only does: gate, run, change.
    changes: Vec<(&'static str, u32, Change)>,
    /// Windows of every run.
    calls: Vec<crate::capture::CallWindow>,
    /// One more effect, by run.
    extra: Vec<(u32, Effect)>,
}

#[derive(Clone, Copy)]
enum Change {
    ExtraWrite,
    ReadsMore,
    Incomplete,
    Interrupted,
    CannotMeasure,
    /// Somebody tells the driver to stop when this run is over.
    ToldAfterwards,
    /// As [`Change::CannotMeasure`], because somebody told the driver to stop.
    ToldAndCannotMeasure,
}

impl Script {
    fn new(changes: &[(&'static str, u32, Change)]) -> Self {
        Self {
            key: RedactionKey::fixed([7; 32]),
            measured: Vec::new(),
            announced: Vec::new(),
            changes: changes.to_vec(),
            calls: Vec::new(),
            extra: Vec::new(),
        }
    }
}

fn opened(seq: u64, path: &str, flags: u64) -> Effect {
    Effect {
        seq,
        operation: Operation::Open,
        syscall: "openat".into(),
        path: Some(PathValue {
            value: format!("{WORK}/{path}"),
            state: PathState::Resolved,
            requested: None,
        }),
        flags: Some(flags),
        mode: Some(0),
        return_value: Some(3),
        ..executed("", 0)
    }
}

fn executed(program: &str, seq: u64) -> Effect {
    Effect {
        seq,
        time_ns: seq,
        pid: 10,
        tid: 10,
        process: 0,
        cgroup_id: 7,
        call: None,
        operation: Operation::Exec,
        syscall: "execve".into(),
        path: Some(PathValue { value: program.into(), state: PathState::Resolved, requested: None }),
        target: None,
        endpoint: None,
        flags: None,
        mode: None,
        resolve: None,
        return_value: Some(0),
        detail: None,
        marks: Vec::new(),
        server: None,
        object: None,
        argv: Vec::new(),
    }
}

const CREATE: u64 = 0o1101;

/// A proof whose counters are those of `effects` and of two canaries.
fn proof(run_id: &str, reasons: Vec<String>, effects: &[Effect]) -> CaptureProof {
    let count = |operation| effects.iter().filter(|effect| effect.operation == operation).count() + 2;
    let (opens, execs) = (count(Operation::Open) + 2, count(Operation::Exec));
    let counts = [("openat", opens), ("exec", execs), ("birth", 2), ("exit", 2)];
    let facts = ["kernel_release", "kernel_btf", "object_sha256"];
    let invariant = |name: &&str| {
        let seen = match *name {
            "emitted_equals_read" | "kept_equals_reread" => (opens + execs + 4).to_string(),
            "births_recorded" | "deaths_recorded" => "2".to_owned(),
            _ => "0".to_owned(),
        };
        Invariant {
            name: (*name).to_owned(),
            held: true,
            expected: seen.clone(),
            seen,
            witness: "a script".to_owned(),
        }
    };
    CaptureProof {
        schema: "assay.gates.capture_proof.v0".into(),
        run_id: run_id.to_owned(),
        complete: reasons.is_empty(),
        reasons,
        invariants: INVARIANTS.iter().map(invariant).collect(),
        blind_spots: vec!["none in this script".into()],
        catalogue: None,
        environment: counts
            .iter()
            .map(|(hook, count)| (format!("records.{hook}"), format!("{count}/0")))
            .chain(facts.map(|name| (name.to_owned(), "0".to_owned())))
            .collect(),
        policy_origin: None,
        origins: Default::default(),
    }
}

impl Measure for Script {
    fn measure(&mut self, gate: &Entry, Run { number: run, out, next }: Run<'_>) -> Result<Measured> {
        self.announced.push(next.map(|(gate, out)| {
            format!("{}#{}", gate.definition.id, out.path().display().to_string().rsplit('-').next().unwrap())
        }));
        let id = gate.definition.id.clone();
        self.measured.push(format!("{id}#{run}"));
        assert_eq!(out.entries().unwrap().len(), 0, "a run starts in an empty folder");
        let change =
            self.changes.iter().find(|(g, r, _)| *g == id && *r == run).map(|(_, _, change)| *change);
        if matches!(change, Some(Change::ToldAfterwards | Change::ToldAndCannotMeasure)) {
            TOLD.with(|told| *told.borrow_mut() = Some("SIGTERM".into()));
        }
        if matches!(change, Some(Change::CannotMeasure | Change::ToldAndCannotMeasure)) {
            return Err(Error::new(Code::Internal, "no kernel today"));
        }
        let mut effects =
            vec![opened(0, "input.txt", CREATE), opened(1, "input.txt", 0), opened(2, "output.txt", CREATE)];
        effects.push(executed("/usr/bin/env", 3));
        if matches!(change, Some(Change::ExtraWrite)) {
            effects.push(opened(4, "input.txt", 0o2001));
        }
        if matches!(change, Some(Change::ReadsMore)) {
            effects.push(opened(4, "secrets.txt", 0));
        }
        effects.extend(self.extra.iter().filter(|(of, _)| *of == run).map(|(_, effect)| effect.clone()));
        let reasons =
            if matches!(change, Some(Change::Incomplete)) { vec!["moved_task".to_owned()] } else { vec![] };
        let interrupted = matches!(change, Some(Change::Interrupted));
        let summary = Summary {
            run_id: gate.definition.run_id.clone(),
            captured: true,
            outcome: Outcome {
                exit_code: Some(0),
                signal: None,
                elapsed_ms: 1,
                timed_out: false,
                interrupted,
                exceeded: None,
                stragglers: 0,
            },
            session_cgroup_id: Some(u64::from(run)),
            cgroup_clean: reasons.is_empty(),
            ringbuf_drops: 0,
            size_mismatches: 0,
            hooks: Default::default(),
            network: NetworkCounts::default(),
            calls: self.calls.clone(),
            proof: proof(&gate.definition.run_id, reasons, &effects),
        };
        let facts = RunFacts {
            run_id: &summary.run_id,
            agent_shim: "none",
            command: &gate.definition.command,
            env_keys: &[],
            work: Some(crate::host::WORK),
            kernel_event: Default::default(),
        };
        let outputs = Outputs {
            archive: out.join(&gate.definition.archive),
            details: Some(out.clone()),
            extract: Some(out.join("extract")),
        };
        let written =
            assemble(&facts, &summary, effects.into_iter().map(Ok), &Logs::default(), &self.key, &outputs)?;
        Ok(Measured { summary, effects: written.effects, without_archive: None })
    }
}

#[derive(Default)]
struct Heard(Vec<Event>);

impl Sink for Heard {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.push(event.clone());
        Ok(())
    }
}

struct Bench {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

/// Two gates like kernel-only; `second` has `first` as its baseline.
fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let kernel_only = include_str!("../../gates/kernel-only/gate.yaml");
    let scenario = "scenario: {id: matched_safe_read, role: baseline, expected_verdict: positive_join, join_key: tool_call_id, join_grade: strong, baseline: first, non_claims: [x]}\n";
    for (id, group, tail) in [("first", "all", ""), ("second", "all", ""), ("needy", "opt-in", scenario)] {
        let text = kernel_only.replacen("id: kernel-only", &format!("id: {id}"), 1).replacen(
            "group: all",
            &format!("group: {group}"),
            1,
        );
        let gate = folder.path().join("gates").join(id);
        std::fs::create_dir_all(&gate).unwrap();
        std::fs::write(gate.join("gate.yaml"), text + tail).unwrap();
    }
    let catalog = Catalog::load(&folder.path().join("gates")).unwrap();
    Bench { folder, catalog }
}

fn here() -> Source {
    Source {
        head_sha: "c0ffee".into(),
        dirty: false,
        r#ref: "refs/heads/main".into(),
        repository: "o/n".into(),
        workflow: None,
    }
}

impl Bench {
    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn go(&self, gates: &str, resume: bool, script: &mut Script) -> Result<(Finished, Vec<Event>)> {
        self.go_from(here(), gates, resume, script)
    }

    fn go_from(
        &self,
        source: Source,
        gates: &str,
        resume: bool,
        script: &mut Script,
    ) -> Result<(Finished, Vec<Event>)> {
        self.go_with(source, gates, resume, BaselineUse::None, script)
    }

    fn go_with(
        &self,
        source: Source,
        gates: &str,
        resume: bool,
        baselines: BaselineUse,
        script: &mut Script,
    ) -> Result<(Finished, Vec<Event>)> {
        let selection = self.catalog.select(&[gates.to_owned()])?;
        let options = Options {
            runs: 3,
            resume,
            selection: None,
            slow: 1,
            baselines,
            source,
            now: || "2026-01-01T00:00:00Z".into(),
            told_to_stop: || TOLD.with(|told| told.borrow().clone()),
        };
        let root = ProofRoot::open(&self.root())?;
        let mut heard = Heard::default();
        let finished = run(&self.catalog, &selection, &options, &root, script, &mut heard)?;
        Ok((finished, heard.0))
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.root().join(file)).unwrap()
    }
}

#[test]
fn three_equal_runs_pass_and_leave_everything_on_disk() {
    let bench = bench();
    let mut script = Script::new(&[]);
    let (finished, events) = bench.go("all", false, &mut script).unwrap();
    assert_eq!(finished.exit, Exit::Passed, "{:?}", finished.verdicts);
    assert_eq!(script.measured, ["first#1", "first#2", "first#3", "second#1", "second#2", "second#3"]);
    let announced: Vec<_> = script.announced.into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(announced, ["first#2", "first#3", "second#1", "second#2", "second#3", ""]);
    assert_eq!(bench.text("gates/first/status.txt"), "passed\n");
    let log = bench.text("gates/first/gate.log");
    assert_eq!(log.matches("PASS: runner-spike kernel-only acceptance\n").count(), 3, "{log}");
    assert_eq!(log.matches("PASS: runner-spike kernel-only three-run determinism\n").count(), 1, "{log}");
    for file in ["result.json", "effects.ndjson", "extract/manifest.json", "runner-kernel-only.tar.gz"] {
        assert!(bench.root().join("gates/first/run-3").join(file).exists(), "{file}");
    }
    let record: RunRecord = serde_json::from_str(&bench.text("run.json")).unwrap();
    assert_eq!((record.selection.as_str(), record.exit), ("all", Some(0)));
    assert!(matches!(events.last(), Some(Event::SessionFinished { exit: 0, .. })));
}

#[test]
fn an_extra_write_in_one_run_breaks_agreement_even_where_acceptance_holds() {
    let bench = bench();
    let (finished, _) =
        bench.go("first", false, &mut Script::new(&[("first", 2, Change::ExtraWrite)])).unwrap();
    assert_eq!(finished.exit, Exit::RunsDisagree);
    let verdict = &finished.verdicts[0];
    let divergence = verdict.determinism.as_ref().unwrap().divergence.as_ref().unwrap();
    assert_eq!((divergence.artifact.as_str(), divergence.runs), ("surface.json", [1, 2]));
    assert!(bench.text("gates/first/gate.log").contains("diff | "));
    assert_eq!(bench.text("gates/first/status.txt"), "failed\n");
}

#[test]
fn an_incomplete_run_is_never_a_pass() {
    let bench = bench();
    let (finished, _) =
        bench.go("first", false, &mut Script::new(&[("first", 3, Change::Incomplete)])).unwrap();
    assert_eq!(finished.exit, Exit::CaptureIncomplete);
    assert!(
        finished.verdicts[0].reasons.iter().any(|reason| reason == "run 3: capture incomplete: moved_task")
    );
    assert_eq!(bench.text("gates/first/status.txt"), "incomplete\n");
}

#[test]
fn an_interruption_ends_the_invocation_and_resume_goes_on_there() {
    let bench = bench();
    let mut script = Script::new(&[("first", 2, Change::Interrupted)]);
    let (finished, _) = bench.go("all", false, &mut script).unwrap();
    assert_eq!((finished.exit, script.measured.len()), (Exit::Infrastructure, 2));
    let mut again = Script::new(&[]);
    let (finished, _) = bench.go("all", true, &mut again).unwrap();
    assert_eq!(finished.exit, Exit::Passed);
    assert_eq!(again.measured, ["first#2", "first#3", "second#1", "second#2", "second#3"]);
    assert_eq!(again.announced, vec![None; 5], "nobody knows yet what will be kept");
}

/// Whenever the word comes, what was measured is kept, the rest says why it is not there, and going on measures the rest.
#[test]
fn told_to_stop_at_any_moment_it_ends_with_13_and_going_on_measures_what_is_missing() {
    let order = ["first#1", "first#2", "first#3", "second#1", "second#2", "second#3"];
    for (at, name) in order.iter().enumerate() {
        let changes = [Change::Interrupted, Change::ToldAfterwards, Change::ToldAndCannotMeasure];
        // Each way at every other moment.
        for (_, change) in changes.into_iter().enumerate().filter(|(way, _)| (way + at) % 2 == 0) {
            let (gate, run) = name.split_once('#').unwrap();
            let bench = bench();
            let mut script = Script::new(&[(gate, run.parse().unwrap(), change)]);
            let (finished, events) = bench.go("all", false, &mut script).unwrap();
            TOLD.with(|told| *told.borrow_mut() = None);
            assert_eq!(script.measured, order[..=at], "nothing is measured behind the word");
            let kept = if matches!(change, Change::ToldAfterwards) { at + 1 } else { at };
            // The last run was over: whoever measured the gates is not the one who lacks something.
            let whole = kept == order.len();
            let stopped = if whole { Exit::Passed } else { Exit::Infrastructure };
            assert_eq!(finished.exit, stopped, "{name}: {:?}", finished.verdicts);
            for verdict in finished.verdicts.iter().filter(|verdict| !verdict.passed()) {
                assert_eq!(
                    (verdict.exit, verdict.status.word()),
                    (13, "incomplete"),
                    "{:?}",
                    verdict.reasons
                );
                assert!(verdict.is_interrupted(), "{:?}", verdict.reasons);
                assert_eq!(bench.text(&format!("gates/{}/status.txt", verdict.gate)), "incomplete\n");
            }
            assert!(events.iter().any(|event| matches!(event, Event::SessionFinished { .. })));
            let mut again = Script::new(&[]);
            let (finished, _) = bench.go("all", true, &mut again).unwrap();
            assert_eq!(
                (finished.exit, again.measured),
                (Exit::Passed, order[kept..].iter().map(ToString::to_string).collect()),
                "{name}"
            );
        }
    }
}

/// A driver that is killed while it ends a gate: the chain is cut at every byte of its last two links, or the log has not got
/// its end. Going on measures nothing anew and ends the chain, once, in the log too.
#[test]
fn a_gate_whose_chain_has_no_end_is_not_done_and_going_on_ends_it() {
    let folder = |bench: &Bench| bench.root().join("gates/first");
    let whole = bench();
    whole.go("first", false, &mut Script::new(&[])).unwrap();
    let chain = std::fs::read(folder(&whole).join("chain.ndjson")).unwrap();
    let log = whole.text("gates/first/gate.log");
    let ends: Vec<usize> =
        chain.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    let second_to_last = ends[ends.len() - 3];
    let without_end =
        log.lines().filter(|line| !line.starts_with("chain end")).map(|line| format!("{line}\n"));
    let without_end: String = without_end.collect();
    assert_ne!(without_end, log);
    let cuts =
        (second_to_last..chain.len()).step_by(53).chain([chain.len() - 1]).map(|at| (&chain[..at], &log));
    for (chain, log) in cuts.chain([(&chain[..], &without_end)]) {
        std::fs::write(folder(&whole).join("chain.ndjson"), chain).unwrap();
        std::fs::write(folder(&whole).join("gate.log"), log).unwrap();
        let mut again = Script::new(&[]);
        let (finished, _) = whole.go("first", true, &mut again).unwrap();
        assert_eq!((finished.exit, again.measured.len()), (Exit::Passed, 0));
        let mut previous = None;
        let text = whole.text("gates/first/chain.ndjson");
        for line in text.lines() {
            let link: super::chain::Link = serde_json::from_str(line).unwrap();
            assert_eq!(link.previous, previous, "{text}");
            previous = Some(crate::files::sha256(line.as_bytes()));
        }
        let end = format!("chain end gate=first head={}\n", previous.unwrap());
        assert_eq!(whole.text("gates/first/gate.log").matches(&end).count(), 1);
    }
    let mut done = Script::new(&[]);
    let before = whole.text("gates/first/chain.ndjson");
    whole.go("first", true, &mut done).unwrap();
    assert_eq!(whole.text("gates/first/chain.ndjson"), before, "what is done is left as it is");
}

/// Readers harvest one line of each accepted run, whatever a power cut left of the log.
#[test]
fn going_on_says_each_pass_once_whatever_was_left_of_the_log() {
    for lose in [true, false] {
        let bench = bench();
        bench.go("first", false, &mut Script::new(&[("first", 3, Change::Interrupted)])).unwrap();
        let log = bench.root().join("gates/first/gate.log");
        if lose {
            std::fs::write(&log, "PASS: runner-sp\ngate first: a li").unwrap();
        } else {
            let archive = bench.root().join("gates/first/run-2/runner-kernel-only.tar.gz");
            std::fs::write(archive, "torn").unwrap();
        }
        let (finished, _) = bench.go("first", true, &mut Script::new(&[])).unwrap();
        assert_eq!(finished.exit, Exit::Passed);
        let text = bench.text("gates/first/gate.log");
        let passes: Vec<&str> = text.lines().filter(|line| line.starts_with("PASS: ")).collect();
        let accepted = "PASS: runner-spike kernel-only acceptance";
        let agreed = "PASS: runner-spike kernel-only three-run determinism";
        assert_eq!(passes, [accepted, accepted, accepted, agreed], "{text}");
    }
}

#[test]
fn what_failed_before_the_word_to_stop_stays_failed() {
    let bench = bench();
    let changes = [("first", 1, Change::ExtraWrite), ("first", 2, Change::ToldAfterwards)];
    let (finished, _) = bench.go("all", false, &mut Script::new(&changes)).unwrap();
    TOLD.with(|told| *told.borrow_mut() = None);
    assert_eq!(finished.exit, Exit::RunsDisagree, "{:?}", finished.verdicts);
}

#[test]
fn a_result_that_was_changed_on_disk_is_measured_again() {
    let bench = bench();
    bench.go("first", false, &mut Script::new(&[])).unwrap();
    std::fs::remove_file(bench.root().join("gates/first/verdict.json")).unwrap();
    let archive = bench.root().join("gates/first/run-2/runner-kernel-only.tar.gz");
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let mut again = Script::new(&[]);
    bench.go("first", true, &mut again).unwrap();
    assert_eq!(again.measured, ["first#2"]);
}

#[test]
fn a_host_that_cannot_measure_stops_the_gate_but_not_the_next() {
    let bench = bench();
    let mut script = Script::new(&[("first", 1, Change::CannotMeasure)]);
    let (finished, _) = bench.go("all", false, &mut script).unwrap();
    assert_eq!(script.measured, ["first#1", "second#1", "second#2", "second#3"]);
    assert_ne!(finished.exit, Exit::Passed);
}

#[test]
fn without_its_baseline_a_scenario_is_skipped_and_its_row_is_inconclusive() {
    let bench = bench();
    let mut script = Script::new(&[("first", 1, Change::CannotMeasure)]);
    let (finished, _) = bench.go("needy", false, &mut script).unwrap();
    assert_eq!(script.measured, ["first#1"], "needy needs first as its baseline");
    assert_eq!(finished.verdicts[1].status, crate::judge::GateStatus::Skipped);
    assert_eq!(finished.verdicts[1].reasons[0], "its baseline first is incomplete");
    assert_eq!(finished.verdicts[1].exit, 12);
    let row: serde_json::Value =
        serde_json::from_str(&bench.text("runs/matched_safe_read/scenario-verdict.json")).unwrap();
    assert_eq!(
        (&row["verdict"], &row["evidence_pack_claim_class"]),
        (&"inconclusive".into(), &"diagnostic".into())
    );
}

#[test]
fn a_gate_asked_for_alone_brings_its_baseline_and_a_baseline_that_passed_is_kept() {
    let bench = bench();
    let mut script = Script::new(&[]);
    let (finished, _) = bench.go("needy", false, &mut script).unwrap();
    assert_eq!(script.measured, ["first#1", "first#2", "first#3", "needy#1", "needy#2", "needy#3"]);
    assert_eq!(finished.exit, Exit::CaptureIncomplete, "a scenario without a tool call has no finding");
    let record: RunRecord = serde_json::from_str(&bench.text("run.json")).unwrap();
    assert_eq!(record.added, ["first"]);
    let mut again = Script::new(&[]);
    bench.go("needy", false, &mut again).unwrap();
    assert_eq!(again.measured, ["needy#1", "needy#2", "needy#3"]);
}

#[test]
fn a_baseline_that_failed_in_an_earlier_step_is_not_measured_until_it_passes() {
    let bench = bench();
    bench.go("first", false, &mut Script::new(&[("first", 2, Change::ExtraWrite)])).unwrap();
    let mut next_step = Script::new(&[]);
    let (finished, _) = bench.go("needy", false, &mut next_step).unwrap();
    assert_eq!(next_step.measured, [""; 0]);
    assert_eq!(finished.verdicts[1].status, crate::judge::GateStatus::Skipped);
    bench.go("second", false, &mut Script::new(&[])).unwrap();
    let record: RunRecord = serde_json::from_str(&bench.text("run.json")).unwrap();
    assert_eq!(record.exit, Some(12), "the last step passed, the invocation as a whole did not");
}

#[test]
fn a_root_of_another_commit_is_refused() {
    let bench = bench();
    bench.go("first", false, &mut Script::new(&[])).unwrap();
    let other = Source {
        head_sha: "beef".into(),
        dirty: false,
        r#ref: "r".into(),
        repository: "o/n".into(),
        workflow: None,
    };
    let error = bench.go_from(other, "first", true, &mut Script::new(&[])).unwrap_err();
    assert_eq!(error.code(), Code::ResumeMismatch);
}

#[test]
fn a_folder_with_other_content_is_not_taken_for_a_root() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "").unwrap();
    assert_eq!(ProofRoot::open(folder.path()).unwrap_err().code(), Code::RootTaken);
}

#[test]
fn a_gate_that_touches_more_than_its_baseline_fails_with_what_is_new() {
    let bench = bench();
    let go = |baselines, changes: &[(&'static str, u32, Change)]| {
        bench.go_with(here(), "first", false, baselines, &mut Script::new(changes)).unwrap().0
    };
    let without = go(BaselineUse::Against, &[]);
    assert_eq!(without.exit, Exit::AcceptanceFailed);
    assert!(
        without.verdicts[0].reasons[0].contains("--update-baseline"),
        "{:?}",
        without.verdicts[0].reasons
    );
    assert_eq!(go(BaselineUse::Update, &[]).exit, Exit::Passed);
    assert_eq!(go(BaselineUse::Against, &[]).exit, Exit::Passed);
    let every_run = [1, 2, 3].map(|run| ("first", run, Change::ReadsMore));
    let grown = go(BaselineUse::Against, &every_run);
    assert_eq!(grown.exit, Exit::AcceptanceFailed);
    let reason = &grown.verdicts[0].reasons[0];
    assert!(
        reason.starts_with("baseline: run 1: not in the baseline: ") && reason.contains("/secrets.txt"),
        "{reason}"
    );
    assert!(bench.root().join("gates/first/baseline_diff.json").exists());
}
