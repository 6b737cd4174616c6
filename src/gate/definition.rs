//! `gate.yaml`: everything that is known of a gate before it runs (`assay.gates.gate.v0`).
//!
//! Definitions are data. What a gate may claim, what it must measure and how it is judged is declared here,
//! so that a judge never decides after the fact what it should have looked for.

use super::{Allowance, Limits};
use crate::capture::Operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// `assay.gates.gate.v0`.
    pub schema: String,
    /// Key of the gate in evidence, step names and the proof pack; `[a-z0-9-]`.
    pub id: String,
    /// Other names that the command line takes.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// One line for people.
    pub title: String,
    /// Where the gate belongs: decides whether `all` contains it.
    pub group: Group,
    /// Position within `all`, ascending.
    #[serde(default)]
    pub order: u32,
    /// The name in `PASS: runner-spike <label> acceptance`.
    pub label: String,
    /// Run id of every measured run of this gate.
    pub run_id: String,
    /// File name of the archive, `runner-*.tar.gz`.
    pub archive: String,
    /// What the agent is built on.
    pub agent_shim: AgentShim,
    /// Which layers the evidence must have.
    pub layers: Layers,
    /// Folder of the fixture, relative to this file; the folder of this file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixture: Option<String>,
    /// argv of the agent. `${node}` and `${python}` stand for the interpreters that the fixture's dependencies name.
    pub command: Vec<String>,
    /// Variables of the measured process beyond the driver's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files of the work folder before each run: name to text.
    #[serde(default)]
    pub seed: BTreeMap<String, String>,
    /// What must be installed before measurement.
    #[serde(default)]
    pub dependencies: Dependencies,
    /// The policy that decides on tool calls, for gates with a policy layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySource>,
    /// Seconds after which the tree is killed and the run is incomplete; `--slow N` multiplies them.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// Seconds that the agent's SDK gives a tool server to start and to answer, at most `timeout_seconds`; 5 or those, when
    /// absent. The fixture finds them, multiplied by `--slow`, in `ASSAY_GATES_SERVER_TIMEOUT_SECONDS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_timeout_seconds: Option<u64>,
    /// What the fence around system calls lets this gate's program do; nothing that it need not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allowance>,
    /// How much a run may use before it is ended.
    #[serde(default, skip_serializing_if = "Limits::are_default")]
    pub limits: Limits,
    /// What a run must show to be accepted.
    pub expect: Expectations,
    /// The predeclared scenario, for gates that end in review rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
}

fn default_timeout() -> u64 {
    60
}

/// What `@openai/agents` takes when nobody says anything else, seconds.
const SERVER_TIMEOUT: u64 = 5;

impl Definition {
    /// Seconds that a tool server has to start and to answer.
    #[must_use]
    pub fn server_timeout(&self) -> u64 {
        self.server_timeout_seconds.unwrap_or_else(|| SERVER_TIMEOUT.min(self.timeout_seconds))
    }
}

/// Where a gate belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Part of `all`.
    All,
    /// Only on its own.
    OptIn,
    /// A predeclared scenario; only on its own.
    Scenario,
    /// Must fail in its declared way; only on its own.
    Negative,
}

/// What the agent is built on, as `events.ndjson` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentShim {
    /// No SDK.
    None,
    /// npm `@openai/agents`.
    OpenaiAgents,
    /// PyPI `google-genai`.
    GeminiGoogleGenai,
}

impl AgentShim {
    /// The name in evidence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AgentShim::None => "none",
            AgentShim::OpenaiAgents => "openai-agents",
            AgentShim::GeminiGoogleGenai => "gemini-google-genai",
        }
    }
}

/// Which layers the evidence must have. The kernel layer is always required.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// Decisions of the MCP proxy.
    pub policy: Presence,
    /// Events of the SDK.
    pub sdk: Presence,
}

/// Whether a layer must be there or must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Must be there.
    Required,
    /// Must be absent, its file empty.
    Absent,
}

/// What must be installed before measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// A folder with `package.json` and `package-lock.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub npm: Option<NpmDependencies>,
    /// A `requirements.txt` with hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<PipDependencies>,
}

/// npm packages from a lockfile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NpmDependencies {
    /// Folder of the lockfile, relative to the fixture.
    #[serde(default = "here")]
    pub folder: String,
    /// Packages whose installed version must be exactly this; name to version.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
}

/// PyPI packages from a requirements file with hashes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipDependencies {
    /// The requirements file, relative to the fixture.
    pub requirements: String,
    /// The isolated target folder, relative to the fixture.
    pub target: String,
    /// The versions of Python that the requirements were locked for, e.g. `"3.11"`; no other runs the gate.
    pub python: Vec<String>,
    /// Packages whose installed version must be exactly this; name to version.
    #[serde(default)]
    pub packages: BTreeMap<String, String>,
}

fn here() -> String {
    ".".to_owned()
}

/// The policy of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySource {
    /// The policy file, relative to the fixture: decides for every server without one of its own.
    pub file: String,
    /// Servers with a policy of their own, by their names (`--label` of `mcp-wrap`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, ServerPolicySource>,
}

/// The policy of one MCP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerPolicySource {
    /// The policy file, relative to the fixture.
    pub file: String,
    /// argv that a server of that name must be started with; anything when absent. `${node}` and `${python}` as in
    /// `command` of the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// What every run must show. All that is named must hold; what isn't named isn't looked at,
