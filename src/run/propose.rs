//! From measured runs of a user's own agent to the gate that would hold it to that.
//!
//! What is proposed is what was seen in every run, and nothing more: it is for its user to read.

use crate::evidence::tool_effects::{Attribution, CountedEffect};
use crate::evidence::{Archive, KernelEvent, ToolEffects};
use crate::gate::{AgentShim, Definition, Presence};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What one run of the agent showed.
#[derive(Debug)]
pub struct Shown {
    /// The evidence.
    pub archive: Archive,
    /// What each call did.
    pub effects: ToolEffects,
    /// Who decided on calls, as the proof says.
    pub origin: Option<String>,
}

/// A definition of what is measured, before anything is expected of it.
#[must_use]
pub fn draft(name: &str, command: Vec<String>, agent_shim: AgentShim, policy: bool) -> Definition {
    let required = |wanted: bool| if wanted { Presence::Required } else { Presence::Absent };
    Definition {
        schema: "assay.gates.gate.v0".to_owned(),
        id: name.to_owned(),
        aliases: Vec::new(),
        title: format!("What {name} does"),
        group: crate::gate::Group::OptIn,
        order: 0,
        label: name.to_owned(),
        run_id: format!("run_{}", name.replace('-', "_")),
        archive: format!("runner-{name}.tar.gz"),
        agent_shim,
        layers: crate::gate::Layers {
            policy: required(policy),
            sdk: required(agent_shim != AgentShim::None),
        },
        fixture: None,
        command,
        env: BTreeMap::new(),
        seed: BTreeMap::new(),
        dependencies: crate::gate::Dependencies::default(),
        policy: policy
            .then(|| crate::gate::PolicySource { file: "policy.yaml".to_owned(), servers: BTreeMap::new() }),
        timeout_seconds: 120,
        server_timeout_seconds: None,
        allow: Vec::new(),
        limits: crate::gate::Limits::default(),
        expect: crate::gate::Expectations::default(),
        scenario: None,
    }
}

/// The text of the proposed `gate.yaml`, of one run or more. `work` is the work folder as the measured program saw it.
#[must_use]
pub fn gate_yaml(draft: &Definition, runs: &[Shown], work: &str) -> String {
    let Some(Shown { archive, origin, .. }) = runs.first() else { return String::new() };
    let mut text = format!(
        "# Proposed from {} of this gate: everything below `expect` was seen in each.\n\
         # Read it, take out what may differ from run to run, and then hold the agent to it.\n\
         schema: {}\nid: {}\ntitle: {}\ngroup: opt-in\nlabel: {}\nrun_id: {}\narchive: {}\nagent_shim: {}\nlayers:\n",
        if runs.len() == 1 { "one measured run".to_owned() } else { format!("{} measured runs", runs.len()) },
        draft.schema,
        draft.id,
        quoted(&draft.title),
        draft.label,
        draft.run_id,
        draft.archive,
        draft.agent_shim.name(),
    );
    for (layer, presence) in [("policy", draft.layers.policy), ("sdk", draft.layers.sdk)] {
        let word = if presence == Presence::Required { "required" } else { "absent" };
        line(&mut text, 1, &format!("{layer}: {word}"));
    }
    line(&mut text, 0, &format!("command: {}", list(&draft.command)));
    if !draft.env.is_empty() {
        line(&mut text, 0, "env:");
        for (name, value) in &draft.env {
            line(&mut text, 1, &format!("{}: {}", quoted(name), serde_json::Value::from(value.as_str())));
        }
    }
    if let Some(policy) = &draft.policy {
        line(&mut text, 0, &format!("policy:\n  file: {}", quoted(&policy.file)));
    }
    line(&mut text, 0, &format!("timeout_seconds: {}\nexpect:", draft.timeout_seconds));
    line(&mut text, 1, &format!("exit_code: {}", archive.finished.exit_code.unwrap_or_default()));
    line(&mut text, 1, "# Files of the work folder that must be touched.");
    line(&mut text, 1, &format!("work_paths: {}", list(in_each(runs, |run| work_paths(&run.archive, work)))));
    line(&mut text, 1, "# Programs that must run.");
    let execs = in_each(runs, |run| run.archive.surface.process_execs.clone());
    line(&mut text, 1, &format!("execs: {}", list(execs)));
    let opens = in_each(runs, |run| opens(&run.archive, work));
    block(&mut text, "# Opens in the work folder, each exactly this often.", "opens", opens);
    if !archive.policy.is_empty() {
        // What a definition needs of a gate with decisions; runs that decide differently don't agree.
        let title = "# Exactly these decisions, in this order.";
        block(&mut text, title, "decisions", decisions(archive));
        let effects = in_each(runs, |run| call_effects(&run.effects, work));
        let title = "# What each call does in the work folder, and nothing else there.";
        block(&mut text, title, "tool_effects", effects);
        if let Some(origin) = origin {
            line(&mut text, 1, &format!("policy_origin: {origin}"));
        }
    }
    sdk(&mut text, archive);
    line(&mut text, 1, &format!("correlation: {}", archive.correlation.status));
    if !archive.correlation.ambiguities.is_empty() {
        line(&mut text, 1, &format!("ambiguities: {}", list(&archive.correlation.ambiguities)));
    }
    text
}

/// What `of` gives of every run, in the order of the first.
fn in_each<I: IntoIterator<Item = String>>(runs: &[Shown], of: impl Fn(&Shown) -> I) -> Vec<String> {
    let Some((first, others)) = runs.split_first() else { return Vec::new() };
    let others: Vec<BTreeSet<String>> = others.iter().map(|run| of(run).into_iter().collect()).collect();
    of(first).into_iter().filter(|item| others.iter().all(|other| other.contains(item))).collect()
}

