//! `tool_effects.json`: for each tool call, exactly what its server did while it was working on it.
//!
//! The time, ids of tasks and descriptors go, so that two runs can be compared; equal effects are counted. Births,
//! ends and moves of tasks are left out. Opens that the filter calls telemetry are only counted.

use super::contract::PolicyEvent;
use super::filter::{Filter, Sieve};
use crate::capture::{CONCURRENT, CallWindow, Effect, Operation, PathValue};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Distinct effects of one run; more is a named refusal.
pub const MAX_DISTINCT: usize = 100_000;

/// `tool_effects.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolEffects {
    /// [`ToolEffects::SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// The calls: those with a window in its order, then decisions without one in log order.
    pub calls: Vec<CallEffects>,
    /// Calls to one server that overlapped, and what it did in their time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrent: Vec<ConcurrentCalls>,
    /// Effects of the time in which something else overlapped calls: no call can be named.
    pub ambiguous: Vec<CountedEffect>,
    /// Effects that belong to no call.
    pub outside: Vec<CountedEffect>,
    /// Opens outside of calls that are telemetry.
    pub outside_telemetry: u64,
}

impl ToolEffects {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.tool_effects.v0";

    /// What is attributed, by tool. What several tools did together goes by all of their names.
    pub fn by_tool(&self) -> impl Iterator<Item = (String, &[CountedEffect])> {
        let exact = self.calls.iter().filter(|call| call.attribution == Attribution::Exact);
        let together =
            self.concurrent.iter().map(|group| (group.tools.join(" + "), group.effects.as_slice()));
        exact.map(|call| (call.tool.clone(), call.effects.as_slice())).chain(together)
    }

    /// The windows of its calls.
    #[must_use]
    pub fn windows(&self) -> Vec<CallWindow> {
        self.calls
            .iter()
            .filter(|call| call.attribution != Attribution::None)
            .map(|call| CallWindow {
                tool_call_id: call.tool_call_id.clone(),
                tool: call.tool.clone(),
                number: 0,
                ambiguous: call.attribution == Attribution::Ambiguous,
                group: (1..)
                    .zip(&self.concurrent)
                    .find(|(_, group)| group.tool_call_ids.contains(&call.tool_call_id))
                    .map(|(number, _)| number),
                server: call.server.clone().unwrap_or_default(),
                id_rule: call.id_rule.clone().unwrap_or_default(),
            })
            .collect()
    }

    /// What the lines of an effects.ndjson give for the same calls; equal to `self` when it stands beside them.
    ///
    /// # Errors
    /// As [`Grouping::take`]; what the effects give.
    pub fn rederived(
        &self,
        work: Option<&str>,
        effects: impl IntoIterator<Item = Result<Effect>>,
        decisions: &[PolicyEvent],
    ) -> Result<Self> {
        let windows = self.windows();
        let mut grouping = Grouping::new(&windows, Filter::embedded()?, work);
        for effect in effects {
            grouping.take(&effect?)?;
        }
        Ok(grouping.finish(&self.run_id, decisions))
    }
}

/// How the effects of a call were told from others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// By the stamp that the kernel programs gave each effect when it happened.
    Exact,
    /// Other calls to the same server overlapped: what it did in their time is attributed to all of them.
    Concurrent,
    /// Something else overlapped: nothing is attributed.
    Ambiguous,
    /// The call had no window: nothing is known of its effects.
    None,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallEffects {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool: String,
    /// The decision on it; null when none was logged.
    pub decision: Option<String>,
    /// The server and the number of the connection to it, `name/number`. The name is the agent's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the rule by which the decider found the call's id in its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_rule: Option<String>,
    /// How far `effects` speaks for the call.
    pub attribution: Attribution,
    /// Distinct effects with their counts, sorted.
    pub effects: Vec<CountedEffect>,
    /// Opens that are telemetry.
    pub telemetry: u64,
}

/// Calls to one server that overlapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConcurrentCalls {
    /// The calls, sorted.
    pub tool_call_ids: Vec<String>,
    /// Their tools, sorted, each once.
    pub tools: Vec<String>,
    /// Distinct effects with their counts, sorted.
    pub effects: Vec<CountedEffect>,
    /// Opens that are telemetry.
    pub telemetry: u64,
}

/// An effect without what differs between equal runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedEffect {
    /// What was done.
    pub operation: Operation,
    /// How it was asked for.
    pub syscall: String,
    /// To which file; with its state when that is not `resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why the path is not simply the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_state: Option<String>,
    /// The second path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Raw flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u64>,
    /// Raw mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u64>,
    /// The error, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i64>,
    /// Other arguments, as the effect has them; not of attempts to escape, which name processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Named doubts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
    /// How often.
    pub count: u64,
}

