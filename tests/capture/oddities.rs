//! What programs do to escape, and what breaks a recorder: each ends in an incomplete recording with the right reason, or in a typed record.

use crate::session::{Session, complete, effects, lines, outcome, program, reasons, record, record_with};
use crate::support;
use assay_gates::capture::{ArmOptions, Budget, Effect, Garbled, Operation, PathState, Recording, Sabotage};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const ODD: &str = include_str!("programs/odd.c");

fn odd(what: &[&str], prepare: impl FnOnce(&Session, &mut Command)) -> (Recording, Vec<String>, Session) {
    let session = Session::new();
    let image = program(&session, ODD, &["-static", "-pthread"]);
    let mut command = Command::new(image);
    command.args(what);
    prepare(&session, &mut command);
    let (recording, said) = record(&session, &mut command);
    (recording, said, session)
}

fn nothing(_: &Session, _: &mut Command) {}

fn after_exec(recording: &Recording) -> Vec<Effect> {
    effects(recording).into_iter().skip_while(|effect| effect.operation != Operation::Exec).skip(1).collect()
}

#[test]
fn a_call_that_seccomp_denies_is_a_record_of_its_own_kind() {
    if !support::need_root() {
        return;
    }
    let (recording, said, _session) = odd(&["seccomp"], nothing);
    complete(&recording);
    let found = after_exec(&recording);
    assert_eq!(lines(&found), said);
    assert_eq!(found[0].operation, Operation::ExitWithoutEnter);
}

#[test]
fn a_call_by_the_32_bit_abi_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let (recording, _, session) = odd(&["foreign"], nothing);
    let worked = session.folder().join("by-foreign").exists();
    // A kernel without that ABI kills the program, or does not execute it; then there was no such call.
    if !worked {
        let outcome = &recording.summary.outcome;
        assert!(outcome.signal.is_some() || outcome.exit_code == Some(1), "{outcome:?}");
        complete(&recording);
        return;
    }
    assert_eq!(reasons(&recording), ["foreign_abi_syscall"]);
    let marks: Vec<Vec<String>> = after_exec(&recording)
        .into_iter()
        .filter(|effect| effect.operation == Operation::ForeignAbi)
        .map(|effect| effect.marks)
        .collect();
    let (mark, calls) = if cfg!(target_arch = "x86_64") { ("ia32", 1) } else { ("aarch32", 2) };
    assert_eq!(marks, vec![[mark]; calls]);
}

#[test]
fn a_core_dump_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let (recording, _, _session) = odd(&["core"], nothing);
    assert_eq!(recording.summary.outcome.signal, Some(libc::SIGABRT));
    let end = effects(&recording).pop().unwrap();
    if end.return_value == Some(i64::from(libc::SIGABRT)) {
        return; // this machine's core pattern lets nobody dump
    }
    assert_eq!(reasons(&recording), ["core_dumped"]);
}

#[test]
fn a_file_on_a_detached_mount_is_not_given_a_path_of_the_tree() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, ODD, &["-static", "-pthread"]);
    std::fs::create_dir(session.work.path().join("mounted")).unwrap();
    let mut command = Command::new(image);
    command.arg("detached");
    // SAFETY: system calls only.
    unsafe {
        command.pre_exec(|| {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)?;
            mount(Some("none"), "mounted", Some("tmpfs"), MsFlags::empty(), None::<&str>).map_err(Into::into)
        });
    }
    let (recording, said) = record(&session, &mut command);
    assert_eq!(reasons(&recording), ["path_detached"]);
    let open =
        after_exec(&recording).into_iter().rfind(|effect| effect.operation == Operation::Open).unwrap();
    assert_eq!(vec![format!("openat = {}", open.return_value.unwrap())], said);
    assert_eq!(open.path.unwrap().state, PathState::Detached);
}

#[test]
fn a_thread_that_executes_keeps_its_numbers_and_its_process() {
    if !support::need_root() {
        return;
    }
    let (recording, _, session) = odd(&["exec-from-thread"], nothing);
    let found = complete(&recording);
    let again = session.folder().join("again");
    let open = found
        .iter()
        .find(|effect| effect.path.as_ref().is_some_and(|path| path.value == again.to_str().unwrap()))
        .unwrap();
    assert_eq!((open.process, open.pid), (0, open.tid));
    assert_eq!(found.iter().filter(|effect| effect.operation == Operation::Exit).count(), 2);
}

