//! The chains of a pack against the log of the job that is said to have written them, and the steps that GitHub timed.
//!
//! A log holds, for each gate, exactly the lines that its chain gives, in that order, while the step of a gate was
//! running. A line more in that job is refused as one less: a measured program may print what it likes.

use crate::error::{Error, Result};
use crate::github::rest::{Client, Job};
use crate::pack::verify::Chained;
use crate::run::chain::MARK;
use chrono::{DateTime, Duration, Utc};
use std::collections::BTreeMap;
use std::io::{BufRead, Read};

/// How the names of the steps begin that measure.
pub const GATE_STEP: &str = "Gate: ";
/// Longest line of a log.
const LINE: u64 = 1 << 20;
/// Most bytes of a log that are kept.
const LARGEST: u64 = 16 << 20;
/// Steps are timed in whole seconds, and the end is noted by another clock than the line.
const SLACK: i64 = 2;

/// A job of the run: its steps as the API timed them, and its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobLog {
    /// Its name.
    pub job: String,
    /// Each step of a gate that ran: its name, and from when to when.
    pub steps: Vec<(String, DateTime<Utc>, DateTime<Utc>)>,
    /// Its log, as the API gives it, or at least every line of it that may be a chain's.
    pub text: String,
}

/// The logs of the jobs of an attempt that measured gates.
///
/// # Errors
/// What the API's answers fail with; `Io` for a temporary file.
pub async fn job_logs(client: &Client, run: u64, attempt: u32) -> Result<Vec<JobLog>> {
    let mut logs = Vec::new();
    for job in client.jobs(run, attempt).await? {
        let steps = steps(&job);
        if steps.is_empty() {
            continue;
        }
        let place = tempfile::NamedTempFile::new()
            .map_err(|error| Error::io("cannot create a temporary file in", &std::env::temp_dir(), error))?;
        client.job_log(job.id, place.path()).await?;
        let file = std::fs::File::open(place.path());
        let text = file
            .and_then(|file| chain_lines(std::io::BufReader::new(file)))
            .map_err(|error| Error::io("cannot read", place.path(), error))?;
        logs.push(JobLog { job: job.name, steps, text });
    }
    Ok(logs)
}

/// The lines of a log that may be a chain's; the rest may be long.
fn chain_lines(mut log: impl BufRead) -> std::io::Result<String> {
    let (mut text, mut line) = (String::new(), Vec::new());
    loop {
        line.clear();
        if log.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(text);
        }
        let read = String::from_utf8_lossy(&line);
        if read.contains(MARK) && (text.len() as u64) < LARGEST {
            text.push_str(read.trim_end_matches('\n'));
            text.push('\n');
        }
    }
}

fn steps(job: &Job) -> Vec<(String, DateTime<Utc>, DateTime<Utc>)> {
    let all = job.steps.iter().flatten();
    all.filter(|step| step.name.starts_with(GATE_STEP) && step.conclusion.as_deref() != Some("skipped"))
        .filter_map(|step| Some((step.name.clone(), step.started_at?, step.completed_at?)))
        .collect()
}

/// A line of a log that looks like a chain's.
struct Said {
    time: Option<DateTime<Utc>>,
    line: String,
}

/// Whether the logs hold every chain, and nothing else that looks like one; what was found, in words.
#[must_use]
pub fn logged(chains: &[Chained], logs: &[JobLog]) -> (bool, String) {
    if chains.is_empty() {
        return (false, "the pack has no chain".to_owned());
    }
    let mut found: BTreeMap<String, BTreeMap<usize, Vec<Said>>> = BTreeMap::new();
    for (job, log) in logs.iter().enumerate() {
        for line in log.text.lines() {
            let (time, message) = timed(line);
            if let Some(gate) = gate_of(message) {
                let said = Said { time, line: message.to_owned() };
                found.entry(gate.to_owned()).or_default().entry(job).or_default().push(said);
            }
        }
    }
    let mut wrong = Vec::new();
    for chain in chains {
        // A gate that is another's baseline is measured in the jobs of both, each with a chain of its own.
        let jobs = found.remove(&chain.gate).unwrap_or_default();
        let same = |said: &[Said]| said.iter().map(|one| &one.line).eq(&chain.lines);
        let Some((job, said)) = jobs.iter().find(|(_, said)| same(said)) else {
            let said = jobs.values().next().map_or(&[][..], Vec::as_slice);
            let line = |at: usize| said.get(at).map(|one| one.line.as_str());
            let at = (0..).find(|at| line(*at) != chain.lines.get(*at).map(String::as_str)).unwrap_or(0);
            let expected = chain.lines.get(at).map_or("no further line", String::as_str);
            let other = line(at).unwrap_or("no further line");
            wrong.push(format!("{}: expected {expected}, found {other}", chain.gate));
            continue;
        };
        if let Some(Said { time, line }) = said.iter().find(|one| !during(&logs[*job], one.time)) {
            let time = time.map_or_else(|| "no time".to_owned(), |time| time.to_rfc3339());
            wrong.push(format!(
                "{}: expected a line of a step `{GATE_STEP}…` of {}, found `{line}` at {time}",
                chain.gate, logs[*job].job
            ));
        }
    }
    if wrong.is_empty() {
        let lines: usize = chains.iter().map(|chain| chain.lines.len()).sum();
        (true, format!("{} chains, {lines} lines of the log", chains.len()))
    } else {
        (false, wrong.join("; "))
    }
}