impl CountedEffect {
    /// The comparable part of `effect`; `None` for births, ends and moves of tasks, and what a ring does to open
    /// descriptors, of which syscalls (read, write, epoll) are no effects either.
    #[must_use]
    pub fn of(effect: &Effect) -> Option<Self> {
        let ring_without_a_name = effect.operation == Operation::IoUring
            && effect.path.is_none()
            && effect.target.is_none()
            && effect.endpoint.is_none();
        if ring_without_a_name
            || matches!(effect.operation, Operation::Fork | Operation::Exit | Operation::CgroupAttach)
        {
            return None;
        }
        let name = |path: &PathValue| path.value.clone();
        let state = effect.path.as_ref().and_then(|path| {
            use crate::capture::PathState::{
                Anonymous, Deleted, Detached, Requested, Resolved, Truncated, Unreadable,
            };
            Some(match path.state {
                Resolved => return None,
                Requested => "requested",
                Deleted => "deleted",
                Detached => "detached",
                Truncated => "truncated",
                Anonymous => "anonymous",
                Unreadable => "unreadable",
            })
        });
        // An anonymous file's name ends in an inode number, which no two runs share.
        let path = effect.path.as_ref().map(|path| match path.state {
            crate::capture::PathState::Anonymous => {
                path.value.split(':').next().unwrap_or_default().to_owned()
            }
            _ => name(path),
        });
        Some(Self {
            operation: effect.operation,
            syscall: effect.syscall.clone(),
            path,
            path_state: state.map(str::to_owned),
            target: effect.target.as_ref().map(name),
            endpoint: effect.endpoint.clone(),
            flags: effect.flags,
            mode: effect.mode,
            errno: effect.return_value.filter(|value| *value < 0).map(|value| -value),
            detail: effect.detail.clone().filter(|_| effect.operation != Operation::Escape),
            // Whether calls overlapped is said of the calls, not of each effect.
            marks: effect.marks.iter().filter(|mark| *mark != CONCURRENT).cloned().collect(),
            count: 0,
        })
    }
}

impl CountedEffect {
    /// Operation and object: `unlink /x`, `rename /a -> /b`, `connect 127.0.0.1:80`, `signal signal=9 to process 2`.
    #[must_use]
    pub fn named(&self) -> String {
        let mut text = self.operation.name();
        let objects = [
            self.path.as_deref().map(str::to_owned),
            self.target.as_ref().map(|target| format!("-> {target}")),
            self.endpoint.clone(),
            self.detail.clone().filter(|_| self.path.is_none() && self.endpoint.is_none()),
        ];
        if objects.iter().all(Option::is_none) {
            text = format!("{text} by {}", self.syscall);
        }
        for object in objects.into_iter().flatten() {
            text.push(' ');
            text.push_str(&object);
        }
        match &self.path_state {
            Some(state) if state != "requested" => format!("{text} ({state})"),
            _ => text,
        }
    }

    /// Whether it is known what it was done to. A name that a ring was asked for, or that leads out of the session's own
    /// view, is not: it satisfies no expectation.
    #[must_use]
    pub fn is_established(&self) -> bool {
        let by_request = self.operation == Operation::IoUring && self.errno.is_none();
        !by_request && !matches!(self.path_state.as_deref(), Some("detached" | "truncated" | "unreadable"))
    }
}

#[derive(Default)]
struct Group {
    counts: BTreeMap<CountedEffect, u64>,
    telemetry: u64,
}

impl Group {
    fn list(self) -> Vec<CountedEffect> {
        self.counts.into_iter().map(|(effect, count)| CountedEffect { count, ..effect }).collect()
    }
}

/// Takes effects in any order and groups them by call.
pub struct Grouping<'a> {
    windows: &'a [CallWindow],
    sieve: Sieve<'a>,
    groups: BTreeMap<Option<String>, Group>,
    distinct: usize,
}

impl<'a> Grouping<'a> {
    /// For the calls of a run; `work` is its work folder as the measured program sees it.
    #[must_use]
    pub fn new(windows: &'a [CallWindow], filter: &'a Filter, work: Option<&str>) -> Self {
        Self { windows, sieve: Sieve::new(filter, work), groups: BTreeMap::new(), distinct: 0 }
    }