#[test]
fn a_path_that_changes_under_a_call_is_marked() {
    if !support::need_root() {
        return;
    }
    let (recording, said, session) = odd(&["toctou"], nothing);
    let fifo = session.folder().join("fifo");
    let opens: Vec<Effect> = after_exec(&recording)
        .into_iter()
        .filter(|effect| {
            effect.operation == Operation::Open
                && effect.path.as_ref().unwrap().value == fifo.to_str().unwrap()
        })
        .collect();
    assert_eq!(opens.len(), 2);
    let fooled =
        opens.iter().find(|open| open.path.as_ref().unwrap().requested.as_deref() == Some("other")).unwrap();
    assert_eq!(fooled.marks, ["toctou_suspect"]);
    assert_eq!(vec![format!("openat = {}", fooled.return_value.unwrap())], said);
}

#[test]
fn paths_in_a_chroot_are_those_of_the_mount_namespace() {
    if !support::need_root() {
        return;
    }
    let (recording, said, _session) = odd(&["chroot"], nothing);
    let found: Vec<String> =
        lines(&after_exec(&recording)).into_iter().filter(|line| line.contains("/f")).collect();
    complete(&recording);
    assert_eq!(found, said);
}

#[test]
fn a_child_that_is_born_into_another_cgroup_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let elsewhere = Session::new();
    let (recording, said, session) = odd(&["out", elsewhere.cgroup.to_str().unwrap()], nothing);
    assert_eq!(said, ["clone3 = 1"]);
    assert!(session.folder().join("unseen").exists());
    assert_eq!(reasons(&recording), ["task_lost", "task_born_outside"]);
    assert!(!recording.summary.cgroup_clean);
}

#[test]
fn a_task_that_somebody_moves_out_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let (recording, session) = moved(|session, pid| {
        let elsewhere = session.cgroup.parent().unwrap().join("cgroup.procs");
        std::fs::write(elsewhere, pid.to_string()).unwrap();
    });
    assert!(session.folder().join("after").exists());
    let reasons = reasons(&recording);
    assert!(reasons.contains(&"task_moved".to_owned()), "{reasons:?}");
    assert!(!recording.summary.cgroup_clean);
}

#[test]
fn a_task_that_is_moved_within_the_session_stays_recorded_and_the_move_is_told() {
    if !support::need_root() {
        return;
    }
    let (recording, session) = moved(|session, pid| {
        let below = session.cgroup.join("below");
        std::fs::create_dir(&below).unwrap();
        std::fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    });
    assert_eq!(
        reasons(&recording),
        ["task_moved"],
        "nobody moves a task once it is measured, not even the driver"
    );
    let found: Vec<Effect> = recording.effects().unwrap().map(Result::unwrap).collect();
    let after = session.folder().join("after");
    let effect = found
        .iter()
        .find(|effect| effect.path.as_ref().is_some_and(|path| path.value == after.to_str().unwrap()))
        .unwrap();
    assert_ne!(Some(effect.cgroup_id), recording.summary.session_cgroup_id);
    let moves: Vec<Option<String>> = found
        .iter()
        .filter(|effect| effect.operation == Operation::CgroupAttach)
        .map(|effect| effect.detail.clone())
        .collect();
    assert_eq!(moves.last().unwrap().as_deref(), Some("by=driver"));
}

/// A program that waits, is moved by `act`, and then opens a file.
fn moved(act: impl FnOnce(&Session, u32)) -> (Recording, Session) {
    let session = Session::new();
    let image = program(&session, ODD, &["-static", "-pthread"]);
    let recorder = session.arm(&session.options());
    let mut command = Command::new(image);
    command.arg("wait").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = session.enter(&mut command).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    act(&session, child.id());
    drop(child.stdin.take());
    let status = child.wait().unwrap();
    session.wait_empty();
    (recorder.finish(outcome(status), Vec::new()).unwrap(), session)
}

#[test]
fn reaching_a_process_outside_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let mut outside = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let (recording, said, _session) = odd(&["trace", &outside.id().to_string()], nothing);
    outside.kill().unwrap();
    outside.wait().unwrap();
    assert_eq!(said, ["ptrace = 0"]);
    assert_eq!(reasons(&recording), ["process_outside_reached"]);
}

#[test]
fn a_bpf_call_that_succeeds_makes_the_recording_incomplete() {
    if !support::need_root() {
        return;
    }
    let (recording, said, _session) = odd(&["bpf"], nothing);
    assert_eq!(said, ["bpf = 1"]);
    assert_eq!(reasons(&recording), ["bpf_call_succeeded"]);
}

/// A shell that forks and opens a lot, under a recorder that is broken on purpose.
/// Of the programs in `detach`, the one that is at work is taken away.
fn broken(options: impl FnOnce(&mut ArmOptions), detach: &[&str]) -> Recording {
    let session = Session::new();
    let mut chosen = session.options();
    options(&mut chosen);
    let mut recorder = session.arm(&chosen);
    let gone = detach.iter().any(|program| recorder.sabotage_detach(program).is_ok());
    assert_eq!(gone, !detach.is_empty(), "{detach:?}");
    let script = "i=0; while [ $i -lt 60 ]; do (: < /etc/passwd); i=$((i+1)); done";
    record_with(&session, recorder, Command::new("/bin/sh").args(["-c", script])).0
}