/// The runner's time before a line, and the message.
fn timed(line: &str) -> (Option<DateTime<Utc>>, &str) {
    let line = line.trim_start_matches('\u{feff}').trim_end_matches('\r');
    match line.split_once(' ') {
        Some((time, message)) => match DateTime::parse_from_rfc3339(time) {
            Ok(time) => (Some(time.with_timezone(&Utc)), message),
            Err(_) => (None, line),
        },
        None => (None, line),
    }
}

/// The gate that a line of a chain speaks of.
fn gate_of(message: &str) -> Option<&str> {
    let rest = message.strip_prefix(MARK)?;
    let rest = rest.strip_prefix("begin gate=").or_else(|| rest.strip_prefix("end gate="))?;
    rest.split(' ').next()
}

fn during(log: &JobLog, time: Option<DateTime<Utc>>) -> bool {
    let slack = Duration::seconds(SLACK);
    time.is_some_and(|time| log.steps.iter().any(|(_, from, to)| *from <= time && time <= *to + slack))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> DateTime<Utc> {
        format!("2026-11-21T10:00:{second:02}Z").parse().unwrap()
    }

    fn chains() -> Vec<Chained> {
        let lines = |gate: &str| {
            vec![format!("chain begin gate={gate} nonce=00"), format!("chain end gate={gate} head=sha256:11")]
        };
        ["a", "b"].map(|gate| Chained { gate: gate.to_owned(), lines: lines(gate) }).to_vec()
    }

    fn log() -> JobLog {
        let mut text = "\u{feff}2026-11-21T10:00:00.0000000Z ##[group]Run a\n".to_owned();
        for (second, line) in (1..).zip(chains().into_iter().flat_map(|chain| chain.lines)) {
            text.push_str(&format!("2026-11-21T10:00:{second:02}.1234567Z {line}\r\nmore of it\n"));
        }
        let step = |gate: &str, from, to| (format!("{GATE_STEP}{gate}"), at(from), at(to));
        JobLog { job: "Measure".to_owned(), steps: vec![step("a", 0, 2), step("b", 2, 5)], text }
    }

    #[test]
    fn a_log_that_holds_each_chain_once_while_its_step_ran_is_the_one() {
        let (held, found) = logged(&chains(), &[log()]);
        assert!(held, "{found}");
    }

    #[test]
    fn a_gate_that_two_jobs_measured_is_held_against_the_one_whose_chain_it_is() {
        let mut other = log();
        other.text = other.text.replace("nonce=00", "nonce=99");
        let (held, found) = logged(&chains(), &[other.clone(), log()]);
        assert!(held, "{found}");
        assert!(!logged(&chains(), &[other]).0);
    }

    #[test]
    fn a_line_that_is_missing_another_twice_or_of_another_time_is_a_disagreement() {
        type Change = (&'static str, fn(&mut JobLog));
        let changes: [Change; 7] = [
            ("no further line", |log| log.text = log.text.replace("chain end gate=b", "chains end gate=b")),
            ("nonce=01", |log| log.text = log.text.replacen("nonce=00", "nonce=01", 1)),
            ("head=sha256:12", |log| log.text = log.text.replacen("head=sha256:11", "head=sha256:12", 1)),
            ("expected no further line", |log| {
                log.text.push_str("2026-11-21T10:00:05.0Z chain end gate=b head=sha256:22\n");
            }),
            ("at 2026-11-21T10:00:04", |log| log.steps[1].2 = at(1)),
            ("at 2026-11-21T10:00:01", |log| log.steps[0].1 = at(2)),
            ("no time", |log| log.text = log.text.replacen("2026-11-21T10:00:01.1234567Z ", "", 1)),
        ];
        for (expected, change) in changes {
            let mut log = log();
            change(&mut log);
            let (held, found) = logged(&chains(), &[log]);
            assert!(!held && found.contains(expected), "{expected}: {found}");
        }
        assert!(!logged(&chains(), &[]).0 && !logged(&[], &[log()]).0);
    }
}