/// A key of `expect` and its items, each of one line or more; nothing when there are none.
fn block(text: &mut String, title: &str, key: &str, items: Vec<String>) {
    if items.is_empty() {
        return;
    }
    line(text, 1, title);
    line(text, 1, &format!("{key}:"));
    for item in items.iter().flat_map(|item| item.lines()) {
        line(text, 2, item);
    }
}

/// First line of a policy that was proposed, and not written by its user.
pub const PROPOSED_POLICY: &str =
    "# Proposed from measured runs: the tools that were called may be called, anything else may not.";

/// The text of a policy that allows the tools that were called in any of the runs, and nothing else.
#[must_use]
pub fn policy_yaml(runs: &[Shown]) -> String {
    let tools: BTreeSet<&String> = runs.iter().flat_map(|run| &run.archive.surface.mcp_tools).collect();
    format!(
        "{PROPOSED_POLICY}\nschema: assay.gates.policy.v0\ndefault: deny\ntools:\n  allow: {}\n",
        list(tools)
    )
}

/// The policy under which the first run is measured: everything is let through and logged.
pub const OPEN_POLICY: &str = "schema: assay.gates.policy.v0\ndefault: allow\n";

fn below<'a>(path: &'a str, work: &str) -> Option<&'a str> {
    path.strip_prefix(work)?.strip_prefix('/').filter(|path| !path.is_empty())
}

fn work_paths(archive: &Archive, work: &str) -> BTreeSet<String> {
    archive.surface.filesystem_paths.iter().filter_map(|path| below(path, work)).map(str::to_owned).collect()
}

fn opens(archive: &Archive, work: &str) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str, &str), Vec<&KernelEvent>> = BTreeMap::new();
    for event in archive.kernel.iter().filter(|event| event.kind == "openat") {
        let (Some(path), Some(access), Some(status)) = (
            event.value.as_deref().and_then(|path| below(path, work)),
            event.access_mode.as_deref(),
            event.status.as_deref(),
        ) else {
            continue;
        };
        groups.entry((path, access, status)).or_default().push(event);
    }
    let item = |((path, access, status), events): ((&str, &str, &str), Vec<&KernelEvent>)| {
        let mut item = format!("- {{path: {}, access: {access}", quoted(path));
        let mut flags = events.iter().map(|event| event.operation_flags.iter().collect::<BTreeSet<_>>());
        let first = flags.next().unwrap_or_default();
        let common = flags.fold(first, |common, more| common.intersection(&more).copied().collect());
        if !common.is_empty() {
            let _infallible = write!(item, ", flags: {}", list(common));
        }
        if status != "success" {
            let _infallible = write!(item, ", status: {status}");
        }
        let _infallible = write!(item, ", count: {}}}", events.len());
        item
    };
    groups.into_iter().map(item).collect()
}

fn decisions(archive: &Archive) -> Vec<String> {
    let item = |event: &crate::evidence::PolicyEvent| {
        format!(
            "- {{tool_call_id: {}, tool: {}, decision: {}}}",
            quoted(&event.tool_call_id),
            quoted(&event.tool),
            event.decision
        )
    };
    archive.policy.iter().map(item).collect()
}

/// What each call did in the work folder. A definition states each effect of a call once; a call that repeats one is
/// left to its user.
fn call_effects(effects: &ToolEffects, work: &str) -> Vec<String> {
    let mut items = Vec::new();
    for call in effects.calls.iter().filter(|call| call.attribution == Attribution::Exact) {
        let in_work =
            |effect: &&CountedEffect| effect.path.as_deref().is_some_and(|path| below(path, work).is_some());
        let there: Vec<&CountedEffect> = call.effects.iter().filter(in_work).collect();
        if there.iter().any(|effect| effect.count != 1) {
            continue;
        }
        let empty = if there.is_empty() { " []" } else { "" };
        let mut item = format!("{}:{empty}", quoted(&call.tool_call_id));
        for effect in there {
            let path = effect.path.as_deref().and_then(|path| below(path, work)).unwrap_or_default();
            let _infallible =
                write!(item, "\n  - {{operation: {}, path: {}", effect.operation.name(), quoted(path));
            if let (crate::capture::Operation::Open, Some(flags)) = (effect.operation, effect.flags) {
                let _infallible = write!(item, ", access: {}", crate::evidence::kernel::access_mode(flags));
            }
            item.push('}');
        }
        items.push(item);
    }
    items
}

fn sdk(text: &mut String, archive: &Archive) {
    let Some(first) = archive.sdk.first() else { return };
    let named = archive.sdk.iter().find(|event| event.sdk_name.is_some()).unwrap_or(first);
    let mut ids: Vec<&str> = Vec::new();
    for id in archive.sdk.iter().filter_map(|event| event.tool_call_id.as_deref()) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    line(text, 1, "sdk:");
    for (key, value) in [
        ("source", quoted(&first.source)),
        ("name", quoted(named.sdk_name.as_deref().unwrap_or("null"))),
        ("version", quoted(named.sdk_version.as_deref().unwrap_or("null"))),
        ("events", list(archive.sdk.iter().map(|event| &event.event_type))),
        ("tool_call_ids", list(ids)),
    ] {
        line(text, 2, &format!("{key}: {value}"));
    }
}

fn line(text: &mut String, depth: usize, content: &str) {
    let _infallible = writeln!(text, "{:1$}{content}", "", depth * 2);
}

/// A JSON string is a YAML string, whatever is in it.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./@".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}