#[test]
fn a_ring_that_overflows_is_counted_to_the_last_record() {
    if !support::need_root() {
        return;
    }
    let recording = broken(
        |options| {
            options.ring_bytes = 16384; // room for the canary, not for the run
            options.sabotage = Sabotage { stalled_consumer: true, ..Sabotage::default() };
        },
        &[],
    );
    let reasons = reasons(&recording);
    assert_eq!(reasons.first().map(String::as_str), Some("end_canary_broken"));
    assert!(reasons.contains(&"records_dropped".to_owned()), "{reasons:?}");
    let kept = recording.effects().unwrap().count() as u64;
    assert!(
        recording.summary.ringbuf_drops > 60 && kept < 60 * 3,
        "{} dropped, {kept} kept",
        recording.summary.ringbuf_drops
    );
    // Each task: birth, one open, end. What was kept and what was dropped is everything that happened.
    let hooks = &recording.summary.hooks;
    let opens = hooks["openat"].emitted + hooks["openat"].dropped;
    assert!((63..=68).contains(&opens), "{opens} opens of 60 by the script, two of the loader, canaries'");
    // The kernel's own workers take the canaries' requests.
    let births = hooks["birth"].emitted + hooks["birth"].dropped;
    assert!((60 + 2..=60 + 2 + 8).contains(&births), "{births}");
}

#[test]
fn each_program_that_is_gone_is_noticed() {
    if !support::need_root() {
        return;
    }
    let mut by_capability: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (capability, program, _) in assay_gates::capture::candidates() {
        by_capability.entry(capability).or_default().push(program);
    }
    for (capability, programs) in by_capability {
        let reasons = reasons(&broken(|_| {}, &programs));
        assert!(reasons.contains(&"end_canary_broken".to_owned()), "{capability}: {reasons:?}");
    }
}

#[test]
fn whatever_a_kernel_lacks_is_named_by_its_capability() {
    if !support::need_root() {
        return;
    }
    let all = assay_gates::capture::candidates();
    let whole = Session::new().record(&mut Command::new("/bin/true")).summary.proof;
    for (capability, program, tracepoint) in all {
        let session = Session::new();
        let mut options = session.options();
        options.sabotage.hidden = Some((program, tracepoint));
        let mut recorder = match assay_gates::capture::Recorder::arm(&options) {
            Ok(recorder) => recorder,
            Err(error) => {
                // Without this one there is nothing to measure with.
                assert_eq!((error.code().name(), error.exit().code()), ("AG302", 40));
                assert!(error.to_string().contains(capability), "{error}");
                assert!(error.to_string().contains(tracepoint), "{error}");
                assert!(capability.starts_with("task_") || capability.starts_with("syscall_"), "{error}");
                continue;
            }
        };
        recorder.begin().unwrap();
        let proof = session.measure(recorder, &mut Command::new("/bin/true")).summary.proof;
        let used = whole
            .environment
            .get(&format!("hook.{program}"))
            .is_some_and(|hook| *hook == format!("tp_btf/{tracepoint}"));
        if !used && !tracepoint.is_empty() {
            assert!(proof.complete, "{program} on {tracepoint} is for other kernels: {:#?}", proof.reasons);
            continue;
        }
        let reason = proof.reasons.iter().find(|reason| reason.starts_with("hook_missing"));
        assert!(reason.is_some_and(|reason| reason.contains(capability)), "{:#?}", proof.reasons);
        assert!(proof.blind_spots.iter().any(|spot| spot.contains(capability)), "{:#?}", proof.blind_spots);
        let hook =
            &proof.environment[&format!("hook.{}", proof.environment[&format!("capability.{capability}")])];
        assert!(hook.starts_with("missing:") && hook.contains(tracepoint), "{hook}");
    }
}

