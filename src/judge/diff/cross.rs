//! `assay.runner.cross_runtime_diff.v0`: two runtimes, compared by their surfaces.
//!
//! Only paths below the work folder are made comparable, by their prefix; nothing else is translated, and neither
//! runtime is called better.

use super::capability::{Preconditions, Unbound};
use super::sets::{SetDiff, SurfaceDiff};
use super::side::Side;
use crate::error::{Code, Error, Exit, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const NON_CLAIMS: [&str; 5] = [
    "cross_runtime_no_acceptability_judgment",
    "cross_runtime_no_declared_capability_input",
    "cross_runtime_no_derived_binding_identity",
    "cross_runtime_no_filename_semantic_equivalence",
    "cross_runtime_no_sdk_capability_equivalence",
];

const NOTES: [&str; 3] = [
    "cross_runtime_diff_binding_ids_out_of_scope: binding ids are not cross-runtime comparable in v0; \
     required only for within-runtime correlation",
    "cross_runtime_diff_sdk_metadata_side_band: sdk metadata reported as side-band runtime provenance, \
     not capability surface",
    "cross_runtime_diff_work_dir_prefix_canonicalized: filesystem_paths normalized via the A1 work-dir prefix rule",
];

/// A runtime that v0 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// The OpenAI Agents SDK.
    S5OpenaiAgents,
    /// Google's GenAI SDK.
    GeminiGoogleGenai,
}

impl Runtime {
    /// By the agent's shim.
    ///
    /// # Errors
    /// `NotComparable` for a shim without a runtime in v0.
    pub fn of_shim(shim: &str) -> Result<Self> {
        match shim {
            "openai-agents" => Ok(Self::S5OpenaiAgents),
            "gemini-google-genai" => Ok(Self::GeminiGoogleGenai),
            other => Err(not_comparable(format!(
                "expected a run of openai-agents or gemini-google-genai, found agent_shim {other}"
            ))),
        }
    }
}

/// The work folder's absolute path, ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkPrefix(String);

impl WorkPrefix {
    /// Checks a declared prefix.
    ///
    /// # Errors
    /// What is wrong: not absolute, not ending in `/`, only `/`, or with `..`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') || !text.ends_with('/') || text.len() < 3 {
            return Err(
                "expected an absolute folder that ends in /, such as /run/assay-gates/work/".to_owned()
            );
        }
        if text.split('/').any(|part| part == ".." || part == ".") {
            return Err("expected a folder without . and ..".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// `<work>/…` for a path below the prefix; any other path as it is.
    #[must_use]
    pub fn canonical(&self, path: &str) -> String {
        path.strip_prefix(&self.0).map_or_else(|| path.to_owned(), |rest| format!("<work>/{rest}"))
    }
}

/// The document, field by field in its written order. It exists only when everything that it requires holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossRuntimeDiff {
    /// [`CrossRuntimeDiff::SCHEMA`].
    pub schema: String,
    /// Base's run.
    pub base_run_id: String,
    /// Head's run.
    pub head_run_id: String,
    /// Base's runtime.
    pub base_runtime: Runtime,
    /// Head's runtime.
    pub head_runtime: Runtime,
    /// `clean`.
    pub status: String,
    /// All true.
    pub preconditions: CrossPreconditions,
    /// What is compared.
    pub scope: CrossScope,
    /// What was made comparable.
    pub canonicalization: Canonicalization,
    /// The surfaces.
    pub surface: SurfaceDiff,
    /// Out of scope.
    pub binding_ids: OutOfScope,
    /// Out of scope too: a decision belongs to a call, and calls of two runtimes have no ids in common. What was decided
    /// on which tools is in the surface.
    pub policy_outcomes: OutOfScope,
    /// Provenance of the runtimes.
    pub sdk_metadata: SdkMetadata,
    /// Always empty in v0.
    pub unbound: Unbound,
    /// What this does not say.
    pub non_claims: Vec<String>,
    /// Always empty in v0.
    pub ambiguities: Vec<String>,
    /// Three fixed notes.
    pub notes: Vec<String>,
}

/// [`Preconditions`], and that the runtimes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is as in Preconditions")]
pub struct CrossPreconditions {
    pub base_health_clean: bool,
    pub head_health_clean: bool,
    pub base_correlation_clean: bool,
    pub head_correlation_clean: bool,
    pub stable_tool_call_ids_required: bool,
    pub stable_tool_call_ids_present: bool,
    pub runtimes_distinct: bool,
}

/// As `Scope`, across runtimes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "each is as in Scope")]
pub struct CrossScope {
    pub projection: String,
    pub uses_raw_telemetry: bool,
    pub uses_proof_pack: bool,
    pub per_binding_capability_values: bool,
    pub cross_runtime: bool,
}

