//! The verdicts, recomputed from definition, archives and effects by the code that judged, and held against what the pack
//! states: acceptance, agreement, status, reasons, `PASS` lines, review rows.
//!
//! What the driver alone can say (wall time, a signal, an error outside of any run) is taken as it stands and named as
//! such. Nothing of that kind can make a gate pass.

use super::evidence::GateRun;
use super::{Check, first_difference};
use crate::error::Exit;
use crate::evidence::strict;
use crate::files::{pretty_sorted, sha256};
use crate::gate::{self, Definition};
use crate::host::WORK;
use crate::judge::diff::Baseline;
use crate::judge::scenario::{self, Input, Measured, Review, RunFiles};
use crate::judge::{
    ArchiveRef, GateStatus as Word, GateVerdict, INTERRUPTED, RunAccount, RunVerdict, acceptance_line,
    baseline_missing, compare, declared_failure, determinism_line, run_verdict,
};
use crate::pack::manifest::{GateRow, GateStatus};
use crate::run::RunRecord;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The invocation's record.
pub(super) const RECORD: &str = "payload/run.json";

/// The gates as far as they were gone through.
#[derive(Default)]
struct Gone {
    verdicts: Vec<GateVerdict>,
    definitions: BTreeMap<String, Definition>,
    /// Folders of rows that a definition accounts for.
    rows: BTreeSet<String>,
    /// Gates that were compared with no baseline.
    without_baseline: Vec<String>,
}

