//! From one measured run of a user's own agent to the gate that would hold it to that.
//!
//! What is proposed is what was seen, and nothing more: it is for its user to read, and to take out what may differ.

use crate::evidence::tool_effects::Attribution;
use crate::evidence::{Archive, KernelEvent, ToolEffects};
use crate::gate::{AgentShim, Definition, Presence};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

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

/// The text of the proposed `gate.yaml`. `work` is the work folder as the measured program saw it.
#[must_use]
pub fn gate_yaml(
    draft: &Definition,
    archive: &Archive,
    effects: &ToolEffects,
    origin: Option<&str>,
    work: &str,
) -> String {
    let mut text = format!(
        "# Proposed from one measured run of this gate: everything below `expect` is what was seen.\n\
         # Read it, take out what may differ from run to run, and then hold the agent to it.\n\
         schema: {}\nid: {}\ntitle: {}\ngroup: opt-in\nlabel: {}\nrun_id: {}\narchive: {}\nagent_shim: {}\nlayers:\n",
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
    if let Some(policy) = &draft.policy {
        line(&mut text, 0, &format!("policy:\n  file: {}", quoted(&policy.file)));
    }
    line(&mut text, 0, &format!("timeout_seconds: {}\nexpect:", draft.timeout_seconds));
    line(&mut text, 1, &format!("exit_code: {}", archive.finished.exit_code.unwrap_or_default()));
    line(&mut text, 1, "# Files of the work folder that must be touched.");
    line(&mut text, 1, &format!("work_paths: {}", list(work_paths(archive, work))));
    line(&mut text, 1, "# Programs that must run.");
    line(&mut text, 1, &format!("execs: {}", list(&archive.surface.process_execs)));
    opens(&mut text, archive, work);
    decisions(&mut text, archive, effects, origin, work);
    sdk(&mut text, archive);
    line(&mut text, 1, &format!("correlation: {}", archive.correlation.status));
    if !archive.correlation.ambiguities.is_empty() {
        line(&mut text, 1, &format!("ambiguities: {}", list(&archive.correlation.ambiguities)));
    }
    text
}

/// The text of a policy that allows the tools that were called, and nothing else.
#[must_use]
pub fn policy_yaml(archive: &Archive) -> String {
    format!(
        "# Proposed from one measured run: the tools that were called may be called, anything else may not.\n\
         schema: assay.gates.policy.v0\ndefault: deny\ntools:\n  allow: {}\n",
        list(&archive.surface.mcp_tools)
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

fn opens(text: &mut String, archive: &Archive, work: &str) {
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
    if groups.is_empty() {
        return;
    }
    line(text, 1, "# Opens in the work folder, each exactly this often.");
    line(text, 1, "opens:");
    for ((path, access, status), events) in groups {
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
        line(text, 2, &item);
    }
}

fn decisions(text: &mut String, archive: &Archive, effects: &ToolEffects, origin: Option<&str>, work: &str) {
    if archive.policy.is_empty() {
        return;
    }
    line(text, 1, "# Exactly these decisions, in this order.");
    line(text, 1, "decisions:");
    for event in &archive.policy {
        let item = format!(
            "- {{tool_call_id: {}, tool: {}, decision: {}}}",
            quoted(&event.tool_call_id),
            quoted(&event.tool),
            event.decision
        );
        line(text, 2, &item);
    }
    // A definition states each effect of a call once; a call that repeats one is left to its user.
    let calls: Vec<_> = effects
        .calls
        .iter()
        .filter(|call| call.attribution == Attribution::Exact)
        .filter_map(|call| {
            let there = call
                .effects
                .iter()
                .filter(|e| e.path.as_deref().is_some_and(|path| below(path, work).is_some()));
            let there: Vec<_> = there.collect();
            there.iter().all(|effect| effect.count == 1).then_some((call, there))
        })
        .collect();
    if !calls.is_empty() {
        line(text, 1, "# What each call does in the work folder, and nothing else there.");
        line(text, 1, "tool_effects:");
        for (call, effects) in calls {
            let empty = if effects.is_empty() { " []" } else { "" };
            line(text, 2, &format!("{}:{empty}", quoted(&call.tool_call_id)));
            for effect in effects {
                let path = effect.path.as_deref().and_then(|path| below(path, work)).unwrap_or_default();
                let operation = serde_json::to_value(effect.operation).unwrap_or_default();
                let mut item = format!(
                    "- {{operation: {}, path: {}",
                    operation.as_str().unwrap_or_default(),
                    quoted(path)
                );
                if effect.operation == crate::capture::Operation::Open
                    && let Some(flags) = effect.flags
                {
                    let _infallible =
                        write!(item, ", access: {}", crate::evidence::kernel::access_mode(flags));
                }
                line(text, 3, &format!("{item}}}"));
            }
        }
    }
    if let Some(origin) = origin {
        line(text, 1, &format!("policy_origin: {origin}"));
    }
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
