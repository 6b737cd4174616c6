//! The effects of a run over time, tool calls as lanes; and the tree of its processes.

use super::data::Run;
use super::html::escape;
use crate::capture::{Effect, Operation};
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const LANE: f64 = 34.0;

/// What an effect is drawn as.
fn category(effect: &Effect) -> &'static str {
    match effect.operation {
        Operation::Open if effect.flags.is_some_and(|flags| flags & 3 != 0) => "write",
        Operation::Open => "read",
        Operation::Exec => "exec",
        Operation::Connect | Operation::Bind | Operation::Sendto | Operation::Sendmsg => "network",
        Operation::Fork | Operation::Exit | Operation::CgroupAttach => "task",
        Operation::Escape | Operation::ForeignAbi | Operation::ExitWithoutEnter => "escape",
        _ => "write",
    }
}

/// One line that names an effect.
pub(super) fn told(effect: &Effect) -> String {
    let mut text = format!("{} process {} {}", effect.seq, effect.process, effect.syscall);
    for path in [&effect.path, &effect.target].into_iter().flatten() {
        let _infallible = write!(text, " {}", path.value);
    }
    if let Some(endpoint) = &effect.endpoint {
        let _infallible = write!(text, " {endpoint}");
    }
    if let Some(value) = effect.return_value.filter(|value| *value < 0) {
        let _infallible = write!(text, " failed with {value}");
    }
    if let Some(detail) = &effect.detail {
        let _infallible = write!(text, " ({detail})");
    }
    text
}

/// Lanes: every tool call that the SDK, the policy or the kernel knows, and one for what belongs to none.
fn lanes(run: &Run) -> Vec<Option<String>> {
    let mut calls: Vec<Option<String>> = Vec::new();
    let sdk = run.sdk.iter().filter_map(|event| event.tool_call_id.clone());
    let policy = run.policy.iter().map(|event| event.tool_call_id.clone());
    let kernel = run.effects.iter().filter_map(|effect| effect.call.clone());
    for call in sdk.chain(policy).chain(kernel).map(Some) {
        if !calls.contains(&call) {
            calls.push(call);
        }
    }
    calls.push(None);
    calls
}

/// The picture, with a title on every mark; the table beneath it says the same in words.
pub(super) fn svg(run: &Run) -> String {
    let lanes = lanes(run);
    let (first, last) = match (run.effects.first(), run.effects.last()) {
        (Some(first), Some(last)) => (first.time_ns, last.time_ns.max(first.time_ns + 1)),
        _ => (0, 1),
    };
    let x = |effect: &Effect| {
        #[allow(clippy::cast_precision_loss, reason = "a position on a picture")]
        let part = effect.time_ns.saturating_sub(first) as f64 / (last - first) as f64;
        LEFT + part * (WIDTH - LEFT - 12.0)
    };
    #[allow(clippy::cast_precision_loss, reason = "a handful of lanes")]
    let height = LANE * lanes.len() as f64 + 24.0;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Effects of run {} over time, one lane per tool call\">\n",
        run.number
    );
    for (index, lane) in lanes.iter().enumerate() {
        #[allow(clippy::cast_precision_loss, reason = "a handful of lanes")]
        let top = LANE * index as f64 + 4.0;
        let middle = top + LANE / 2.0;
        let name = lane.as_deref().unwrap_or("outside any call");
        let short: String = name.chars().take(26).collect();
        let _infallible = writeln!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{}</text><line x1=\"{LEFT}\" y1=\"{middle:.1}\" x2=\"{WIDTH}\" y2=\"{middle:.1}\"/>",
            middle + 4.0,
            escape(&short)
        );
        for effect in run.effects.iter().filter(|effect| effect.call.as_ref() == lane.as_ref()) {
            let kind = category(effect);
            let _infallible = writeln!(
                out,
                "<rect class=\"{kind}\" x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"{:.1}\"><title>{}</title></rect>",
                x(effect),
                top + 6.0,
                LANE - 12.0,
                escape(&told(effect))
            );
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "a caption")]
    let milliseconds = (last - first) as f64 / 1e6;
    let _infallible = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\">0</text><text x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{milliseconds:.1} ms</text></svg>",
        height - 4.0,
        height - 4.0
    );
    out
}

