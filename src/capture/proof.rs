//! Whether a recording may be called complete: every invariant, what was expected, what was seen, and who saw it.

use super::catalogue;
use super::ledger::{Balance, Ledger};
use super::raw::{Counters, HOOKS};
use super::{CallWindow, CaptureProof, HookCount, Invariant, NetworkCounts, Outcome, Summary};
use std::collections::BTreeMap;

/// A capability that the kernel lacks.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// Its name.
    pub capability: &'static str,
    /// What nobody sees without it.
    pub without: &'static str,
}

/// Everything that the recorder saw at the end of a run.
#[derive(Debug)]
pub struct Seen {
    /// The run.
    pub run_id: String,
    /// How its root ended.
    pub outcome: Outcome,
    /// Windows of tool calls.
    pub calls: Vec<CallWindow>,
    /// The session's cgroup.
    pub session_cgroup_id: u64,
    /// Programs that the driver started in it.
    pub programs_started: u32,
    /// Tasks in it before arming.
    pub tasks_before: usize,
    /// Whether a task was left in it at the end; `None` when that could not be read.
    pub populated: Option<bool>,
    /// A task was seen entering it.
    pub level_known: bool,
    /// Capabilities that this kernel lacks.
    pub missing: Vec<Missing>,
    /// Capabilities in all.
    pub hooks: usize,
    /// Times that the kernel skipped each program and its spare, if it has one; `None` when it would not say.
    pub unseen: Vec<(String, Option<u64>)>,
    /// Begin canary: process id and the records it must have left.
    pub begin: Option<(u32, Vec<String>)>,
    /// End canary, or why it did not run.
    pub end: Result<(u32, Vec<String>), String>,
    /// The kernel's own counters.
    pub counters: Counters,
    /// Records that the consumer took.
    pub read: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Ring position of the consumer.
    pub consumer: u64,
    /// Ring position of the kernel.
    pub producer: u64,
    /// Records kept.
    pub kept: u64,
    /// Records not kept because the budget was used up.
    pub over_budget: u64,
    /// Why keeping stopped.
    pub spool_failure: Option<String>,
    /// Kernel, object, programs.
    pub environment: BTreeMap<String, String>,
}

/// Collects invariants; a reason for each that does not hold.
#[derive(Default)]
struct Proof {
    invariants: Vec<Invariant>,
    reasons: Vec<String>,
}

impl Proof {
    /// `reason` is the stable name that is given when it does not hold.
    fn check(&mut self, name: &str, reason: &str, witness: &str, balance: Balance) {
        if !balance.held {
            self.reasons.push(format!("{reason}: expected {}, seen {}", balance.expected, balance.seen));
        }
        self.invariants.push(Invariant {
            name: name.into(),
            held: balance.held,
            expected: balance.expected,
            seen: balance.seen,
            witness: witness.into(),
        });
    }

    fn equal(&mut self, name: &str, reason: &str, witness: &str, expected: u64, seen: u64) {
        let balance =
            Balance { held: expected == seen, expected: expected.to_string(), seen: seen.to_string() };
        self.check(name, reason, witness, balance);
    }
}

/// The summary of a run, with its proof.
#[must_use]
pub fn summary(seen: Seen, ledger: &Ledger) -> Summary {
    let mut proof = Proof::default();
    session(&mut proof, &seen, ledger);
    canaries(&mut proof, &seen, ledger);
    transport(&mut proof, &seen, ledger);
    tasks(&mut proof, &seen, ledger);
    kernel(&mut proof, &seen);
    escapes(&mut proof, ledger);
    tampering(&mut proof, &seen, ledger);
    if seen.outcome.timed_out {
        proof.reasons.push("timed_out: the driver ended the tree at its time limit".into());
    }
    if let Some(limit) = &seen.outcome.exceeded {
        proof.reasons.push(format!("limit_exceeded: {limit}: the tree was ended"));
    }
    if seen.outcome.interrupted {
        proof.reasons.push("interrupted: the driver was told to stop".into());
    }

    let stayed =
        !["task_moved", "task_born_outside"].iter().any(|reason| ledger.findings.contains_key(reason));
    let closed = seen.populated == Some(false) && seen.consumer == seen.producer && ledger.malformed == 0;
    let counters = &seen.counters;
    let hooks = HOOKS.iter().enumerate().map(|(at, name)| {
        ((*name).to_owned(), HookCount { emitted: counters.emitted[at], dropped: counters.dropped[at] })
    });
    Summary {
        run_id: seen.run_id.clone(),
        captured: true,
        outcome: seen.outcome,
        session_cgroup_id: seen.level_known.then_some(seen.session_cgroup_id),
        cgroup_clean: stayed && closed && seen.level_known && seen.tasks_before == 0,
        ringbuf_drops: counters.total_dropped(),
        size_mismatches: ledger.malformed,
        hooks: without_canaries(hooks.collect(), ledger),
        network: NetworkCounts {
            sendto_no_peer: counters.sendto_no_peer,
            sendmsg_no_peer: counters.sendmsg_no_peer,
            sendto_non_ip: counters.sendto_non_ip,
            sendmsg_non_ip: counters.sendmsg_non_ip,
        },
        calls: seen.calls,
        proof: CaptureProof {
            schema: "assay.gates.capture_proof.v0".into(),
            run_id: seen.run_id,
            complete: proof.reasons.is_empty(),
            reasons: proof.reasons,
            invariants: proof.invariants,
            blind_spots: catalogue::embedded()
                .blind_spots()
                .into_iter()
                .chain(seen.missing.iter().map(|missing| {
                    format!("this kernel lacks {}: {} are not recorded", missing.capability, missing.without)
                }))
                .collect(),
            catalogue: Some(catalogue::embedded().reference()),
            environment: seen.environment,
            policy_origin: None,
            origins: BTreeMap::new(),
        },
    }
}

