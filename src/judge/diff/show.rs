//! Differences for people: what changed first, what stayed as a count.

use super::baseline::BaselineDiff;
use super::capability::{CapabilityDiff, PolicyOutcomes};
use super::cross::{CrossRuntimeDiff, Sdk};
use super::effects::{EffectSets, EffectsDiff};
use super::sets::{SetDiff, SurfaceDiff};
use crate::capture::Operation;
use crate::evidence::kernel::access_mode;
use crate::evidence::tool_effects::CountedEffect;
use std::collections::BTreeSet;
use std::fmt::Write;

/// `  sdk                  a 1.0 -> a 1.1`; nothing when neither side names one.
#[must_use]
pub fn sdks(base: &BTreeSet<Sdk>, head: &BTreeSet<Sdk>) -> String {
    let named = |sdks: &BTreeSet<Sdk>| {
        let names: Vec<String> =
            sdks.iter().map(|sdk| format!("{} {}", sdk.sdk_name, sdk.sdk_version)).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    match (base.is_empty() && head.is_empty(), base == head) {
        (true, _) => String::new(),
        (_, true) => format!("  {:<20} {}, on both sides\n", "sdk", named(base)),
        (_, false) => format!("  {:<20} {} -> {}\n", "sdk", named(base), named(head)),
    }
}

/// `connects to 1.2.3.4:443`, `writes /x`, `removes /x (failed: errno 2)`.
#[must_use]
pub fn phrase(effect: &CountedEffect) -> String {
    let path = effect.path.as_deref().unwrap_or("?");
    let target = effect.target.as_deref().unwrap_or("?");
    let endpoint = effect.endpoint.as_deref().unwrap_or("?");
    let detail = effect.detail.as_deref().unwrap_or("?");
    let mut text = match effect.operation {
        Operation::Open => format!("{} {path}", opens(effect.flags)),
        Operation::Exec => format!("runs {path}"),
        Operation::Unlink | Operation::Rmdir => format!("removes {path}"),
        Operation::Rename => format!("renames {path} to {target}"),
        Operation::Link => format!("links {target} to {path}"),
        Operation::Symlink => format!("links {path} to {target} by name"),
        Operation::Mkdir => format!("makes the folder {path}"),
        Operation::Truncate => format!("truncates {path}"),
        Operation::Chmod => format!("changes the mode of {path}"),
        Operation::Chown => format!("changes the owner of {path}"),
        Operation::Mknod => format!("makes the special file {path}"),
        Operation::Connect => format!("connects to {endpoint}"),
        Operation::Bind => format!("binds {endpoint}"),
        Operation::Sendto | Operation::Sendmsg => format!("sends to {endpoint}"),
        Operation::IoUring => format!("asks an io_uring for {} {path}", effect.syscall),
        Operation::Setxattr | Operation::Removexattr => {
            format!("changes an extended attribute of {path} ({detail})")
        }
        Operation::Utime => format!("changes the times of {path}"),
        Operation::SetAttributes => format!("changes the attributes of {path}"),
        Operation::DeviceControl => format!("controls {path} ({detail})"),
        Operation::Listen => format!("listens at {endpoint}"),
        Operation::Accept => format!("accepts connections at {endpoint}"),
        Operation::Socket => format!("makes a socket of {detail}"),
        Operation::Signal => format!("sends {detail}"),
        Operation::MessageQueue => format!("uses a message queue ({detail})"),
        Operation::Ipc => format!("uses System V IPC by {} ({detail})", effect.syscall),
        Operation::Key => format!("uses the kernel's keys by {} ({detail})", effect.syscall),
        Operation::Mount => format!("changes mounts by {} at {path}", effect.syscall),
        Operation::Namespace => format!("changes namespaces by {} ({detail})", effect.syscall),
        Operation::System => format!("changes the machine by {}", effect.syscall),
        Operation::ProcessControl => format!("changes how processes run by {}", effect.syscall),
        Operation::Escape => format!("calls {}, which could escape observation", effect.syscall),
        Operation::ForeignAbi => format!("calls {} of a foreign ABI", effect.syscall),
        Operation::ExitWithoutEnter => format!("ends {} without having begun it", effect.syscall),
        Operation::Fork | Operation::Exit | Operation::CgroupAttach => effect.syscall.clone(),
    };
    if let Some(errno) = effect.errno {
        let _infallible = write!(text, " (failed: errno {errno})");
    }
    text
}

fn opens(flags: Option<u64>) -> &'static str {
    let flags = flags.unwrap_or(0);
    match access_mode(flags) {
        _ if flags & 0o100 != 0 => "creates or writes",
        "read" => "reads",
        "write" => "writes",
        _ => "reads and writes",
    }
}

