//! One gate: its runs, their acceptance, their agreement, the verdict.

use super::baseline::{self, BaselineUse};
use super::chain::{self, Chain};
use super::review::Reviewer;
use super::{Failure, Measure, ProofRoot, Run, readback, words};
use crate::error::{Code, Exit, Result};
use crate::files::RootPath;
use crate::gate::Entry;
use crate::host::WORK;
use crate::judge::{
    Determinism, GateVerdict, INTERRUPTED, RunAccount, RunArtifacts, RunVerdict, acceptance_line,
    baseline_missing, compare, declared_failure, determinism_line, run_verdict,
};
use crate::report::{Event, Sink};
use std::time::Instant;

/// What is asked of one gate.
pub(super) struct Asked<'a> {
    pub entry: &'a Entry,
    /// As [`super::Options::told_to_stop`].
    pub told_to_stop: fn() -> Option<String>,
    /// Measured runs.
    pub runs: u32,
    /// What an earlier invocation finished in this root is kept.
    pub keep: bool,
    /// The gate that is measured after it.
    pub next: Option<&'a Entry>,
}

/// Measures and judges one gate.
pub(super) fn run(
    asked: &Asked,
    reviewer: &Reviewer,
    measure: &mut dyn Measure,
    sink: &mut dyn Sink,
    before: &[GateVerdict],
) -> Result<GateVerdict> {
    let began = Instant::now();
    let &Asked { entry, told_to_stop, runs: wanted, keep, next } = asked;
    let gate = &entry.definition.id;
    let root = reviewer.root;
    if keep {
        // A gate that failed is finished too: measuring it again until it passes would hide why it failed.
        let finished =
            |verdict: &GateVerdict| verdict.runs.len() == wanted as usize && !verdict.is_interrupted();
        if let Some(done) = root.verdict(gate)?.filter(finished)
            && chain::is_ended(&root.gate(gate))?
        {
            return Ok(done);
        }
        // What an invocation that was stopped said of its last run is of a run that is measured again.
        root.gate(gate).join("gate.log").remove()?;
    } else {
        root.gate(gate).remove()?;
    }
    if let Some(folder) = reviewer.folder(&entry.definition) {
        folder.remove()?;
    }
    root.begin_gate(gate)?;
    root.write_ground(entry)?;
    let chain = Chain::open(root.gate(gate), gate)?;
    let mut log = Log { root, gate, sink, chain };
    log.event(Event::GateStarted { gate: gate.clone() })?;
    // In the log of the step before anything is measured: evidence from elsewhere does not know it.
    let begun = log.chain.begin()?;
    log.said(begun)?;
    if let Some(reason) = baseline_missing(&entry.definition, before) {
        let verdict = GateVerdict::skipped(gate, Exit::CaptureIncomplete, reason);
        return reviewed(entry, verdict, reviewer, before, log);
    }
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    for number in 1..=wanted {
        if let Some(why) = told_to_stop() {
            failures.push((Exit::Infrastructure, format!("{INTERRUPTED}before run {number}: {why}")));
            break;
        }
        let next = if number < wanted {
            // What may be kept from an earlier invocation needs nothing made ready.
            (!keep).then(|| (entry, root.run(gate, number + 1)))
        } else {
            next.map(|next| (next, root.run(&next.definition.id, 1)))
        };
        let next = next.as_ref().map(|(entry, out)| (*entry, out));
        match one_run(entry, number, keep, next, measure, &mut log)? {
            Ok(run) => {
                let stop = run.interrupted;
                runs.push(run);
                if stop {
                    break;
                }
            }
            // What kept this run from being measured keeps the next from it too.
            Err(failure) => {
                // Whatever failed after the word to stop, failed because of it.
                failures.push(match told_to_stop() {
                    Some(why) => (Exit::Infrastructure, format!("{INTERRUPTED}in run {number}: {why}")),
                    None => (failure.exit, format!("run {number}: {}", failure.text)),
                });
                break;
            }
        }
    }
    if let Some(declared) = declared_failure(&entry.definition, &runs) {
        failures.push((Exit::AcceptanceFailed, declared));
    }
    let all_accepted = runs.len() == wanted as usize && runs.iter().all(|run| run.passed);
    if reviewer.baselines == BaselineUse::Against && all_accepted {
        failures.extend(baseline::against(entry, root)?);
    }
    let determinism = determinism(root, gate, &runs)?;
    let verdict = GateVerdict::conclude(gate, wanted, runs, determinism, failures, milliseconds(began));
    if all_accepted && verdict.determinism.as_ref().is_some_and(|found| found.agree) {
        log.line(&determinism_line(&entry.definition, wanted as usize))?;
    }
    if reviewer.baselines == BaselineUse::Update && verdict.passed() {
        let written = baseline::update(entry, root)?;
        log.line(&format!("baseline written: {}", written.display()))?;
    }
    reviewed(entry, verdict, reviewer, before, log)
}

