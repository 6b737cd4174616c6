//! `assay.gates.effects_diff.v0`: what each tool did in base, and does in head.
//!
//! Calls are joined by their tool, since ids of calls differ between agents and versions; an effect is compared by
//! everything but how often it happened.

use super::cross::{Sdk, WorkPrefix};
use super::side::Side;
use crate::error::Exit;
use crate::evidence::ObservationHealth;
use crate::evidence::tool_effects::{Attribution, CallEffects, CountedEffect, ToolEffects};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectsDiff {
    /// [`EffectsDiff::SCHEMA`].
    pub schema: String,
    /// Base's run.
    pub base_run_id: String,
    /// Head's run.
    pub head_run_id: String,
    /// SDKs of base, as its events name them; side-band, not compared.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub base_sdks: BTreeSet<Sdk>,
    /// SDKs of head.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub head_sdks: BTreeSet<Sdk>,
    /// `clean`, `partial:capture`, `partial:attribution`.
    pub status: String,
    /// One per tool that either side called, sorted by name.
    pub tools: Vec<ToolDiff>,
    /// Effects of no call.
    pub outside: EffectSets,
}

/// One tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDiff {
    /// The tool.
    pub tool: String,
    /// Calls in base.
    pub base_calls: u64,
    /// Calls in head.
    pub head_calls: u64,
    /// What the calls did.
    pub effects: EffectSets,
}

/// Effects of both sides; each stands in exactly one list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectSets {
    /// In head only.
    pub added: Vec<CountedEffect>,
    /// In base only.
    pub removed: Vec<CountedEffect>,
    /// In both, as often.
    pub unchanged: Vec<CountedEffect>,
    /// In both, not as often.
    pub recounted: Vec<Recounted>,
}

/// An effect that happened more or less often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recounted {
    /// The effect, with base's count.
    pub effect: CountedEffect,
    /// How often in head.
    pub head_count: u64,
}

impl EffectSets {
    /// Compares `head` with `base`.
    #[must_use]
    pub fn of(base: &[CountedEffect], head: &[CountedEffect]) -> Self {
        let (base, head) = (counted(base), counted(head));
        let mut sets = Self::default();
        let with = |effect: &CountedEffect, count: u64| CountedEffect { count, ..effect.clone() };
        for (effect, &count) in &base {
            match head.get(effect) {
                None => sets.removed.push(with(effect, count)),
                Some(&again) if again == count => sets.unchanged.push(with(effect, count)),
                Some(&head_count) => {
                    sets.recounted.push(Recounted { effect: with(effect, count), head_count });
                }
            }
        }
        sets.added = head
            .iter()
            .filter(|(effect, _)| !base.contains_key(*effect))
            .map(|(effect, &count)| with(effect, count))
            .collect();
        sets
    }

    /// Nothing was added, removed or happened more or less often.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.recounted.is_empty()
    }
}

/// Counts by effect, whatever the counts in it say.
fn counted(effects: &[CountedEffect]) -> BTreeMap<CountedEffect, u64> {
    let mut counts = BTreeMap::new();
    for effect in effects {
        *counts.entry(CountedEffect { count: 0, ..effect.clone() }).or_default() += effect.count;
    }
    counts
}

impl EffectsDiff {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.effects_diff.v0";

    /// Compares two runs. Paths below a declared work folder are compared as `<work>/…`.
    #[must_use]
    pub fn of(
        base: (&ObservationHealth, &ToolEffects, Option<&WorkPrefix>),
        head: (&ObservationHealth, &ToolEffects, Option<&WorkPrefix>),
    ) -> Self {
        let sides = [base, head];
        let complete = sides.iter().all(|(health, ..)| {
            health.kernel_layer == "complete"
                && health.ringbuf_drops == 0
                && health.cgroup_correlation == "clean"
        });
        let status = if !complete {
            "partial:capture"
        } else if sides.iter().any(|(_, effects, _)| unattributed(effects).is_some()) {
            "partial:attribution"
        } else {
            "clean"
        };
        let called = sides.iter().flat_map(|(_, effects, _)| &effects.calls).map(|call| call.tool.clone());
        let did = sides.iter().flat_map(|(_, effects, _)| effects.by_tool()).map(|(tool, _)| tool);
        let tools: BTreeSet<String> = called.chain(did).collect();
        let of_tool = |(_, effects, prefix): (&ObservationHealth, &ToolEffects, Option<&WorkPrefix>),
                       tool: &str| {
            let calls = effects.calls.iter().filter(|call| call.tool == tool).count();
            let did = effects.by_tool().filter(|(name, _)| name == tool);
            let did: Vec<CountedEffect> = did.flat_map(|(_, effects)| effects.to_vec()).collect();
            (calls as u64, canonical(&did, prefix))
        };
        Self {
            schema: Self::SCHEMA.to_owned(),
            base_run_id: base.1.run_id.clone(),
            head_run_id: head.1.run_id.clone(),
            base_sdks: BTreeSet::new(),
            head_sdks: BTreeSet::new(),
            status: status.to_owned(),
            tools: tools
                .into_iter()
                .map(|tool| {
                    let ((base_calls, before), (head_calls, after)) =
                        (of_tool(base, &tool), of_tool(head, &tool));
                    let effects = EffectSets::of(&before, &after);
                    ToolDiff { tool, base_calls, head_calls, effects }
                })
                .collect(),
            outside: EffectSets::of(&canonical(&base.1.outside, base.2), &canonical(&head.1.outside, head.2)),
        }
    }

    /// The same, saying by which SDKs the sides were made.
    #[must_use]
    pub fn by(self, base: &Side, head: &Side) -> Self {
        Self { base_sdks: base.sdks(), head_sdks: head.sdks(), ..self }
    }

    /// Nothing differs, neither in a call nor outside.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.outside.is_same()
            && self.tools.iter().all(|tool| tool.base_calls == tool.head_calls && tool.effects.is_same())
    }

    /// 0 when comparable and equal, 11 when comparable and different, 12 when not comparable.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.status.as_str(), self.is_same()) {
            ("clean", true) => Exit::Passed,
            ("clean", false) => Exit::RunsDisagree,
            _ => Exit::CaptureIncomplete,
        }
    }
}

/// A call that was let through and has no effects of its own. A refused call never reached its server.
pub(super) fn unattributed(effects: &ToolEffects) -> Option<&str> {
    let refused = |call: &CallEffects| matches!(call.decision.as_deref(), Some("deny" | "error"));
    effects
        .calls
        .iter()
        .find(|call| match call.attribution {
            Attribution::Exact | Attribution::Concurrent => false,
            Attribution::Ambiguous => true,
            Attribution::None => !refused(call),
        })
        .map(|call| call.tool_call_id.as_str())
}

fn canonical(effects: &[CountedEffect], prefix: Option<&WorkPrefix>) -> Vec<CountedEffect> {
    let Some(prefix) = prefix else { return effects.to_vec() };
    let path = |path: &Option<String>| path.as_deref().map(|path| prefix.canonical(path));
    effects
        .iter()
        .map(|effect| CountedEffect {
            path: path(&effect.path),
            target: path(&effect.target),
            ..effect.clone()
        })
        .collect()
}