impl Check<'_> {
    /// Every gate in its order, since a scenario's baseline is judged before it.
    pub(super) fn judgement(&mut self, measured: &BTreeMap<&str, Vec<GateRun>>) {
        let records = self.records();
        let mut gone = Gone::default();
        for row in &self.manifest.gates {
            let runs = measured.get(row.gate.as_str()).map_or(&[][..], Vec::as_slice);
            self.one_gate(row, runs, &records, measured, &mut gone);
        }
        for path in self.source.members().keys() {
            let folder = path.strip_prefix("payload/runs/").and_then(|rest| rest.split_once('/'));
            if let Some((folder, _)) = folder
                && !gone.rows.contains(folder)
            {
                self.fault("review_row", path.clone(), "rows of a scenario that a gate defines", "others");
            }
        }
        if !gone.without_baseline.is_empty() {
            self.limits.push(format!(
                "that nothing new was touched: there is no baseline in the pack for {}",
                gone.without_baseline.join(", ")
            ));
        }
    }

    fn one_gate(
        &mut self,
        row: &GateRow,
        runs: &[GateRun],
        records: &[RunRecord],
        measured: &BTreeMap<&str, Vec<GateRun>>,
        gone: &mut Gone,
    ) {
        let folder = format!("payload/gates/{}", row.gate);
        let definition = self.definition(row, &folder);
        if let Some(rows) = definition.as_ref().and_then(scenario::folder) {
            gone.rows.insert(rows);
        }
        let path = format!("{folder}/verdict.json");
        // What is wrong with it as a file was said where the gate's files were.
        let stated: Option<GateVerdict> =
            self.source.text(&path).ok().and_then(|text| strict::typed(text.as_bytes()).ok());
        let record = record_of(records, &row.gate);
        if row.status == GateStatus::Passed && record.is_none() {
            let expected = format!("the record of an invocation that measured {}", row.gate);
            self.fault("run_record", RECORD, expected, "none");
        }
        if let (Some(stated), Some(definition)) = (&stated, &definition) {
            self.policy(row, definition, &folder, runs);
            let ground = Ground { row, definition, runs, record, folder: &folder, measured };
            self.verdict(&ground, stated, gone);
        } else if stated.is_some() {
            self.limits
                .push(format!("the verdict on {}: the pack does not say what it was judged by", row.gate));
        } else if !runs.is_empty() {
            self.limits.push(format!("the verdict on {}: there is none in the pack", row.gate));
        }
        gone.verdicts.extend(stated);
        if let Some(definition) = definition {
            gone.definitions.insert(row.gate.clone(), definition);
        }
    }

    /// The invocation's record, or those of a merged pack's shards, each in the form that this tool writes.
    fn records(&mut self) -> Vec<RunRecord> {
        if !self.source.members().contains_key(RECORD) {
            return Vec::new();
        }
        let Some(value) = self.typed::<Value>(RECORD) else { return Vec::new() };
        let shards = value.get("shards").and_then(Value::as_array);
        let mut records = Vec::new();
        for one in shards.map_or_else(|| vec![&value], |shards| shards.iter().collect()) {
            let mut plain = one.clone();
            if shards.is_some()
                && let Some(fields) = plain.as_object_mut()
            {
                fields.remove("doctor");
            }
            match serde_json::from_value::<RunRecord>(plain.clone()) {
                Ok(record) if record.schema != "assay.gates.run.v0" => {
                    self.fault(
                        "run_record",
                        format!("{RECORD}#/schema"),
                        "assay.gates.run.v0",
                        record.schema,
                    );
                }
                Ok(record) if serde_json::to_value(&record).is_ok_and(|again| again == plain) => {
                    if let Some(why) = record.unfinished.as_ref().filter(|_| record.finished_at.is_none()) {
                        self.limits.push(format!("the invocation is unfinished: {why}"));
                    }
                    records.push(record);
                }
                Ok(_) => {
                    self.fault("run_record", RECORD, "the fields of an invocation's record", "others too")
                }
                Err(error) => self.fault("run_record", RECORD, "an invocation's record", error.to_string()),
            }
        }
        records
    }

    fn definition(&mut self, row: &GateRow, folder: &str) -> Option<Definition> {
        let path = format!("{folder}/definition.yaml");
        if !self.source.members().contains_key(&path) {
            if row.status == GateStatus::Passed {
                self.fault("gate_definition", path, "the definition that a gate passed by", "none");
            }
            return None;
        }
        let text = self.source.text(&path).map_err(|finding| self.keep(finding)).ok()?;
        match gate::parse(&text, &path) {
            Ok(definition) if definition.id == row.gate => Some(definition),
            Ok(other) => {
                self.fault("gate_definition", path, format!("the definition of {}", row.gate), other.id);
                None
            }
            Err(error) => {
                self.fault("gate_definition", path, "a definition that validates", error.message());
                None
            }
        }
    }

    /// Every decision names the policy that the pack carries.
    fn policy(&mut self, row: &GateRow, definition: &Definition, folder: &str, runs: &[GateRun]) {
        if definition.policy.is_none() {
            return;
        }
        let path = format!("{folder}/policy.yaml");
        let Ok((digest, _)) = self.source.digest(&path) else {
            if row.status == GateStatus::Passed {
                self.fault("policy", path, "the policy that decided for a gate that passed", "none");
            }
            return;
        };
        for run in runs {
            let log = format!("{}/policy-decisions.ndjson", run.folder);
            let text = match self.source.text(&log) {
                Ok(text) => text,
                Err(finding) => {
                    if row.status == GateStatus::Passed {
                        self.keep(finding);
                    }
                    continue;
                }
            };
            for (at, line) in text.lines().enumerate() {
                let value: Value = strict::value(line.as_bytes()).unwrap_or_default();
                let stated = value.pointer("/data/policy_digest").and_then(Value::as_str);
                if stated != Some(digest.to_string().as_str()) {
                    self.fault(
                        "policy",
                        format!("{log}:{}", at + 1),
                        format!("a decision by {path}, {digest}"),
                        stated.unwrap_or("none"),
                    );
                }
            }
        }
    }

    fn verdict(&mut self, ground: &Ground<'_>, stated: &GateVerdict, gone: &mut Gone) {
        let path = format!("{}/verdict.json", ground.folder);
        let runs = self.runs(ground, stated, &path);
        let Some(expected) = self.expected(ground, stated, runs, gone) else { return };
        let (verdict, review) = expected;
        if verdict == *stated {
            self.review_rows(ground, review.as_ref());
            self.pass_lines(ground, stated);
            return;
        }
        let first = difference(&verdict, stated);
        // An error outside of any run leaves a reason and nothing to recompute it from. It never helps a gate.
        let mut reasons = stated.reasons.iter();
        let all_there = verdict.reasons.iter().all(|reason| reasons.any(|other| other == reason));
        let more = stated.reasons.len() > verdict.reasons.len();
        let worst = Exit::worst([exit_of(stated), exit_of(&verdict)].into_iter().flatten());
        let same = verdict.runs == stated.runs
            && verdict.determinism == stated.determinism
            && stated.status != Word::Passed
            && exit_of(stated) == Some(worst);
        if all_there && more && same {
            self.limits.push(format!(
                "why {} is {}: of its reasons {} are the driver's word alone",
                stated.gate,
                stated.status.word(),
                stated.reasons.len() - verdict.reasons.len()
            ));
            self.pass_lines(ground, stated);
            // Its rows were written with or without what those reasons made of it.
            if !self.has_rows(ground, review.as_ref()) {
                let own = self.review(ground, stated, gone).flatten();
                self.review_rows(ground, own.as_ref());
            }
        } else if let Some((pointer, expected, found)) = first {
            self.fault("verdict", format!("{path}#{pointer}"), expected, found);
        }
    }

    /// Each run's verdict anew; what can't be had anew is as stated.
    fn runs(&mut self, ground: &Ground<'_>, stated: &GateVerdict, path: &str) -> Vec<RunVerdict> {
        let mut judged = Vec::new();
        for (at, run) in stated.runs.iter().enumerate() {
            let place = format!("{path}#/runs/{at}");
            let folder = format!("{}/run-{}", ground.folder, run.run);
            let own = ground.runs.iter().find(|own| own.folder == folder);
            self.result(run, &folder);
            let derived = match (own.and_then(|own| own.evidence.as_ref()), &run.archive) {
                (Some(evidence), Some(archive)) => {
                    self.told(run, evidence.health.ringbuf_drops, &place);
                    judge_again(ground.definition, run, evidence, archive)
                }
                (None, None) if own.is_none() => {
                    if run.passed || run.complete || !run.assertions.is_empty() {
                        self.fault(
                            "run_verdict",
                            place.clone(),
                            "a run without an archive that shows nothing",
                            "more",
                        );
                    }
                    run.clone()
                }
                (Some(_), None) => {
                    self.fault("run_verdict", place.clone(), "the archive that the run left", "none");
                    run.clone()
                }
                // Whatever could not be read was said where it was read.
                _ => run.clone(),
            };
            if let Some((pointer, expected, found)) = difference(&derived, run) {
                self.fault("run_verdict", format!("{place}{pointer}"), expected, found);
            }
            judged.push(derived);
        }
        for own in ground.runs {
            if !stated.runs.iter().any(|run| own.folder == format!("{}/run-{}", ground.folder, run.run)) {
                self.fault(
                    "run_verdict",
                    own.folder.clone(),
                    "a run that the verdict lists",
                    "one that it does not",
                );
            }
        }
        judged
    }

    /// What the driver says of a run goes together.
    fn told(&mut self, run: &RunVerdict, drops: u64, place: &str) {
        let said = |word: &str| run.incomplete_because.iter().any(|reason| reason.starts_with(word));
        for (field, held) in [
            ("lost", run.lost >= drops && !(run.complete && run.lost != 0)),
            ("signal", run.exit_code.is_some() != run.signal.is_some()),
            ("timed_out", run.timed_out == said("timed_out:")),
            ("interrupted", run.interrupted == said("interrupted:")),
        ] {
            if !held {
                let expected = "what goes with the rest of the run's verdict";
                self.fault("run_verdict", format!("{place}/{field}"), expected, "another");
            }
        }
    }

    /// `result.json` is what the verdict repeats.
    fn result(&mut self, run: &RunVerdict, folder: &str) {
        let path = format!("{folder}/result.json");
        let text = match self.source.text(&path) {
            Ok(text) => text,
            Err(finding) => {
                if run.archive.is_some() {
                    self.keep(finding);
                }
                return;
            }
        };
        if let Ok(expected) = pretty_sorted(run)
            && text != expected
        {
            let (line, expected, found) = first_difference(&expected, &text);
            self.fault("run_result", format!("{path}:{line}"), expected, found);
        }
    }

    /// The verdict and the review as they follow from the runs.
    fn expected(
        &mut self,
        ground: &Ground<'_>,
        stated: &GateVerdict,
        runs: Vec<RunVerdict>,
        gone: &mut Gone,
    ) -> Option<(GateVerdict, Option<Review>)> {
        let Ground { definition, .. } = *ground;
        let wanted = ground.record.map_or(runs.len() as u32, |record| record.runs);
        let missing = baseline_missing(definition, &gone.verdicts).filter(|_| stated.runs.is_empty());
        let plain = match missing {
            Some(reason) => GateVerdict::skipped(&definition.id, Exit::CaptureIncomplete, reason),
            None => {
                let mut failures = Vec::new();
                // The word to stop between two runs is the driver's alone; it never helps a gate to pass.
                let told = stated.reasons.iter().filter(|reason| reason.starts_with(INTERRUPTED));
                failures.extend(told.map(|reason| (Exit::Infrastructure, reason.clone())));
                if let Some(declared) = declared_failure(definition, &runs) {
                    failures.push((Exit::AcceptanceFailed, declared));
                }
                let accepted = runs.len() == wanted as usize && runs.iter().all(|run| run.passed);
                failures.extend(self.baseline(ground, accepted, gone));
                let whole = || runs.iter().filter(|run| !run.interrupted);
                let artifacts: Vec<_> =
                    whole().filter_map(|run| ground.run(run.run).map(|own| own.artifacts.clone())).collect();
                let whole = artifacts.len() == whole().count() && !artifacts.is_empty();
                let determinism = if whole { compare(&artifacts).ok() } else { None };
                GateVerdict::conclude(&definition.id, wanted, runs, determinism, failures, stated.elapsed_ms)
            }
        };
        let review = self.review(ground, &plain, gone)?;
        let failures = review.as_ref().map(|review| review.failures.clone()).unwrap_or_default();
        Some((plain.also(failures), review))
    }

    /// What the gate touches beyond the baseline that the pack carries.
    fn baseline(&mut self, ground: &Ground<'_>, accepted: bool, gone: &mut Gone) -> Vec<(Exit, String)> {
        let path = format!("{}/baseline.json", ground.folder);
        let shown = format!("{}/baseline_diff.json", ground.folder);
        let there = |path: &str| self.source.members().contains_key(path);
        if !there(&path) {
            if there(&shown) {
                self.fault("baseline", shown, "the baseline that was compared with", "none");
            }
            gone.without_baseline.push(ground.row.gate.clone());
            return Vec::new();
        }
        let Some(baseline) = self.typed::<Baseline>(&path) else { return Vec::new() };
        let Some(files) = ground.run(1).and_then(|run| run.files.as_ref()).filter(|_| accepted) else {
            return Vec::new();
        };
        let difference = match files.baseline(&ground.row.gate) {
            Ok(measured) => baseline.compare(&measured),
            Err(error) => {
                self.fault("baseline", path, "runs that can be compared with it", error.message());
                return Vec::new();
            }
        };
        let text = self.source.text(&shown).unwrap_or_default();
        if let Ok(expected) = pretty_sorted(&difference)
            && text != expected
        {
            let (line, expected, found) = first_difference(&expected, &text);
            self.fault("baseline", format!("{shown}:{line}"), expected, found);
        }
        let Some(done) = ground.run(1).map(|run| &run.artifacts.effects) else { return Vec::new() };
        difference
            .growth(1, done)
            .into_iter()
            .map(|line| (Exit::AcceptanceFailed, format!("baseline: {line}")))
            .collect()
    }

    /// The review anew; `None` when the pack lacks what it is made of.
    #[expect(
        clippy::option_option,
        reason = "a gate without a scenario has no review, which is not a failure"
    )]
    fn review(&mut self, ground: &Ground<'_>, plain: &GateVerdict, gone: &Gone) -> Option<Option<Review>> {
        let Some(scenario) = &ground.definition.scenario else { return Some(None) };
        let Some(record) = ground.record else {
            self.limits
                .push(format!("the rows of {}: there is no record of the invocation", ground.row.gate));
            return None;
        };
        let head = record.source.head_sha.as_str();
        let own: Vec<scenario::Run<'_>> = files(ground.runs).map(RunFiles::as_run).collect();
        let lines = self.lines(ground.folder);
        let baseline = scenario.baseline.as_ref().and_then(|name| {
            let verdict = gone.verdicts.iter().find(|verdict| verdict.gate == *name)?;
            Some((gone.definitions.get(name)?, verdict, ground.measured.get(name.as_str())?))
        });
        let baseline_runs: Vec<scenario::Run<'_>> =
            baseline.iter().flat_map(|(_, _, runs)| files(runs)).map(RunFiles::as_run).collect();
        let baseline_lines = scenario
            .baseline
            .as_ref()
            .map(|name| self.lines(&format!("payload/gates/{name}")))
            .unwrap_or_default();
        let invocation = record.invocation();
        let input = Input {
            gate: Measured {
                gate: ground.definition,
                verdict: plain,
                runs: &own,
                pass_lines: &lines,
                head_sha: head,
            },
            baseline: baseline.map(|(gate, verdict, _)| Measured {
                gate,
                verdict,
                runs: &baseline_runs,
                pass_lines: &baseline_lines,
                head_sha: head,
            }),
            invocation: &invocation,
            work: WORK,
        };
        match scenario::review(&input) {
            Ok(review) => Some(review),
            Err(error) => {
                self.fault(
                    "review_row",
                    ground.folder.to_owned(),
                    "a gate that can be reviewed",
                    error.message(),
                );
                None
            }
        }
    }

    fn lines(&self, folder: &str) -> Vec<String> {
        let log = self.source.reader(&format!("{folder}/gate.log"));
        log.ok().and_then(|log| crate::pack::build::pass_lines(log).ok()).unwrap_or_default()
    }

    fn has_rows(&self, ground: &Ground<'_>, review: Option<&Review>) -> bool {
        let (Some(review), Some(folder)) = (review, scenario::folder(ground.definition)) else { return true };
        review.files.iter().all(|(name, expected)| {
            self.source.text(&format!("payload/runs/{folder}/{name}")).is_ok_and(|text| text == *expected)
        })
    }

    /// The rows are the review's, file by file, byte for byte.
    fn review_rows(&mut self, ground: &Ground<'_>, review: Option<&Review>) {
        let (Some(review), Some(folder)) = (review, scenario::folder(ground.definition)) else { return };
        let prefix = format!("payload/runs/{folder}/");
        let mut known = BTreeSet::new();
        for (name, expected) in &review.files {
            let path = format!("{prefix}{name}");
            match self.source.text(&path) {
                Ok(text) if text == *expected => {}
                Ok(text) => {
                    let (line, expected, found) = first_difference(expected, &text);
                    self.fault("review_row", format!("{path}:{line}"), expected, found);
                }
                Err(finding) => self.keep(finding),
            }
            known.insert(path);
        }
        for path in self.source.members().keys() {
            if path.starts_with(&prefix) && !known.contains(path) {
                self.fault("review_row", path.clone(), "a row of the scenario", "another file");
            }
        }
    }

    /// What a gate's log says `PASS` of, in its own words: each run that passed, and the agreement of all.
    fn pass_lines(&mut self, ground: &Ground<'_>, stated: &GateVerdict) {
        let passed = stated.runs.iter().filter(|run| run.passed).count();
        let mut expected = vec![acceptance_line(ground.definition); passed];
        let wanted = ground.record.map_or(stated.runs.len(), |record| record.runs as usize);
        let agree = stated.determinism.as_ref().is_some_and(|found| found.agree);
        if passed == wanted && agree {
            expected.push(determinism_line(ground.definition, passed));
        }
        let found = self.lines(ground.folder);
        if found != expected {
            let (line, expected, found) = first_difference(&expected.join("\n"), &found.join("\n"));
            self.fault(
                "pass_lines",
                format!("{}/gate.log, PASS line {line}", ground.folder),
                expected,
                found,
            );
        }
    }
}

