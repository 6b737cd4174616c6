//! `gates/<id>/baseline.json`: what a repository expects a gate to touch, and how a measured run compares.

use super::effects::{EffectSets, unattributed};
use super::sets::{SetDiff, SurfaceDiff};
use crate::capture::Operation;
use crate::error::{Code, Error, Exit, Result};
use crate::evidence::effect_surface::{Actor, SurfaceEffect};
use crate::evidence::tool_effects::CountedEffect;
use crate::evidence::{CapabilitySurface, EffectSurface, ToolEffects, strict};
use crate::files::write_json;
use crate::host::rights::Rights;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Largest baseline read.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`Baseline::SCHEMA`].
    pub schema: String,
    /// The gate.
    pub gate: String,
    /// Paths of opens.
    pub filesystem_paths: BTreeSet<String>,
    /// Peers of connects and sends.
    pub network_endpoints: BTreeSet<String>,
    /// Files that were executed.
    pub process_execs: BTreeSet<String>,
    /// Tools of decisions.
    pub mcp_tools: BTreeSet<String>,
    /// `<decision>:<tool>`.
    pub policy_decisions: BTreeSet<String>,
    /// What each tool's calls did, sorted by tool; only calls that had a cgroup of their own.
    pub tools: Vec<ToolBaseline>,
    /// What was done outside of calls, with its counts, sorted. A baseline without it is of before it was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<Vec<CountedEffect>>,
}

/// What one tool's calls did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolBaseline {
    /// The tool.
    pub tool: String,
    /// Distinct effects with their counts, sorted.
    pub effects: Vec<CountedEffect>,
}

impl Baseline {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.baseline.v0";

    /// What a measured run would have as its baseline.
    ///
    /// # Errors
    /// `NotComparable` when a call was let through and its effects are not known: a baseline without them would pass
    /// whatever the call does.
    pub fn of(gate: &str, surface: &CapabilitySurface, effects: &ToolEffects) -> Result<Self> {
        if let Some(call) = unattributed(effects) {
            return Err(Error::new(
                Code::NotComparable,
                format!("expected the effects of every call that was let through, found none of {call}"),
            )
            .at("tool_effects.json"));
        }
        let mut tools: BTreeMap<String, BTreeMap<CountedEffect, u64>> = BTreeMap::new();
        for (tool, effects) in effects.by_tool() {
            let tool = tools.entry(tool).or_default();
            for effect in effects {
                *tool.entry(CountedEffect { count: 0, ..effect.clone() }).or_default() += effect.count;
            }
        }
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            gate: gate.to_owned(),
            filesystem_paths: surface.filesystem_paths.clone(),
            network_endpoints: surface.network_endpoints.clone(),
            process_execs: surface.process_execs.clone(),
            mcp_tools: surface.mcp_tools.clone(),
            policy_decisions: surface.policy_decisions.clone(),
            tools: tools
                .into_iter()
                .map(|(tool, effects)| ToolBaseline {
                    tool,
                    effects: effects
                        .into_iter()
                        .map(|(effect, count)| CountedEffect { count, ..effect })
                        .collect(),
                })
                .collect(),
            outside: Some(effects.outside.iter().chain(&effects.ambiguous).cloned().collect()),
        })
    }

    /// Reads the baseline of `gate`; `None` when there is none.
    ///
    /// # Errors
    /// `BaselineInvalid`, naming file and difference; `Io`.
    pub fn read(path: &Path, gate: &str) -> Result<Option<Self>> {
        use std::io::Read;
        let file = match Rights::of_caller()?.act(|| Ok(std::fs::File::open(path)))? {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("cannot open the baseline", path, error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read the baseline", path, error))?;
        let wrong = |message: String| {
            Error::new(Code::BaselineInvalid, message)
                .at(path.display())
                .hint(format!("assay-gates run --gate {gate} --update-baseline"))
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("expected at most {MAX_BYTES} bytes, found more")));
        }
        let baseline: Self = strict::typed(&bytes).map_err(wrong)?;
        if baseline.schema != Self::SCHEMA {
            return Err(wrong(format!("expected schema {}, found {}", Self::SCHEMA, baseline.schema)));
        }
        if baseline.gate != gate {
            return Err(wrong(format!("expected the baseline of {gate}, found that of {}", baseline.gate)));
        }
        if baseline.outside.is_none() {
            return Err(wrong(
                "expected what is done outside of calls too, found a baseline without it".into(),
            ));
        }
        Ok(Some(baseline))
    }

    /// Writes it for the repository to keep.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }

    /// Compares what was `measured` with what is expected.
    #[must_use]
    pub fn compare(&self, measured: &Self) -> BaselineDiff {
        let effects = |side: &Self| -> BTreeMap<String, Vec<CountedEffect>> {
            side.tools.iter().map(|tool| (tool.tool.clone(), tool.effects.clone())).collect()
        };
        let (expected, found) = (effects(self), effects(measured));
        let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
        let of = |side: &BTreeMap<String, Vec<CountedEffect>>, tool: &str| -> Vec<CountedEffect> {
            side.get(tool).cloned().unwrap_or_default()
        };
        BaselineDiff {
            schema: BaselineDiff::SCHEMA.to_owned(),
            gate: self.gate.clone(),
            surface: SurfaceDiff {
                filesystem_paths: SetDiff::of(&self.filesystem_paths, &measured.filesystem_paths),
                network_endpoints: SetDiff::of(&self.network_endpoints, &measured.network_endpoints),
                process_execs: SetDiff::of(&self.process_execs, &measured.process_execs),
                mcp_tools: SetDiff::of(&self.mcp_tools, &measured.mcp_tools),
                policy_decisions: SetDiff::of(&self.policy_decisions, &measured.policy_decisions),
            },
            tools: names
                .into_iter()
                .map(|tool| ToolChange {
                    tool: tool.clone(),
                    effects: EffectSets::of(&of(&expected, tool), &of(&found, tool)),
                })
                .collect(),
            outside: EffectSets::of(
                self.outside.as_deref().unwrap_or_default(),
                measured.outside.as_deref().unwrap_or_default(),
            ),
        }
    }
}