    /// Takes one effect, already redacted.
    ///
    /// # Errors
    /// `BudgetExceeded` at more than [`MAX_DISTINCT`] distinct effects; `EvidenceInvalid` when it names a call that has
    /// no window.
    pub fn take(&mut self, effect: &Effect) -> Result<()> {
        let telemetry = self.sieve.telemetry(effect).is_some();
        let Some(counted) = CountedEffect::of(effect) else { return Ok(()) };
        if let Some(call) = &effect.call
            && !self.windows.iter().any(|window| window.tool_call_id == *call)
        {
            return Err(Error::new(
                Code::EvidenceInvalid,
                format!("expected a window of call {call}, found none"),
            )
            .at(format!("effect {}", effect.seq)));
        }
        let group = self.groups.entry(effect.call.clone()).or_default();
        if telemetry {
            group.telemetry += 1;
            return Ok(());
        }
        if let Some(count) = group.counts.get_mut(&counted) {
            *count += 1;
            return Ok(());
        }
        if self.distinct == MAX_DISTINCT {
            return Err(Error::new(
                Code::BudgetExceeded,
                format!("expected at most {MAX_DISTINCT} distinct effects, found more"),
            )
            .hint("measure a smaller step; effects.ndjson keeps every effect without this limit"));
        }
        self.distinct += 1;
        group.counts.insert(counted, 1);
        Ok(())
    }

    /// Joins the groups to the decisions.
    #[must_use]
    pub fn finish(mut self, run_id: &str, decisions: &[PolicyEvent]) -> ToolEffects {
        let decision = |id: &str| {
            let mut all = decisions.iter().filter(|event| event.tool_call_id == id);
            let first = all.next();
            // Two decisions on one id: neither is the call's.
            first.filter(|_| all.next().is_none()).map(|event| event.decision.clone())
        };
        let twice = |id: &str| self.windows.iter().filter(|other| other.tool_call_id == id).count() > 1;
        let torn = |window: &CallWindow| window.ambiguous || twice(&window.tool_call_id);
        let members = |group| self.windows.iter().filter(move |window| window.group == Some(group));
        let mut ambiguous = Group::default();
        let mut calls = Vec::new();
        let mut concurrent: BTreeMap<u64, (Vec<&CallWindow>, Group)> = BTreeMap::new();
        for window in self.windows {
            // The effects of a group carry the id of its first.
            let group = self.groups.remove(&Some(window.tool_call_id.clone())).unwrap_or_default();
            let mut call = CallEffects {
                tool_call_id: window.tool_call_id.clone(),
                tool: window.tool.clone(),
                decision: decision(&window.tool_call_id),
                server: Some(window.server.clone()).filter(|server| !server.is_empty()),
                id_rule: Some(window.id_rule.clone()).filter(|rule| !rule.is_empty()),
                attribution: Attribution::Exact,
                effects: Vec::new(),
                telemetry: 0,
            };
            let overlapping = window.group.filter(|number| !members(*number).any(torn));
            if let Some(number) = overlapping {
                call.attribution = Attribution::Concurrent;
                let (windows, all) = concurrent.entry(number).or_default();
                windows.push(window);
                all.telemetry += group.telemetry;
                for (effect, count) in group.counts {
                    *all.counts.entry(effect).or_default() += count;
                }
            } else if torn(window) || window.group.is_some() {
                call.attribution = Attribution::Ambiguous;
                call.telemetry = group.telemetry;
                for (effect, count) in group.counts {
                    *ambiguous.counts.entry(effect).or_default() += count;
                }
            } else {
                call.telemetry = group.telemetry;
                call.effects = group.list();
            }
            calls.push(call);
        }
        for event in decisions {
            if !self.windows.iter().any(|window| window.tool_call_id == event.tool_call_id) {
                calls.push(CallEffects {
                    tool_call_id: event.tool_call_id.clone(),
                    tool: event.tool.clone(),
                    decision: Some(event.decision.clone()),
                    server: None,
                    id_rule: None,
                    attribution: Attribution::None,
                    effects: Vec::new(),
                    telemetry: 0,
                });
            }
        }
        let outside = self.groups.remove(&None).unwrap_or_default();
        ToolEffects {
            schema: ToolEffects::SCHEMA.to_owned(),
            run_id: run_id.to_owned(),
            calls,
            concurrent: concurrent.into_values().map(|(windows, group)| together(&windows, group)).collect(),
            ambiguous: ambiguous.list(),
            outside_telemetry: outside.telemetry,
            outside: outside.list(),
        }
    }
}

fn together(windows: &[&CallWindow], group: Group) -> ConcurrentCalls {
    let sorted = |name: fn(&CallWindow) -> &String| {
        let names: std::collections::BTreeSet<&String> = windows.iter().map(|window| name(window)).collect();
        names.into_iter().cloned().collect()
    };
    ConcurrentCalls {
        tool_call_ids: sorted(|window| &window.tool_call_id),
        tools: sorted(|window| &window.tool),
        telemetry: group.telemetry,
        effects: group.list(),
    }
}