impl CapabilityDiff {
    /// As a text of several lines.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = head(&self.base_run_id, &self.head_run_id, &self.status, self.is_same());
        surface(&mut text, &self.surface);
        set(&mut text, "binding_ids", &self.binding_ids);
        outcomes(&mut text, &self.policy_outcomes);
        let held = &self.preconditions;
        for (name, holds) in [
            ("base_health_clean", held.base_health_clean),
            ("head_health_clean", held.head_health_clean),
            ("base_correlation_clean", held.base_correlation_clean),
            ("head_correlation_clean", held.head_correlation_clean),
            ("stable_tool_call_ids_present", held.stable_tool_call_ids_present),
        ] {
            if !holds {
                let _infallible = writeln!(text, "  does not hold: {name}");
            }
        }
        text
    }
}

impl CrossRuntimeDiff {
    /// As a text of several lines.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = head(&self.base_run_id, &self.head_run_id, &self.status, self.surface.is_same());
        for (side, sdk) in [("base", &self.sdk_metadata.base), ("head", &self.sdk_metadata.head)] {
            let _infallible = writeln!(text, "  {side:<20} {} {}", sdk.sdk_name, sdk.sdk_version);
        }
        surface(&mut text, &self.surface);
        for claim in &self.non_claims {
            let _infallible = writeln!(text, "  not claimed: {claim}");
        }
        text
    }
}

impl EffectsDiff {
    /// As a text of several lines.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = head(&self.base_run_id, &self.head_run_id, &self.status, self.is_same());
        text.push_str(&sdks(&self.base_sdks, &self.head_sdks));
        for tool in &self.tools {
            let _infallible =
                writeln!(text, "{} (calls: {}, was {})", tool.tool, tool.head_calls, tool.base_calls);
            effects(&mut text, &tool.effects);
        }
        text.push_str("outside of calls\n");
        effects(&mut text, &self.outside);
        text
    }
}

impl BaselineDiff {
    /// As a text of several lines; empty when nothing differs.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut text = String::new();
        for (category, values) in self.surface.categories() {
            if !values.is_same() {
                set(&mut text, category, values);
            }
        }
        for tool in self.tools.iter().filter(|tool| !tool.effects.is_same()) {
            let _infallible = writeln!(text, "{}", tool.tool);
            effects(&mut text, &tool.effects);
        }
        if !self.outside.is_same() {
            text.push_str("outside of calls\n");
            effects(&mut text, &self.outside);
        }
        text
    }
}

fn head(base: &str, head: &str, status: &str, same: bool) -> String {
    let verdict = match (status, same) {
        ("clean", true) => "the same",
        ("clean", false) => "different",
        _ => "not comparable",
    };
    format!("{base} -> {head}: {verdict} ({status})\n")
}

fn surface(text: &mut String, surface: &SurfaceDiff) {
    for (category, values) in surface.categories() {
        set(text, category, values);
    }
}

fn set(text: &mut String, name: &str, values: &SetDiff) {
    let _infallible = writeln!(
        text,
        "  {name:<20} +{} -{} ={}",
        values.added.len(),
        values.removed.len(),
        values.unchanged.len()
    );
    for (sign, list) in [('+', &values.added), ('-', &values.removed)] {
        for value in list {
            let _infallible = writeln!(text, "    {sign} {value}");
        }
    }
}

fn outcomes(text: &mut String, outcomes: &PolicyOutcomes) {
    for change in &outcomes.changed {
        let _infallible =
            writeln!(text, "  decision on {}: {}, was {}", change.tool_call_id, change.head, change.base);
    }
}

fn effects(text: &mut String, effects: &EffectSets) {
    for (what, list) in [("now also", &effects.added), ("no longer", &effects.removed)] {
        for effect in list {
            let _infallible = writeln!(text, "  {what:<10} {}", phrase(effect));
        }
    }
    for change in &effects.recounted {
        let _infallible = writeln!(
            text,
            "  {:<10} {} ({} times, was {})",
            "as before",
            phrase(&change.effect),
            change.head_count,
            change.effect.count
        );
    }
    let _infallible = writeln!(text, "  {:<10} {}", "unchanged", effects.unchanged.len());
}