/// `baseline_diff.json`: a measured run compared with the repository's baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineDiff {
    /// [`BaselineDiff::SCHEMA`].
    pub schema: String,
    /// The gate.
    pub gate: String,
    /// The surfaces; `added` is what the baseline lacks.
    pub surface: SurfaceDiff,
    /// Each tool of either side, sorted.
    pub tools: Vec<ToolChange>,
    /// What was done outside of calls, compared.
    pub outside: EffectSets,
}

/// What one tool's calls did, compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolChange {
    /// The tool.
    pub tool: String,
    /// What its calls did.
    pub effects: EffectSets,
}

impl BaselineDiff {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.baseline_diff.v0";

    /// Something was touched that the baseline lacks. What is no longer touched, or more often, is no growth.
    #[must_use]
    pub fn grew(&self) -> bool {
        self.surface.grew()
            || !self.outside.added.is_empty()
            || self.tools.iter().any(|tool| !tool.effects.added.is_empty())
    }

    /// Nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.surface.is_same()
            && self.outside.is_same()
            && self.tools.iter().all(|tool| tool.effects.is_same())
    }

    /// 10 when the surface grew.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.grew() { Exit::AcceptanceFailed } else { Exit::Passed }
    }

    /// What the baseline lacks, one line each, for a gate's reasons and log: what was touched, in which run, and which
    /// process did it, then what that came from. `done` is everything that the run did.
    #[must_use]
    pub fn growth(&self, run: u32, done: &EffectSurface) -> Vec<String> {
        let line = |what: String, who: Option<&SurfaceEffect>| {
            let process = who.and_then(|who| who.processes.first());
            let chain = process.map(|process| done.chain(*process)).unwrap_or_default();
            let by = if chain.is_empty() { String::new() } else { format!(", by {}", chain.join(" of ")) };
            format!("run {run}: not in the baseline: {what}{by}")
        };
        let surface = self.surface.categories().into_iter().flat_map(|(category, values)| {
            values.added.iter().map(move |value| {
                let is_exec = category == "process_execs";
                let who = done.effects.iter().find(|one| {
                    let effect = &one.effect;
                    let named = [&effect.path, &effect.target, &effect.endpoint];
                    (effect.operation == Operation::Exec) == is_exec
                        && named.into_iter().flatten().any(|name| name == value)
                });
                line(format!("{category} {value}"), who)
            })
        });
        let grown = |by: &str, effect: &CountedEffect| {
            let operation = effect.operation.name();
            let who = done.effects.iter().find(|one| {
                let same = CountedEffect { count: effect.count, ..one.effect.clone() } == *effect;
                let tool = match &one.actor {
                    Actor::Call { tool, .. } => Some(tool),
                    Actor::Ambiguous | Actor::Outside => None,
                };
                same && tool.is_none_or(|tool| by.split(" + ").any(|name| name == tool))
            });
            line(format!("{operation} by {by}: {}", super::show::phrase(effect)), who)
        };
        let tools = self
            .tools
            .iter()
            .flat_map(|tool| tool.effects.added.iter().map(move |effect| grown(&tool.tool, effect)));
        let outside = self.outside.added.iter().map(|effect| grown("no tool", effect));
        surface.chain(tools).chain(outside).collect()
    }
}
