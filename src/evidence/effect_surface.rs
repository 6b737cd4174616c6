//! `surface.json`: everything that a run did to its machine, by whom, counted. Runs, baselines and expectations are
//! compared by it; the v0 capability surface names opens, execs and peers only.
//!
//! Births, ends and moves of tasks are left out, and so is what the filter calls telemetry, which is only counted.
//! Descriptors, times and ids of tasks go. Which processes did it stands beside each effect for whoever reads, and is
//! not compared: their numbers depend on which of two children was born first.

use super::filter::{Filter, Sieve};
use super::tool_effects::{CountedEffect, MAX_DISTINCT};
use crate::capture::{CallWindow, Effect, Operation};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `surface.json` (`assay.gates.surface.v0`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectSurface {
    /// [`EffectSurface::SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Distinct effects with their counts, sorted.
    pub effects: Vec<SurfaceEffect>,
    /// Opens that are telemetry; not compared.
    pub telemetry: u64,
    /// Processes that did something, and those that they came from; not compared.
    pub processes: Vec<SurfaceProcess>,
}

/// One distinct effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceEffect {
    /// Whose it is.
    pub actor: Actor,
    /// What was done, how often.
    pub effect: CountedEffect,
    /// Which processes did it, by their ordinals; not compared.
    pub processes: BTreeSet<u32>,
}

/// Whose an effect is, as the kernel programs stamped it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Actor {
    /// A server, while it worked on this call alone.
    Call {
        /// `tool_call_id`.
        id: String,
        /// The tool.
        tool: String,
    },
    /// A server, while calls to it overlapped: no call can be named.
    Ambiguous,
    /// Whoever serves no call: the agent, and what it started.
    Outside,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::Call { id, tool } => write!(f, "in call {id} ({tool})"),
            Actor::Ambiguous => write!(f, "while calls overlapped"),
            Actor::Outside => write!(f, "outside of calls"),
        }
    }
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceProcess {
    /// Its ordinal.
    pub process: u32,
    /// The process that it was born of; absent for the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// What it ran last, in the words of its argv where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl EffectSurface {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.surface.v0";

    /// What the lines of an effects.ndjson give for the same calls; equal to the surface.json beside them.
    ///
    /// # Errors
    /// As [`SurfaceBuilder::take`]; what the effects give.
    pub fn of_effects(
        run_id: &str,
        windows: &[CallWindow],
        work: Option<&str>,
        effects: impl IntoIterator<Item = Result<Effect>>,
    ) -> Result<Self> {
        let mut builder = SurfaceBuilder::new(windows, Filter::embedded()?, work);
        for effect in effects {
            builder.take(&effect?)?;
        }
        Ok(builder.finish(run_id))
    }

    /// Without what differs between equal runs.
    #[must_use]
    pub fn comparable(&self) -> BTreeMap<(Actor, CountedEffect), u64> {
        let mut counts = BTreeMap::new();
        for one in &self.effects {
            let effect = CountedEffect { count: 0, ..one.effect.clone() };
            *counts.entry((one.actor.clone(), effect)).or_default() += one.effect.count;
        }
        counts
    }

    /// How a process came to be: what it ran, then what its parent ran, up to the root.
    #[must_use]
    pub fn chain(&self, process: u32) -> Vec<String> {
        let mut chain = Vec::new();
        let mut next = Some(process);
        while let Some(found) =
            next.and_then(|next| self.processes.iter().find(|process| process.process == next))
        {
            chain.push(found.command.clone().unwrap_or_else(|| format!("process {}", found.process)));
            next = found.parent.filter(|parent| *parent < found.process);
        }
        chain
    }
}

#[derive(Clone, Debug, Default)]
struct Life {
    parent: Option<u32>,
    command: Option<String>,
}

/// Takes effects in order.
pub struct SurfaceBuilder<'a> {
    windows: &'a [CallWindow],
    sieve: Sieve<'a>,
    counts: BTreeMap<(Actor, CountedEffect), (u64, BTreeSet<u32>)>,
    lives: BTreeMap<u32, Life>,
    telemetry: u64,
}