/// Whether the runs agree; `None` when one of them left nothing to compare. A run that somebody ended did less than the
/// others, and that shows nothing.
pub(super) fn determinism(root: &ProofRoot, gate: &str, runs: &[RunVerdict]) -> Result<Option<Determinism>> {
    let whole = || runs.iter().filter(|run| !run.interrupted);
    let artifacts: Vec<RunArtifacts> =
        whole().map_while(|run| readback::run_artifacts(&root.run(gate, run.run)).ok()).collect();
    let all = artifacts.len() == whole().count() && !artifacts.is_empty();
    all.then(|| compare(&artifacts)).transpose()
}

/// Reviews the scenario, if the gate has one: what stops a finding is an outcome of the gate.
fn reviewed(
    entry: &Entry,
    verdict: GateVerdict,
    reviewer: &Reviewer,
    before: &[GateVerdict],
    mut log: Log,
) -> Result<GateVerdict> {
    let Some(review) = reviewer.review(entry, &verdict, before)? else { return log.conclude(verdict) };
    let row = &review.verdict;
    log.line(&format!(
        "scenario {}: verdict={} join={} by {} fallback={}",
        row.scenario_id, row.verdict, row.join_grade, row.join_key, row.fallback_used
    ))?;
    log.conclude(verdict.also(review.failures))
}

/// One measured run, kept from an earlier invocation or measured now.
fn one_run(
    entry: &Entry,
    number: u32,
    keep: bool,
    next: Option<(&Entry, &RootPath)>,
    measure: &mut dyn Measure,
    log: &mut Log,
) -> Result<Result<RunVerdict, Failure>> {
    let (root, gate) = (log.root, &entry.definition.id);
    let out = root.run(gate, number);
    let kept = if keep { root.result(gate, number)? } else { None };
    if let Some(done) = kept.filter(|run| run.passed && readback::run_evidence(&out).is_ok()) {
        log.line(&format!("run {number}: kept from an earlier invocation"))?;
        // A full disk may have come between its result and its link.
        log.chain.run(number, &out)?;
        log_lines(entry, &done, &out, log)?;
        return Ok(Ok(done));
    }
    out.remove()?;
    out.create_folder()?;
    log.event(Event::RunStarted { gate: gate.clone(), run: number })?;
    let measured = match measure.measure(entry, Run { number, out: &out, next }) {
        Ok(measured) => measured,
        // What keeps every run from being measured and written: there is nothing to judge, and what is finished is kept.
        Err(error) if error.code() == Code::DiskFull => return Err(error),
        Err(error) => {
            log.line(&format!("run {number}: error[{}]: {error}", error.code().name()))?;
            if let Some(hint) = error.advice() {
                log.line(&format!("  hint: {hint}"))?;
            }
            let text = match error.advice() {
                Some(hint) => format!("{error}; to mend it: {hint}"),
                None => error.to_string(),
            };
            return Ok(Err(Failure { text, exit: error.exit() }));
        }
    };
    let mut run = judge_run(entry, number, root, &out, &measured);
    // It ended by itself, otherwise than it should, and not because the driver ended it.
    if run.exit_code != Some(entry.definition.expect.exit_code) && !run.timed_out && !run.interrupted {
        run.last_words = words::last(&tail(&out.join("stderr.log")));
    }
    root.write_result(gate, &run)?;
    log.chain.run(number, &out)?;
    // Before anybody is told that it is done.
    out.sync()?;
    log_run(entry, &run, &out, log)?;
    Ok(Ok(run))
}