/// except the standing demands (kernel layer complete, no drops, clean cgroup, valid archive, at least one kernel line).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// Exit status of the agent.
    #[serde(default)]
    pub exit_code: i32,
    /// Files of the work folder that must be in the surface.
    #[serde(default)]
    pub work_paths: Vec<String>,
    /// Files of the work folder that must be nowhere in the evidence, full effects included.
    #[serde(default)]
    pub absent_work_paths: Vec<String>,
    /// Programs that must be in the surface's execs.
    #[serde(default)]
    pub execs: Vec<String>,
    /// Exactly these decisions, in order; empty means none.
    #[serde(default)]
    pub decisions: Vec<ExpectedDecision>,
    /// The SDK layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<ExpectedSdk>,
    /// Calls that the fence around system calls must have refused, by name, e.g. `keyctl`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Opens that must be in the kernel layer, each exactly `count` times.
    #[serde(default)]
    pub opens: Vec<ExpectedOpen>,
    /// Correlation status.
    #[serde(default = "clean")]
    pub correlation: String,
    /// Exactly these ambiguities.
    #[serde(default)]
    pub ambiguities: Vec<String>,
    /// Per tool call, exactly these effects on the work folder and nothing else there; call id to effects.
    #[serde(default)]
    pub tool_effects: BTreeMap<String, Vec<ExpectedEffect>>,
    /// Effects of any operation, each exactly as often as it says; 0 for never.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<ExpectedOperation>,
    /// `corroborated` when the driver must have decided, by the policy that is named above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_origin: Option<String>,
}

fn clean() -> String {
    "clean".to_owned()
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDecision {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool: String,
    /// `allow` or `deny`.
    pub decision: String,
}

/// The SDK layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedSdk {
    /// Who writes the events.
    pub source: String,
    /// Package name, as its own metadata says.
    pub name: String,
    /// Package version, as its own metadata says.
    pub version: String,
    /// Event types, in order.
    pub events: Vec<String>,
    /// The call ids that tool events carry, in order of first appearance.
    pub tool_call_ids: Vec<String>,
}

/// An open of a file of the work folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedOpen {
    /// File, relative to the work folder.
    pub path: String,
    /// `read`, `write`, `read_write`.
    pub access: String,
    /// Labels that must be among the operation flags.
    #[serde(default)]
    pub flags: Vec<String>,
    /// `success` or `error`.
    #[serde(default = "success")]
    pub status: String,
    /// How many records.
    #[serde(default = "one")]
    pub count: u64,
}

fn success() -> String {
    "success".to_owned()
}

fn one() -> u64 {
    1
}

/// An effect on the work folder inside a tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedEffect {
    /// `open`, `unlink`, `rename`, ...
    pub operation: String,
    /// File, relative to the work folder.
    pub path: String,
    /// Opens only: `read`, `write`, `read_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// An effect of any operation. What isn't named isn't looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedOperation {
    /// `unlink`, `rename`, `setxattr`, `listen`, ...
    pub operation: Operation,
    /// File: absolute, or relative to the work folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The second file of rename and link, the text of a symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Peer or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What the effect says beside: `name=user.a`, `signal=9 to process 2`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Opens only: `read`, `write`, `read_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// `success` or `error`.
    #[serde(default = "success")]
    pub status: String,
    /// Id of the call in which it is done, or `outside` of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// How often.
    #[serde(default = "one")]
    pub count: u64,
}

/// A predeclared scenario (contract `semantic_gap_verdict.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Which of the six.
    pub id: ScenarioId,
    /// Its role in the matrix.
    pub role: ScenarioRole,
    /// The verdict that a healthy measurement must end in.
    pub expected_verdict: ScenarioVerdict,
    /// The key that joins the layers.
    pub join_key: String,
    /// The lowest grade of join that the verdict needs.
    pub join_grade: String,
    /// Gate that must pass first, in the same invocation on the same head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// File of the work folder whose measured open makes the gap, or the effect that no call explains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_path: Option<String>,
    /// Access of that open: `read` or `write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_access: Option<String>,
    /// Conditions under which there is no finding, in words.
    #[serde(default)]
    pub stop_conditions: Vec<String>,
    /// What the row does not claim; `^[a-z][a-z0-9_]*$`.
    pub non_claims: Vec<String>,
}

/// The six scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScenarioId {
    /// The agent reports a read, the kernel measures that read.
    MatchedSafeRead,
    /// The path that was reported is not the path that was measured.
    PathRewrite,
    /// The agent reports a read, the kernel measures a write too.
    HiddenWrite,
    /// The tool fails once, retries and succeeds.
    RetrySelfCorrection,
    /// The runtime itself, not the tool, has an effect.
    RuntimeSideEffect,
    /// There is no id to join by.
    WeakJoinFallback,
}

/// The role of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScenarioRole {
    /// Reported and measured agree.
    Baseline,
    /// Reported and measured differ.
    Gap,
    /// The join is too weak for a finding.
    Fallback,
}

/// The verdict on a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScenarioVerdict {
    /// Reported and measured agree, strongly joined.
    PositiveJoin,
    /// Reported and measured differ, strongly joined.
    SemanticGap,
    /// Something was seen; no finding.
    DiagnosticOnly,
    /// The measurement does not carry a verdict.
    Inconclusive,
}