/// What the SDK and the policy layer say of each call, beside what the kernel saw in it.
pub(super) fn calls(run: &Run) -> String {
    let mut out = String::from(
        "<table><caption>Tool calls: reported by the SDK, decided by the policy, measured by the kernel</caption>\
         <thead><tr><th>call</th><th>SDK (self-reported)</th><th>policy</th><th>kernel effects</th><th>writes</th></tr></thead><tbody>\n",
    );
    for call in lanes(run) {
        let sdk: Vec<&str> = run
            .sdk
            .iter()
            .filter(|event| event.tool_call_id == call)
            .map(|event| event.event_type.as_str())
            .collect();
        let decisions = run.policy.iter().filter(|event| Some(&event.tool_call_id) == call.as_ref());
        let decisions: Vec<String> =
            decisions.map(|event| format!("{} {}", event.decision, event.tool)).collect();
        let effects = || run.effects.iter().filter(|effect| effect.call == call);
        let writes: Vec<String> = effects()
            .filter(|effect| category(effect) == "write")
            .filter_map(|effect| effect.path.as_ref().map(|path| path.value.clone()))
            .collect();
        let _infallible = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(call.as_deref().unwrap_or("outside any call")),
            escape(&or_none(&sdk.join(", "))),
            escape(&or_none(&decisions.join(", "))),
            effects().count(),
            escape(&or_none(&writes.join(", ")))
        );
    }
    out.push_str("</tbody></table>\n");
    out
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

/// The processes, as they were born.
pub(super) fn processes(run: &Run) -> String {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut programs: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut ends: BTreeMap<u32, i64> = BTreeMap::new();
    let mut born: Vec<u32> = Vec::new();
    for effect in &run.effects {
        match effect.operation {
            Operation::Fork => {
                let parent = effect
                    .detail
                    .as_deref()
                    .and_then(|detail| detail.strip_prefix("process of ")?.parse().ok());
                if let Some(parent) = parent {
                    children.entry(parent).or_default().push(effect.process);
                    born.push(effect.process);
                }
            }
            Operation::Exec if effect.return_value.is_none_or(|value| value >= 0) => {
                let path = effect.path.as_ref().map_or("?", |path| path.value.as_str());
                programs.entry(effect.process).or_default().push(path.to_owned());
            }
            Operation::Exit => {
                ends.insert(effect.process, effect.return_value.unwrap_or_default());
            }
            _ => {}
        }
    }
    let mut roots: Vec<u32> =
        run.effects.iter().map(|effect| effect.process).filter(|process| !born.contains(process)).collect();
    roots.sort_unstable();
    roots.dedup();
    let mut out = String::from("<ul class=\"tree\">\n");
    let mut open: Vec<(u32, usize)> = roots.into_iter().rev().map(|root| (root, 0)).collect();
    let mut depth = 0;
    while let Some((process, level)) = open.pop() {
        while depth > level {
            out.push_str("</ul></li>\n");
            depth -= 1;
        }
        let program = programs.get(&process).map_or_else(|| "no exec".to_owned(), |all| all.join(" → "));
        let end =
            ends.get(&process).map_or_else(|| "end not seen".to_owned(), |code| format!("ended with {code}"));
        let _infallible = write!(out, "<li><b>process {process}</b> {} <span>{end}</span>", escape(&program));
        match children.get(&process) {
            Some(all) if level < 64 => {
                out.push_str("<ul>\n");
                depth += 1;
                open.extend(all.iter().rev().map(|child| (*child, level + 1)));
            }
            _ => out.push_str("</li>\n"),
        }
    }
    while depth > 0 {
        out.push_str("</ul></li>\n");
        depth -= 1;
    }
    out.push_str("</ul>\n");
    out
}