#[test]
fn whatever_the_programs_read_wrongly_breaks_the_canary() {
    use assay_gates::capture::raw::{Header, kind};
    use std::mem::offset_of;
    if !support::need_root() {
        return;
    }
    let text = size_of::<Header>() + 4;
    let (ret, nr) = (offset_of!(Header, ret), offset_of!(Header, nr));
    let (a, b, c) = (offset_of!(Header, a), offset_of!(Header, b), offset_of!(Header, c));
    let pid = offset_of!(Header, pid);
    let address = |what: i32, family: u64| Some((what, family));
    // What each capability reads: kind of record, which of them, and a byte of the value.
    let read = [
        ("task_births", kind::BIRTH, None, &[pid][..]),
        ("task_moves", kind::ATTACH, None, &[pid]),
        ("task_ends", kind::EXIT, None, &[pid, ret]),
        ("program_images", kind::EXEC, None, &[pid, text + 8]),
        ("syscall_results", kind::SYSCALL, None, &[ret, nr]),
        ("syscall_arguments", kind::SYSCALL, None, &[a, b, text + 20]),
        ("io_uring_requests", kind::URING_SUBMIT, None, &[nr, c, text + 20]),
        ("io_uring_results", kind::URING_COMPLETE, None, &[ret]),
        ("connect_addresses_v4", kind::ADDRESS, address(1, 4), &[ret, b]),
        ("bind_addresses_v4", kind::ADDRESS, address(2, 4), &[ret, b]),
        ("send_addresses_v4", kind::ADDRESS, address(3, 4), &[ret, b]),
        ("connect_addresses_v6", kind::ADDRESS, address(1, 6), &[ret, b, c]),
        ("bind_addresses_v6", kind::ADDRESS, address(2, 6), &[ret, b, c]),
        ("send_addresses_v6", kind::ADDRESS, address(3, 6), &[ret, b, c]),
    ];
    let covered: BTreeSet<&str> = read.iter().map(|(capability, ..)| *capability).collect();
    let all: BTreeSet<&str> =
        assay_gates::capture::candidates().iter().map(|(capability, ..)| *capability).collect();
    assert_eq!(covered, all, "each capability's values, and nothing else's");
    for (capability, kind, only, places) in read {
        for at in places {
            let session = Session::new();
            let mut options = session.options();
            options.sabotage.garbled = Some(Garbled { kind, only, at: *at });
            let recorder = session.arm(&options);
            let recording = session.measure(recorder, &mut Command::new("/bin/true"));
            let reasons = reasons(&recording);
            for canary in ["begin_canary_broken", "end_canary_broken"] {
                assert!(reasons.contains(&canary.to_owned()), "{capability}, byte {at}: {reasons:?}");
            }
        }
    }
}

#[test]
fn a_record_lost_in_user_space_is_noticed() {
    if !support::need_root() {
        return;
    }
    let reasons = reasons(&broken(|options| options.sabotage.lose_a_record = true, &[]));
    assert!(reasons.contains(&"records_not_kept".to_owned()), "{reasons:?}");
    assert!(reasons.contains(&"begin_canary_broken".to_owned()), "{reasons:?}");
}

#[test]
fn a_consumer_that_died_leaves_no_recording() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let mut options = session.options();
    options.sabotage.dead_consumer = true;
    let recorder = session.arm(&options);
    session.enter(&mut Command::new("/bin/true")).status().unwrap();
    session.wait_empty();
    let error = recorder.finish(outcome(std::process::ExitStatus::default()), Vec::new()).err().unwrap();
    assert_eq!((error.code().name(), error.exit().code()), ("AG304", 12));
}

#[test]
fn a_budget_that_is_used_up_is_named() {
    if !support::need_root() {
        return;
    }
    let recording = broken(|options| options.budget = Budget { records: 50, bytes: 1 << 20 }, &[]);
    assert!(reasons(&recording).contains(&"budget_exceeded".to_owned()));
    assert_eq!(recording.summary.ringbuf_drops, 0);
}

#[test]
fn a_cgroup_that_is_in_use_is_not_fresh() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let mut early = Command::new("/bin/cat");
    let mut early = session.enter(early.stdin(Stdio::piped()).stdout(Stdio::null())).spawn().unwrap();
    let recorder = session.arm(&session.options());
    let mut input = early.stdin.take().unwrap();
    input.write_all(b"x").unwrap();
    drop(input);
    early.wait().unwrap();
    let recording = session.measure(recorder, &mut Command::new("/bin/true"));
    let reasons = reasons(&recording);
    assert_eq!(reasons.first().map(String::as_str), Some("cgroup_not_fresh"));
    assert!(reasons.contains(&"task_sequence_broken".to_owned()), "a task without a birth: {reasons:?}");
    assert!(!recording.summary.cgroup_clean);
}

#[test]
fn a_tree_that_is_still_there_is_never_called_complete() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let recorder = session.arm(&session.options());
    let mut command = Command::new("/bin/cat");
    let mut child = session.enter(command.stdin(Stdio::piped()).stdout(Stdio::null())).spawn().unwrap();
    let recording = recorder.finish(outcome(std::process::ExitStatus::default()), Vec::new()).unwrap();
    let reasons = reasons(&recording);
    assert_eq!(reasons.first().map(String::as_str), Some("tree_not_gone"));
    assert!(reasons.contains(&"task_lost".to_owned()), "{reasons:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn a_folder_that_is_no_cgroup_is_refused() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = ArmOptions::new("run_test", folder.path(), folder.path());
    let error = assay_gates::capture::Recorder::arm(&options).err().unwrap();
    assert_eq!((error.code().name(), error.exit().code()), ("AG303", 40));
}
