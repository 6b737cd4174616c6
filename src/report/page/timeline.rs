//! The effects of a run over time, tool calls as lanes; and the tree of its processes.

use super::data::{Gap, Run};
use super::html::escape;
use crate::capture::{Effect, Operation};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const LANE: f64 = 34.0;
/// Kinds of effects; each has a row of its own in a lane, so that none covers another.
const CATEGORIES: [&str; 6] = ["read", "write", "exec", "network", "task", "escape"];
/// Most lanes that are drawn.
const LANES: usize = 100;

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
///
/// A mark stands for all effects of its kind, lane and place, so that its size does not grow with the run.
pub(super) fn svg(run: &Run) -> String {
    let mut lanes = lanes(run);
    if lanes.len() > LANES {
        lanes.drain(LANES - 1..lanes.len() - 1);
    }
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
        let mut marks: BTreeMap<(&str, u64), (usize, &Effect)> = BTreeMap::new();
        for effect in run.effects.iter().filter(|effect| effect.call.as_ref() == lane.as_ref()) {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a place on the picture"
            )]
            let place = x(effect) as u64 / 3;
            marks.entry((category(effect), place)).or_insert((0, effect)).0 += 1;
        }
        for ((kind, _), (count, effect)) in marks {
            let row = CATEGORIES.iter().position(|one| *one == kind).unwrap_or_default();
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            #[allow(clippy::cast_precision_loss, reason = "one of six")]
            let y = top + 3.0 + 5.0 * row as f64;
            let _infallible = writeln!(
                out,
                "<rect class=\"{kind}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"3\" height=\"5\"><title>{}{more}</title></rect>",
                x(effect),
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

/// What the SDK and the policy layer say of each call, beside what the kernel saw in it, and where they part.
pub(super) fn calls(run: &Run, gaps: &[&Gap]) -> String {
    let mut out = String::from(
        "<div class=\"wide\" tabindex=\"0\"><table><caption>Tool calls: reported by the SDK, decided by the policy, measured by the kernel</caption>\
         <thead><tr><th>call</th><th>SDK (self-reported)</th><th>policy</th><th>kernel effects</th><th>writes</th><th>difference</th></tr></thead><tbody>\n",
    );
    for call in lanes(run) {
        let sides = Sides::of(run, call.as_deref());
        let effects = || run.effects.iter().filter(|effect| effect.call == call);
        let writes: BTreeSet<&str> = effects()
            .filter(|effect| category(effect) == "write")
            .filter_map(|effect| effect.path.as_ref().map(|path| path.value.as_str()))
            .collect();
        let shown: Vec<&str> = writes.iter().copied().take(WRITES).collect();
        let more = writes.len().saturating_sub(WRITES);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let mut differences = sides.differences(call.is_some(), effects().count());
        let hidden: BTreeSet<String> =
            effects().filter(|effect| gaps.iter().any(|gap| gap.is_of(effect))).map(act).collect();
        differences.extend(hidden.into_iter().map(|effect| format!("not in the report: {effect}")));
        let difference = match differences.is_empty() {
            true => "none".to_owned(),
            false => format!("<mark>{}</mark>", escape(&differences.join("; "))),
        };
        let _infallible = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}{more}</td><td>{difference}</td></tr>",
            escape(call.as_deref().unwrap_or("outside any call")),
            escape(&or_none(&sides.reported.join(", "))),
            escape(&or_none(&sides.decided.join(", "))),
            effects().count(),
            escape(&or_none(&shown.join(", "))),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// Paths of writes that a row names.
const WRITES: usize = 50;

/// What is said of a call.
struct Sides {
    /// By the agent.
    reported: Vec<String>,
    /// By the policy.
    decided: Vec<String>,
    denied: bool,
}

impl Sides {
    fn of(run: &Run, call: Option<&str>) -> Self {
        let sdk = run.sdk.iter().filter(|event| event.tool_call_id.as_deref() == call);
        let reported = sdk.map(|event| match &event.tool {
            Some(tool) => format!("{} {tool}", event.event_type),
            None => event.event_type.clone(),
        });
        let policy: Vec<_> =
            run.policy.iter().filter(|event| Some(event.tool_call_id.as_str()) == call).collect();
        Self {
            reported: reported.collect(),
            decided: policy.iter().map(|event| format!("{} {}", event.decision, event.tool)).collect(),
            denied: !policy.is_empty() && policy.iter().all(|event| event.decision != "allow"),
        }
    }

    /// Where report, decision and measurement of a call part.
    fn differences(&self, a_call: bool, effects: usize) -> Vec<String> {
        let mut found = Vec::new();
        if a_call && self.reported.is_empty() {
            found.push("not reported".to_owned());
        }
        if a_call && self.decided.is_empty() {
            found.push("not decided".to_owned());
        }
        if self.denied && effects > 0 {
            found.push(format!("not allowed, and {effects} effects"));
        }
        found
    }
}

/// An effect without its number and process: what two runs would have in common.
fn act(effect: &Effect) -> String {
    let access = category(effect);
    let file = effect.path.as_ref().map(|path| path.value.as_str());
    let what = file.or(effect.endpoint.as_deref()).unwrap_or("what could not be named");
    format!("{access} ({}) {what}", effect.syscall)
}

/// The call of a gap: what was reported, decided and measured, side by side, what the report lacks marked.
pub(super) fn side_by_side(run: &Run, gap: &Gap) -> String {
    let sides = Sides::of(run, gap.call.as_deref());
    let mut acts: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for effect in run.effects.iter().filter(|effect| effect.call == gap.call) {
        *acts.entry((!gap.is_of(effect), act(effect))).or_default() += 1;
    }
    let list = |items: &[String]| -> String {
        match items.is_empty() {
            true => "<li>nothing</li>".to_owned(),
            false => items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect(),
        }
    };
    let measured: String = acts
        .iter()
        .take(ACTS)
        .map(|((expected, act), count)| {
            let times = if *count > 1 { format!(" ({count} times)") } else { String::new() };
            match expected {
                true => format!("<li>{}{times}</li>", escape(act)),
                false => format!("<li><mark>{}{times}: not in the report</mark></li>", escape(act)),
            }
        })
        .collect();
    let more = acts.len().saturating_sub(ACTS);
    let more = if more > 0 { format!("<li>and {more} other effects</li>") } else { String::new() };
    format!(
        "<div class=\"sides\"><div><h3>Reported by the SDK</h3><ul>{}</ul></div><div><h3>Decided by the policy</h3><ul>{}</ul></div>\
         <div><h3>Measured by the kernel</h3><ul>{}{more}</ul></div></div>\n",
        list(&sides.reported),
        list(&sides.decided),
        if measured.is_empty() { list(&[]) } else { measured }
    )
}

/// Different effects that a gap's call lists; those that the report lacks come first.
const ACTS: usize = 100;

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
