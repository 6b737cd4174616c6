//! The capture proof against itself and against the effects that it vouches for.
//!
//! The kernel counted what it emitted, hook by hook; the driver wrote those counts down; the effects are what became of the
//! records. Whoever takes effects out, or writes a counter anew, must make all three agree.

use super::Assertion;
use crate::capture::{CaptureProof, Effect, INVARIANTS, Operation, REFUSED};
use std::collections::{BTreeMap, BTreeSet};

/// What a stream of effects comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EffectTotals {
    /// Effects.
    pub count: u64,
    /// Effects by the hook of the kernel programs that records them, for the hooks whose records become one effect each.
    pub by_hook: BTreeMap<&'static str, u64>,
    /// Kernel time of the earliest and the latest, nanoseconds since the host's boot.
    pub times_ns: Option<(u64, u64)>,
    /// Every path that any effect named.
    pub touched: BTreeSet<String>,
    /// Names of the calls that the fence around system calls refused.
    pub refused: BTreeSet<String>,
}

impl EffectTotals {
    /// Takes one effect.
    pub fn take(&mut self, effect: Effect) {
        self.count += 1;
        if let Some(hook) = hook(&effect) {
            *self.by_hook.entry(hook).or_default() += 1;
        }
        let at = effect.time_ns;
        self.times_ns = Some(self.times_ns.map_or((at, at), |(first, last)| (first.min(at), last.max(at))));
        if effect.marks.iter().any(|mark| mark == REFUSED) {
            self.refused.insert(effect.syscall);
        }
        self.touched.extend([effect.path, effect.target].into_iter().flatten().map(|path| path.value));
    }
}

/// The hook whose record an effect is, where that is one to one.
fn hook(effect: &Effect) -> Option<&'static str> {
    match (effect.operation, effect.syscall.as_str()) {
        (Operation::Open, "open" | "openat" | "creat") => Some("openat"),
        (Operation::Open, "openat2") => Some("openat2"),
        (Operation::Exec, _) => Some("exec"),
        (Operation::Fork, _) => Some("birth"),
        (Operation::Exit, _) => Some("exit"),
        _ => None,
    }
}

/// Hooks whose records are counted against effects, and how many of them each canary leaves.
const COUNTED: [(&str, u64); 5] = [("openat", 2), ("openat2", 0), ("exec", 1), ("birth", 1), ("exit", 1)];
/// Invariants whose two sides are not written alike: what is expected is a sentence.
const IN_WORDS: [&str; 6] =
    ["task_sequences", "task_automaton", "born_equals_died", "kernel_release", "kernel_btf", "object_sha256"];
/// Canaries of a complete run.
const CANARIES: u64 = 2;
/// Most workers that the kernel starts for the rings of both canaries: one for each request.
const MOST_WORKERS: u64 = 16;

/// Everything in which a proof that says `complete` contradicts itself or its effects; empty when nothing does.
///
/// A proof that is not complete vouches for nothing, so nothing is held against it.
#[must_use]
pub fn reconcile(proof: &CaptureProof, effects: &EffectTotals) -> Vec<Assertion> {
    if !proof.complete {
        return Vec::new();
    }
    let mut all = itself(proof);
    all.extend(counters(proof, effects));
    all.retain(|assertion| !assertion.held);
    all
}

/// Every invariant once, in order, held, with both sides the same; nothing given as a reason.
fn itself(proof: &CaptureProof) -> Vec<Assertion> {
    let names: Vec<&str> = proof.invariants.iter().map(|one| one.name.as_str()).collect();
    let mut all = vec![
        Assertion::equal("invariants", INVARIANTS.join(" "), names.join(" ")),
        Assertion::equal("reasons", "", proof.reasons.join("; ")),
    ];
    for one in &proof.invariants {
        let alike = IN_WORDS.contains(&one.name.as_str()) || one.expected == one.seen;
        all.push(Assertion::that(&one.name, one.held && alike, &one.expected, &one.seen));
    }
    for name in ["kernel_release", "kernel_btf", "object_sha256"] {
        let stated = proof.environment.get(name).map_or("none", String::as_str);
        all.push(Assertion::equal(&format!("environment.{name}"), seen(proof, name), stated));
    }
    all
}

fn seen<'a>(proof: &'a CaptureProof, name: &str) -> &'a str {
    proof.invariants.iter().find(|one| one.name == name).map_or("none", |one| one.seen.as_str())
}

/// The kernel's counters hook by hook, their sums, and the effects.
fn counters(proof: &CaptureProof, effects: &EffectTotals) -> Vec<Assertion> {
    let mut all = Vec::new();
    let (mut emitted, mut dropped) = (0, 0);
    let mut by_hook: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, text) in &proof.environment {
        let Some(hook) = name.strip_prefix("records.") else { continue };
        let Some((one, two)) = text
            .split_once('/')
            .and_then(|(one, two)| Some((one.parse::<u64>().ok()?, two.parse::<u64>().ok()?)))
        else {
            all.push(Assertion::that(name, false, "emitted/dropped", text));
            continue;
        };
        emitted += one;
        dropped += two;
        by_hook.insert(hook, one);
    }
    all.push(Assertion::equal("emitted_equals_read", emitted, seen(proof, "emitted_equals_read")));
    all.push(Assertion::equal("kept_equals_reread", emitted, seen(proof, "kept_equals_reread")));
    all.push(Assertion::equal("nothing_dropped", dropped, seen(proof, "nothing_dropped")));
    for (hook, invariant) in [("birth", "births_recorded"), ("exit", "deaths_recorded")] {
        all.push(Assertion::equal(
            invariant,
            by_hook.get(hook).copied().unwrap_or_default(),
            seen(proof, invariant),
        ));
    }
    let workers = proof.environment.get("canary.workers").map_or("0", String::as_str);
    let of_rings = workers.parse::<u64>().ok().filter(|number| *number <= MOST_WORKERS);
    all.push(Assertion::that(
        "canary.workers",
        of_rings.is_some(),
        format!("a number up to {MOST_WORKERS}"),
        workers,
    ));
    for (hook, of_canary) in COUNTED {
        let of_rings = of_rings.filter(|_| matches!(hook, "birth" | "exit")).unwrap_or_default();
        let recorded = by_hook.get(hook).copied().unwrap_or_default();
        let here = effects.by_hook.get(hook).copied().unwrap_or_default();
        all.push(Assertion::equal(
            &format!("records.{hook}"),
            format!("{recorded} records"),
            format!("{} records", here + of_canary * CANARIES + of_rings),
        ));
    }
    all
}