/// How each category was made comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the categories of the surface")]
pub struct Canonicalization {
    pub filesystem_paths: String,
    pub network_endpoints: String,
    pub process_execs: String,
    pub mcp_tools: String,
    pub policy_decisions: String,
}

/// Why something is not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfScope {
    /// `out_of_scope_cross_runtime_v0`.
    pub comparison: String,
}

impl OutOfScope {
    fn here() -> Self {
        Self { comparison: "out_of_scope_cross_runtime_v0".to_owned() }
    }
}

/// The SDKs of both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdkMetadata {
    /// `side_band_provenance`.
    pub comparison: String,
    /// Base's.
    pub base: Sdk,
    /// Head's.
    pub head: Sdk,
}

/// One SDK.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sdk {
    /// Package name.
    pub sdk_name: String,
    /// Package version.
    pub sdk_version: String,
}

impl CrossRuntimeDiff {
    /// Schema id.
    pub const SCHEMA: &str = "assay.runner.cross_runtime_diff.v0";

    /// Compares two sides of two runtimes.
    ///
    /// # Errors
    /// `NotComparable` when a precondition doesn't hold; `EvidenceInvalid` when a side's SDK events name no SDK or two.
    pub fn of(base: &Side, head: &Side, base_prefix: &WorkPrefix, head_prefix: &WorkPrefix) -> Result<Self> {
        let (base_runtime, head_runtime) =
            (Runtime::of_shim(&base.agent_shim)?, Runtime::of_shim(&head.agent_shim)?);
        if base_runtime == head_runtime {
            return Err(not_comparable(format!(
                "expected two runtimes, found {} on both sides",
                base.agent_shim
            ))
            .hint("leave --cross-runtime out to compare two runs of one runtime"));
        }
        let held = Preconditions::of(base, head);
        if held.status() != "clean" {
            return Err(not_comparable(format!(
                "expected clean health, clean correlation and tool calls on both sides, found {}",
                held.status()
            )));
        }
        let sdk_metadata = SdkMetadata {
            comparison: "side_band_provenance".to_owned(),
            base: sdk(base, "base")?,
            head: sdk(head, "head")?,
        };
        let paths = |side: &Side, prefix: &WorkPrefix| -> BTreeSet<String> {
            side.surface.filesystem_paths.iter().map(|path| prefix.canonical(path)).collect()
        };
        let mut surface = SurfaceDiff::of(&base.surface, &head.surface);
        surface.filesystem_paths = SetDiff::of(&paths(base, base_prefix), &paths(head, head_prefix));
        let none = || "none".to_owned();
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            base_run_id: base.health.run_id.clone(),
            head_run_id: head.health.run_id.clone(),
            base_runtime,
            head_runtime,
            status: "clean".to_owned(),
            preconditions: CrossPreconditions {
                base_health_clean: held.base_health_clean,
                head_health_clean: held.head_health_clean,
                base_correlation_clean: held.base_correlation_clean,
                head_correlation_clean: held.head_correlation_clean,
                stable_tool_call_ids_required: held.stable_tool_call_ids_required,
                stable_tool_call_ids_present: held.stable_tool_call_ids_present,
                runtimes_distinct: true,
            },
            scope: CrossScope {
                projection: "surface_set".to_owned(),
                uses_raw_telemetry: false,
                uses_proof_pack: false,
                per_binding_capability_values: false,
                cross_runtime: true,
            },
            canonicalization: Canonicalization {
                filesystem_paths: "work_dir_prefix_only".to_owned(),
                network_endpoints: none(),
                process_execs: none(),
                mcp_tools: none(),
                policy_decisions: none(),
            },
            surface,
            binding_ids: OutOfScope::here(),
            policy_outcomes: OutOfScope::here(),
            sdk_metadata,
            unbound: Unbound::default(),
            non_claims: NON_CLAIMS.map(str::to_owned).to_vec(),
            ambiguities: Vec::new(),
            notes: NOTES.map(str::to_owned).to_vec(),
        })
    }

    /// 0 when the surfaces are equal, 11 when they differ.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.surface.is_same() { Exit::Passed } else { Exit::RunsDisagree }
    }
}

/// The one SDK that a side's events name.
fn sdk(side: &Side, which: &str) -> Result<Sdk> {
    if side.sdk.iter().any(|event| event.sdk_name.is_some() != event.sdk_version.is_some()) {
        return Err(mixed(which, "half of one"));
    }
    let mut found = side.sdks().into_iter();
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(mixed(which, "none")),
        (Some(_), Some(_)) => Err(mixed(which, "several")),
    }
}

fn mixed(which: &str, found: &str) -> Error {
    Error::new(
        Code::EvidenceInvalid,
        format!("expected one sdk_name and sdk_version on {which}, found {found}"),
    )
    .at("layers/sdk.ndjson")
}

fn not_comparable(message: String) -> Error {
    Error::new(Code::NotComparable, message)
}