/// The hooks that observation health names count what the measured tree did: the canaries' own opens and connects are taken off.
fn without_canaries(mut hooks: BTreeMap<String, HookCount>, ledger: &Ledger) -> BTreeMap<String, HookCount> {
    for line in ledger.canaries.values().flatten() {
        let name = line.split(' ').next().unwrap_or_default();
        if let Some(count) = hooks.get_mut(name).filter(|_| matches!(name, "openat" | "connect" | "sendto")) {
            count.emitted = count.emitted.saturating_sub(1);
        }
    }
    hooks
}

fn session(proof: &mut Proof, seen: &Seen, ledger: &Ledger) {
    proof.equal("cgroup_was_empty", "cgroup_not_fresh", "cgroup.procs", 0, seen.tasks_before as u64);
    let populated = match seen.populated {
        Some(false) => "populated 0",
        Some(true) => "populated 1",
        None => "unreadable",
    };
    let held = seen.populated == Some(false);
    proof.check(
        "tree_is_gone",
        "tree_not_gone",
        "cgroup.events",
        Balance { held, expected: "populated 0".into(), seen: populated.into() },
    );
    let roots = ledger.roots.len() as u64 + ledger.joined;
    proof.equal("one_root", "root_not_seen", "kernel records", seen.programs_started.into(), roots);
    let attached = seen.hooks - seen.missing.len();
    proof.check(
        "hooks_attached",
        "hook_missing",
        "loader",
        Balance {
            held: seen.missing.is_empty(),
            expected: format!("{} programs attached", seen.hooks),
            seen: match seen.missing.as_slice() {
                [] => format!("{attached} programs attached"),
                missing => {
                    let names: Vec<&str> = missing.iter().map(|missing| missing.capability).collect();
                    format!("{attached} attached, missing {}", names.join(", "))
                }
            },
        },
    );
}

fn canaries(proof: &mut Proof, seen: &Seen, ledger: &Ledger) {
    let mut one = |name: &str, canary: Result<&(u32, Vec<String>), &str>| {
        let balance = match canary {
            Err(why) => Balance { held: false, expected: "a canary".into(), seen: why.to_owned() },
            Ok((pid, expected)) => script(expected, ledger.canaries.get(pid).map_or(&[], Vec::as_slice)),
        };
        proof.check(name, &format!("{name}_broken"), "kernel records of our own process", balance);
    };
    one("begin_canary", seen.begin.as_ref().ok_or("it never ran"));
    one("end_canary", seen.end.as_ref().map_err(String::as_str));
}

/// A canary's records are its script, exactly and in order.
fn script(expected: &[String], found: &[String]) -> Balance {
    let first = expected
        .iter()
        .zip(found)
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| expected.len().min(found.len()));
    let held = expected == found;
    let at = |lines: &[String]| lines.get(first).map_or("nothing", String::as_str).to_owned();
    if held {
        let count = format!("{} records in order", expected.len());
        return Balance { held, expected: count.clone(), seen: count };
    }
    let place = format!("record {} of {}", first + 1, expected.len());
    Balance {
        held,
        expected: format!("{place}: {}", at(expected)),
        seen: format!("{} ({} records)", at(found), found.len()),
    }
}