impl<'a> SurfaceBuilder<'a> {
    /// For the calls of a run; `work` is its work folder as the measured program sees it.
    #[must_use]
    pub fn new(windows: &'a [CallWindow], filter: &'a Filter, work: Option<&str>) -> Self {
        Self {
            windows,
            sieve: Sieve::new(filter, work),
            counts: BTreeMap::new(),
            lives: BTreeMap::new(),
            telemetry: 0,
        }
    }

    /// Takes the next effect, already redacted.
    ///
    /// # Errors
    /// `BudgetExceeded` at more than [`MAX_DISTINCT`] distinct effects.
    pub fn take(&mut self, effect: &Effect) -> Result<()> {
        self.follow(effect);
        if self.sieve.telemetry(effect).is_some() {
            self.telemetry += 1;
            return Ok(());
        }
        let Some(counted) = CountedEffect::of(effect) else { return Ok(()) };
        let key = (self.actor(effect), counted);
        if let Some((count, processes)) = self.counts.get_mut(&key) {
            *count += 1;
            processes.insert(effect.process);
            return Ok(());
        }
        if self.counts.len() == MAX_DISTINCT {
            return Err(Error::new(
                Code::BudgetExceeded,
                format!("expected at most {MAX_DISTINCT} distinct effects, found more"),
            )
            .hint("measure a smaller step; effects.ndjson keeps every effect without this limit"));
        }
        self.counts.insert(key, (1, BTreeSet::from([effect.process])));
        Ok(())
    }

    fn actor(&self, effect: &Effect) -> Actor {
        let Some(id) = &effect.call else { return Actor::Outside };
        let mut named = self.windows.iter().filter(|window| window.tool_call_id == *id);
        match (named.next(), named.next()) {
            (Some(window), None) if !window.ambiguous => {
                Actor::Call { id: id.clone(), tool: window.tool.clone() }
            }
            _ => Actor::Ambiguous,
        }
    }

    fn follow(&mut self, effect: &Effect) {
        match effect.operation {
            Operation::Fork => {
                let parent = effect.detail.as_deref().and_then(|detail| detail.strip_prefix("process of "));
                if let Some(parent) = parent {
                    let parent = parent.parse().ok();
                    let command = parent.and_then(|parent| self.lives.get(&parent)?.command.clone());
                    self.lives.insert(effect.process, Life { parent, command });
                }
            }
            Operation::Exec if effect.return_value == Some(0) => {
                let path = effect.path.as_ref().map(|path| path.value.clone());
                self.lives.entry(effect.process).or_default().command =
                    if effect.argv.is_empty() { path } else { Some(effect.argv.join(" ")) };
            }
            _ => {}
        }
    }

    /// The surface.
    #[must_use]
    pub fn finish(self, run_id: &str) -> EffectSurface {
        let mut named: BTreeSet<u32> =
            self.counts.values().flat_map(|(_, processes)| processes.clone()).collect();
        let mut ancestors: Vec<u32> = named.iter().copied().collect();
        while let Some(process) = ancestors.pop() {
            if let Some(parent) = self.lives.get(&process).and_then(|life| life.parent)
                && named.insert(parent)
            {
                ancestors.push(parent);
            }
        }
        let processes = named.into_iter().map(|process| {
            let life = self.lives.get(&process).cloned().unwrap_or_default();
            SurfaceProcess { process, parent: life.parent, command: life.command }
        });
        EffectSurface {
            schema: EffectSurface::SCHEMA.to_owned(),
            run_id: run_id.to_owned(),
            effects: self
                .counts
                .into_iter()
                .map(|((actor, effect), (count, processes))| SurfaceEffect {
                    actor,
                    effect: CountedEffect { count, ..effect },
                    processes,
                })
                .collect(),
            telemetry: self.telemetry,
            processes: processes.collect(),
        }
    }
}