/// What one gate's verdict stands on.
#[derive(Clone, Copy)]
struct Ground<'a> {
    row: &'a GateRow,
    definition: &'a Definition,
    runs: &'a [GateRun],
    record: Option<&'a RunRecord>,
    folder: &'a str,
    measured: &'a BTreeMap<&'a str, Vec<GateRun>>,
}

impl Ground<'_> {
    fn run(&self, number: u32) -> Option<&GateRun> {
        let folder = format!("{}/run-{number}", self.folder);
        self.runs.iter().find(|run| run.folder == folder)
    }
}

fn files(runs: &[GateRun]) -> impl Iterator<Item = &RunFiles> {
    runs.iter().filter_map(|run| run.files.as_ref())
}

/// The record that speaks of `gate`: where it was asked for, else where it was a baseline.
fn record_of<'a>(records: &'a [RunRecord], gate: &str) -> Option<&'a RunRecord> {
    let names = |list: &[String]| list.iter().any(|name| name == gate);
    let with = || records.iter().filter(|record| names(&record.gates));
    with().find(|record| !names(&record.added)).or_else(|| with().next())
}

fn judge_again(
    definition: &Definition,
    run: &RunVerdict,
    evidence: &crate::judge::RunEvidence,
    archive: &ArchiveRef,
) -> RunVerdict {
    let account = RunAccount {
        run: run.run,
        exit_code: evidence.exit_code,
        signal: run.signal,
        timed_out: run.timed_out,
        interrupted: run.interrupted,
        effects: evidence.effects.count,
        lost: run.lost,
        complete: evidence.proof.complete,
        reasons: evidence.proof.reasons.clone(),
        elapsed_ms: run.elapsed_ms,
    };
    let mut judged = run_verdict(definition, account, Some((evidence, archive.clone())), WORK);
    // The program's own word, which stands beside a failure and decides nothing.
    if !judged.passed {
        judged.last_words.clone_from(&run.last_words);
    }
    judged
}

fn exit_of(verdict: &GateVerdict) -> Option<Exit> {
    Exit::BY_PRECEDENCE.into_iter().find(|exit| exit.code() == verdict.exit)
}

/// The first place in which two values differ: pointer, what is expected there, what is found.
fn difference<T: serde::Serialize>(expected: &T, found: &T) -> Option<(String, String, String)> {
    fn walk(at: &str, expected: &Value, found: &Value) -> Option<(String, String, String)> {
        match (expected, found) {
            (Value::Object(a), Value::Object(b)) => {
                let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                keys.into_iter().find_map(|key| {
                    let null = Value::Null;
                    walk(&format!("{at}/{key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
                })
            }
            (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|index| {
                let null = Value::Null;
                walk(&format!("{at}/{index}"), a.get(index).unwrap_or(&null), b.get(index).unwrap_or(&null))
            }),
            (a, b) if a == b => None,
            (a, b) => Some((at.to_owned(), shown(a), shown(b))),
        }
    }
    let (expected, found) = (serde_json::to_value(expected).ok()?, serde_json::to_value(found).ok()?);
    walk("", &expected, &found)
}

/// A value on one short line.
fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.len() <= 400 { text } else { format!("{} bytes, {}", text.len(), sha256(text.as_bytes())) }
}