fn transport(proof: &mut Proof, seen: &Seen, ledger: &Ledger) {
    let counters = &seen.counters;
    proof.equal(
        "nothing_dropped",
        "records_dropped",
        "kernel counter of refused reservations",
        0,
        counters.total_dropped(),
    );
    proof.equal("ring_drained", "ring_not_drained", "ring positions", seen.producer, seen.consumer);
    proof.equal(
        "emitted_equals_read",
        "records_lost",
        "kernel counter, consumer",
        counters.total_emitted(),
        seen.read,
    );
    proof.equal("bytes_equal", "records_lost", "kernel counter, consumer", counters.bytes, seen.read_bytes);
    let held = seen.kept == seen.read && seen.spool_failure.is_none();
    let reason = if seen.over_budget > 0 { "budget_exceeded" } else { "records_not_kept" };
    let why = seen.spool_failure.as_ref().map_or(String::new(), |why| format!(" ({why})"));
    proof.check(
        "read_equals_kept",
        reason,
        "consumer, spool",
        Balance {
            held,
            expected: format!("{} records kept", seen.read),
            seen: format!("{} records kept{why}", seen.kept),
        },
    );
    proof.equal("kept_equals_reread", "records_not_kept", "spool", seen.kept, ledger.records);
    proof.equal("records_well_formed", "record_malformed", "spool", 0, ledger.malformed);
}

fn tasks(proof: &mut Proof, seen: &Seen, ledger: &Ledger) {
    let counters = &seen.counters;
    proof.check(
        "task_sequences",
        "task_sequence_broken",
        "kernel records, numbered per task",
        ledger.sequences(),
    );
    proof.check("task_automaton", "task_automaton_broken", "kernel state per task", ledger.automaton());
    proof.check("born_equals_died", "task_lost", "kernel records of births and deaths", ledger.lives());
    let (enters, exits) = ledger.syscalls();
    proof.equal(
        "syscalls_begun",
        "syscalls_uncounted",
        "kernel counter, tasks' final counts",
        counters.enters,
        enters,
    );
    proof.equal(
        "syscalls_ended",
        "syscalls_uncounted",
        "kernel counter, tasks' final counts",
        counters.exits,
        exits,
    );
    let (births, deaths) = ledger.births_and_deaths();
    proof.equal("births_recorded", "task_lost", "kernel counter, records", counters.births, births);
    proof.equal("deaths_recorded", "task_lost", "kernel counter, records", counters.deaths, deaths);
    proof.equal(
        "task_storage_for_every_record",
        "task_storage_missing",
        "kernel records",
        0,
        ledger.without_storage,
    );
}

fn kernel(proof: &mut Proof, seen: &Seen) {
    let counters = &seen.counters;
    proof.equal("task_storage_had", "task_storage_missing", "kernel counter", 0, counters.storage_fail);
    proof.equal("scratch_had", "scratch_missing", "kernel counter", 0, counters.map_fail);
    let missed: Vec<String> = seen
        .unseen
        .iter()
        .filter(|(_, misses)| *misses != Some(0))
        .map(|(program, misses)| {
            format!("{program} {}", misses.map_or("unknown".into(), |misses| misses.to_string()))
        })
        .collect();
    proof.check(
        "no_recursion_misses",
        "program_skipped",
        "BPF_OBJ_GET_INFO_BY_FD",
        Balance {
            held: missed.is_empty(),
            expected: "0 of every program".into(),
            seen: if missed.is_empty() { "0 of every program".into() } else { missed.join(", ") },
        },
    );
    for fact in ["kernel_release", "kernel_btf", "object_sha256"] {
        let found = seen.environment.get(fact);
        let balance = Balance {
            held: found.is_some(),
            expected: "known".into(),
            seen: found.cloned().unwrap_or_else(|| "unknown".into()),
        };
        proof.check(fact, "environment_unknown", "driver", balance);
    }
}

/// Where tool servers were started, what one process did to another can make an effect of either: no call's effects are
/// believed then.
fn tampering(proof: &mut Proof, seen: &Seen, ledger: &Ledger) {
    let found = &ledger.tampering;
    let none = "no process traced or changed another".to_owned();
    let balance = if seen.programs_started < 2 {
        let nobody = "no tool server beside whom it would matter".to_owned();
        Balance { held: true, expected: nobody.clone(), seen: nobody }
    } else if found.count == 0 {
        Balance { held: true, expected: none.clone(), seen: none }
    } else {
        let seen = format!("{} times; {}", found.count, found.witnesses.join("; "));
        Balance { held: false, expected: none, seen }
    };
    proof.check("no_process_tampered", "process_tampered", "kernel records", balance);
}

fn escapes(proof: &mut Proof, ledger: &Ledger) {
    for (reason, finding) in &ledger.findings {
        proof.reasons.push(format!("{reason}: {} times; {}", finding.count, finding.witnesses.join("; ")));
    }
    let count: u64 = ledger.findings.values().map(|finding| finding.count).sum();
    let seen = if count == 0 {
        "none".into()
    } else {
        ledger.findings.keys().copied().collect::<Vec<_>>().join(", ")
    };
    proof.invariants.push(Invariant {
        name: "nothing_escaped".into(),
        held: count == 0,
        expected: "none".into(),
        seen,
        witness: "kernel records".into(),
    });
}
