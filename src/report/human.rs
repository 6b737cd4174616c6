//! The run as a person watches it: one line a run and a gate; groups inside Actions; a spinner on a terminal.

use super::colour::{Colour, bold, coloured};
use super::{Event, Sink, output};
use crate::error::Result;
use crate::run::chain::MARK;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::time::Duration;

/// Where the lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A terminal: a spinner while something runs.
    Terminal,
    /// A plain log.
    Log,
    /// A job log of Actions: groups, and everything measured fenced.
    Actions,
}

/// The view.
#[derive(Debug)]
pub struct Human {
    place: Place,
    spinner: Option<ProgressBar>,
    fence: String,
    /// The gates of the invocation, in order.
    gates: Vec<String>,
    /// Reasons of the gate that were shown, without their runs: a reason is shown once.
    shown: BTreeSet<String>,
}

impl Human {
    /// A view for `place`.
    #[must_use]
    pub fn new(place: Place) -> Self {
        let mut nonce = [0; 8];
        // A fence that can be guessed is no fence; without randomness the measured lines are left out altogether.
        let fence = getrandom::fill(&mut nonce).map(|()| hex::encode(nonce)).unwrap_or_default();
        Self { place, spinner: None, fence, gates: Vec::new(), shown: BTreeSet::new() }
    }

    fn say(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| output::diagnostic(text)),
            None => output::diagnostic(text),
        }
    }

    /// Shows those of `reasons` that were not shown yet of this gate; says how many were.
    fn reasons(&mut self, reasons: &[String]) {
        let mut again = 0;
        for reason in reasons {
            match self.shown.insert(of_any_run(reason).to_owned()) {
                true => self.measured_line(reason),
                false => again += 1,
            }
        }
        if again == reasons.len() && again > 0 {
            self.say(&format!("    {again} reason{} as above", plural(again)));
        }
    }

    /// ` (2 of 5)`; nothing when there is one gate.
    fn number(&self, gate: &str) -> String {
        let at = self.gates.iter().position(|one| one == gate).filter(|_| self.gates.len() > 1);
        at.map_or_else(String::new, |at| format!("gate {} of {}: ", at + 1, self.gates.len()))
    }

    fn measured_line(&self, text: &str) {
        match (self.place, self.fence.as_str()) {
            (Place::Actions, "") => {}
            (Place::Actions, fence) => {
                output::diagnostic(&format!("::stop-commands::{fence}\n{text}\n::{fence}::"));
            }
            _ => self.say(&format!("    {}", plain(text))),
        }
    }
}

/// A reason without the run that it is of.
pub(super) fn of_any_run(reason: &str) -> &str {
    let rest = reason.strip_prefix("run ").and_then(|rest| rest.split_once(": "));
    let reason = rest.filter(|(run, _)| run.parse::<u32>().is_ok()).map_or(reason, |(_, reason)| reason);
    reason.strip_prefix("capture incomplete: ").unwrap_or(reason)
}

/// Control characters made visible, so that nothing measured can move a cursor or forge a line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl Sink for Human {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::SessionStarted { gates, runs, root, .. } => {
                let runs = if *runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") };
                self.gates.clone_from(gates);
                self.say(&format!("{} gate{}, {runs} each → {root}", gates.len(), plural(gates.len())));
            }
            Event::GateStarted { gate } => {
                self.shown.clear();
                if self.place == Place::Actions {
                    self.say(&format!("::group::{gate}"));
                }
            }
            Event::RunStarted { gate, run } => {
                if self.place == Place::Terminal {
                    let spinner = ProgressBar::new_spinner()
                        .with_message(format!("{}{gate}: run {run}", self.number(gate)));
                    if let Ok(look) = ProgressStyle::with_template("  {spinner} {msg} {elapsed}") {
                        spinner.set_style(look);
                    }
                    spinner.enable_steady_tick(Duration::from_millis(100));
                    self.spinner = Some(spinner);
                }
            }
            Event::RunFinished {
                gate,
                run,
                passed,
                effects,
                kernel_events,
                lost,
                complete,
                elapsed_ms,
                reasons,
                ..
            } => {
                if let Some(spinner) = self.spinner.take() {
                    spinner.finish_and_clear();
                }
                let mark =
                    if *passed { coloured("ok  ", Colour::Green) } else { coloured("FAIL", Colour::Red) };
                let state = if *complete { "complete" } else { "incomplete" };
                self.say(&format!(
                    "  {} {gate} run {run}: {effects} effects, {kernel_events} as evidence, {lost} lost, {state}, {}",
                    mark,
                    seconds(*elapsed_ms)
                ));
                self.reasons(reasons);
            }
            Event::Line { text, .. } => {
                if let Some(diff) = text.strip_prefix("diff | ") {
                    self.measured_line(diff);
                } else if text.starts_with(MARK) && self.place == Place::Actions {
                    // As it is: the job's log is what a chain is held against.
                    output::diagnostic(text);
                }
            }
            Event::GateFinished { gate, status, agree, elapsed_ms, reasons, .. } => {
                if let Some(spinner) = self.spinner.take() {
                    spinner.finish_and_clear();
                }
                let colour = if status == "passed" { Colour::Green } else { Colour::Red };
                let agree = if *agree { "runs agree" } else { "no agreement" };
                if self.place == Place::Actions {
                    self.say("::endgroup::");
                }
                self.say(&format!(
                    "{gate}: {} ({agree}, {})",
                    bold(&coloured(status, colour)),
                    seconds(*elapsed_ms)
                ));
                if status != "passed" {
                    self.reasons(reasons);
                }
            }
            Event::SessionFinished { .. } => {}
        }
        Ok(())
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `0.42 s`.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{:02} s", milliseconds / 1000, milliseconds % 1000 / 10)
}
