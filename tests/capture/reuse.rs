//! One set of programs serves session after session, and nothing of one is left in the next.

use crate::session::{Session, complete, lines, outcome};
use crate::support;
use assay_gates::capture::{Invariant, Loaded, RING_BYTES, Recorder, Recording};
use std::process::{Command, Stdio};

/// One session with programs of an earlier one, or with new ones.
fn session(loaded: Option<Loaded>, script: &str) -> (Recording, Option<Loaded>, Session) {
    let session = Session::new();
    let mut recorder = Recorder::arm_with(&session.options(), loaded).unwrap();
    recorder.begin().unwrap();
    let status = session.enter(Command::new("/bin/sh").args(["-c", script])).status().unwrap();
    session.wait_empty();
    let (recording, loaded) = recorder.finish_with(outcome(status), Vec::new()).unwrap();
    (recording, loaded, session)
}

/// What the recording says, without what is another's in every session: ids, times, the names of folders and with them the number of bytes;
/// and without counts of tasks and records, since the kernel chooses how many workers the canaries' rings get.
fn said(recording: &Recording, session: &Session) -> (Vec<String>, Vec<Invariant>) {
    let work = session.folder();
    let effects = lines(&complete(recording));
    let effects = effects.into_iter().map(|line| line.replace(work.to_str().unwrap(), "W")).collect();
    let of_a_session = ["bytes_equal", "ring_drained"];
    let of_workers = [
        "emitted_equals_read",
        "read_equals_kept",
        "kept_equals_reread",
        "task_sequences",
        "task_automaton",
        "born_equals_died",
        "births_recorded",
        "deaths_recorded",
    ];
    let invariants = &recording.summary.proof.invariants;
    let kept = invariants.iter().filter(|one| !of_a_session.contains(&one.name.as_str())).cloned();
    let plain = kept.map(|mut one| {
        if of_workers.contains(&one.name.as_str()) {
            (one.expected, one.seen) = (String::new(), String::new());
        }
        one
    });
    (effects, plain.collect())
}

#[test]
fn a_session_says_the_same_whether_its_programs_are_new_or_have_served_others() {
    if !support::need_root() {
        return;
    }
    let script = "echo hi > a; mkdir d; mv a d/b; rm d/b; rmdir d; cat nothere; exit 3";
    let (alone, _, place) = session(None, script);
    let alone = said(&alone, &place);
    let busy = "for i in 1 2 3 4 5 6 7 8 9; do (cat /etc/passwd > x$i) & done; wait";
    let (first, loaded, _) = session(Some(Loaded::start(RING_BYTES)), busy);
    assert!(first.summary.proof.complete, "{:?}", first.summary.proof.reasons);
    let (second, loaded, place) = session(Some(loaded.expect("they can serve again")), script);
    assert_eq!(said(&second, &place), alone);
    assert_eq!(second.summary.outcome.exit_code, Some(3));
    let (third, loaded, place) = session(loaded, script);
    assert_eq!(said(&third, &place), alone);
    assert!(loaded.is_some());
    let tags = |recording: &Recording| {
        let facts = recording.summary.proof.environment.clone();
        facts.into_iter().filter(|(name, _)| name.starts_with("tag.")).collect::<Vec<_>>()
    };
    assert_eq!(tags(&first), tags(&third));
    assert!(tags(&third).len() >= 9);
}

#[test]
fn programs_of_an_incomplete_session_serve_no_other() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let mut recorder = Recorder::arm(&session.options()).unwrap();
    recorder.begin().unwrap();
    let mut command = Command::new("/bin/cat");
    let mut child = session.enter(command.stdin(Stdio::piped()).stdout(Stdio::null())).spawn().unwrap();
    let elsewhere = session.cgroup.parent().unwrap().join("cgroup.procs");
    std::fs::write(elsewhere, child.id().to_string()).unwrap();
    session.wait_empty();
    // It lives on outside: its next call would be taken for one of the next session's tasks.
    let (recording, loaded) = recorder.finish_with(outcome(Default::default()), Vec::new()).unwrap();
    assert!(!recording.summary.proof.complete);
    assert!(loaded.is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
}