/// The verdict on what is in `out` now: what was written is what is judged, not what was in memory.
fn judge_run(
    entry: &Entry,
    number: u32,
    root: &ProofRoot,
    out: &RootPath,
    measured: &super::Measured,
) -> RunVerdict {
    let summary = &measured.summary;
    let mut account = RunAccount {
        run: number,
        exit_code: summary.outcome.exit_code,
        signal: summary.outcome.signal,
        timed_out: summary.outcome.timed_out,
        interrupted: summary.outcome.interrupted,
        effects: measured.effects,
        lost: summary.ringbuf_drops + summary.size_mismatches,
        complete: summary.proof.complete,
        reasons: summary.proof.reasons.clone(),
        elapsed_ms: summary.outcome.elapsed_ms,
    };
    match readback::run_evidence(out) {
        Ok((evidence, archive)) => {
            account.reasons.clone_from(&evidence.proof.reasons);
            let archive = archive.below(root.folder());
            run_verdict(&entry.definition, account, Some((&evidence, archive)), WORK)
        }
        Err(error) => {
            account.reasons.push(
                measured.without_archive.as_ref().map_or_else(|| error.to_string(), |f| f.text.clone()),
            );
            run_verdict(&entry.definition, account, None, WORK)
        }
    }
}

/// What the gate's log says of a run; gives the reasons why it was not accepted.
fn log_lines(entry: &Entry, run: &RunVerdict, out: &RootPath, log: &mut Log) -> Result<Vec<String>> {
    log.line(&format!(
        "run {}: effects={} kernel_events={} lost={} complete={} exit={} elapsed_ms={}",
        run.run,
        run.effects,
        run.kernel_events,
        run.lost,
        run.complete,
        run.exit_code.map_or_else(|| format!("signal {}", run.signal.unwrap_or(0)), |code| code.to_string()),
        run.elapsed_ms
    ))?;
    let mut reasons = run.incomplete_because.clone();
    reasons.extend(run.assertions.iter().filter(|assertion| !assertion.held).map(ToString::to_string));
    for reason in &reasons {
        log.line(&format!("FAIL: run {}: {reason}", run.run))?;
    }
    if run.passed {
        log.line(&acceptance_line(&entry.definition))?;
    } else {
        for (name, text) in
            [("stdout", tail(&out.join("stdout.log"))), ("stderr", tail(&out.join("stderr.log")))]
        {
            for line in text.lines() {
                log.line(&format!("run {} {name} | {line}", run.run))?;
            }
        }
    }
    Ok(reasons)
}

fn log_run(entry: &Entry, run: &RunVerdict, out: &RootPath, log: &mut Log) -> Result<()> {
    let gate = &entry.definition.id;
    let mut reasons = log_lines(entry, run, out, log)?;
    // They stand in the log already.
    reasons.extend(run.last_words.iter().map(|line| format!("run {} stderr | {line}", run.run)));
    log.event(Event::RunFinished {
        gate: gate.clone(),
        run: run.run,
        passed: run.passed,
        exit_code: run.exit_code,
        signal: run.signal,
        effects: run.effects,
        kernel_events: run.kernel_events,
        lost: run.lost,
        complete: run.complete,
        elapsed_ms: run.elapsed_ms,
        reasons,
    })
}

/// The last 4 KiB of a file, as text; empty when there is none.
fn tail(file: &RootPath) -> String {
    let bytes = file.read().ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4096)..]).into_owned()
}

pub(super) fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The gate's log on disk and the event stream, kept in step.
struct Log<'a> {
    root: &'a ProofRoot,
    gate: &'a str,
    sink: &'a mut dyn Sink,
    chain: Chain,
}

impl Log<'_> {
    fn said(&mut self, line: Option<String>) -> Result<()> {
        line.map_or(Ok(()), |line| self.line(&line))
    }

    fn event(&mut self, event: Event) -> Result<()> {
        self.sink.event(&event)
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.root.append(&self.root.gate(self.gate).join("gate.log"), text)?;
        self.event(Event::Line { gate: self.gate.to_owned(), text: text.to_owned() })
    }

    fn conclude(mut self, verdict: GateVerdict) -> Result<GateVerdict> {
        for reason in &verdict.reasons {
            self.line(&format!("reason: {reason}"))?;
        }
        if let Some(divergence) = verdict.determinism.as_ref().and_then(|found| found.divergence.as_ref()) {
            for line in divergence.diff.lines() {
                self.line(&format!("diff | {line}"))?;
            }
        }
        self.line(&format!("gate {}: {}", self.gate, verdict.status.word()))?;
        self.root.write_verdict(&verdict)?;
        let ended = self.chain.end()?;
        self.said(ended)?;
        self.event(Event::GateFinished {
            gate: self.gate.to_owned(),
            status: verdict.status.word().to_owned(),
            agree: verdict.determinism.as_ref().is_some_and(|found| found.agree),
            exit: verdict.exit,
            elapsed_ms: verdict.elapsed_ms,
            reasons: verdict.reasons.clone(),
        })?;
        Ok(verdict)
    }
}
