//! Exact effect lists of small programs, each compared with what the program itself says that it did.
//!
//! The programs are linked statically, so that every one of their calls is their own.

use crate::session::{Session, complete, lines, program, record};
use crate::support;
use assay_gates::capture::{Effect, Operation, PathState};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const STATIC: &[&str] = &["-static"];

/// Effects after the program's own exec, in order; the exec itself is checked.
fn after_exec(effects: &[Effect], image: &Path) -> Vec<Effect> {
    let at = effects.iter().position(|effect| effect.operation == Operation::Exec).unwrap();
    assert_eq!(effects[at].path.as_ref().unwrap().value, image.canonicalize().unwrap().to_str().unwrap());
    effects[at + 1..].to_vec()
}

fn says_what_it_does(source: &str, flags: &[&str]) -> (Vec<Effect>, Session) {
    let session = Session::new();
    let image = program(&session, source, flags);
    let (recording, said) = record(&session, &mut Command::new(&image));
    assert_eq!(recording.summary.outcome.exit_code, Some(0));
    let effects = after_exec(&complete(&recording), &image);
    let rings = |line: &String| !line.starts_with("io_uring_setup");
    let found: Vec<String> = lines(&effects).into_iter().filter(rings).collect();
    assert_eq!(found, said);
    (effects, session)
}

#[test]
fn every_file_call_is_recorded_with_its_path_and_result() {
    if !support::need_root() {
        return;
    }
    let (effects, _session) = says_what_it_does(include_str!("programs/files.c"), STATIC);
    let named = |syscall: &str, nth: usize| {
        effects.iter().filter(|effect| effect.syscall == syscall).nth(nth).unwrap().clone()
    };
    let created = named("openat", 1);
    assert_eq!((created.flags, created.mode, created.resolve), (Some(0o301), Some(0o640), None));
    assert_eq!(created.path.unwrap().requested.as_deref(), Some("a"));
    let strict = named("openat2", 0);
    assert_eq!((strict.flags, strict.mode, strict.resolve), (Some(0), Some(0), Some(4)));
    assert_eq!(named("openat", 2).flags, Some(0o1101));
    if cfg!(target_arch = "x86_64") {
        let legacy = named("open", 0);
        assert_eq!((legacy.flags, legacy.mode, legacy.resolve), (Some(0o301), Some(0o640), None));
        assert_eq!(named("creat", 0).flags, Some(0o1101));
    }
    assert_eq!(named("ftruncate", 0).detail.as_deref(), Some("length=7"));
    assert_eq!(named("fchown", 0).detail.as_deref(), Some("uid=-1 gid=0"));
    assert_eq!(named("fchmod", 0).mode, Some(0o600));
    assert_eq!(named("renameat2", 0).flags, Some(1));
    assert_eq!(named("unlinkat", 0).operation, Operation::Unlink);
    assert_eq!(named("unlinkat", 1).operation, Operation::Rmdir);
    let nowhere = effects.iter().find(|effect| effect.return_value == Some(-9)).unwrap();
    assert_eq!(nowhere.path.as_ref().unwrap().requested.as_deref(), Some("none"));
}

#[test]
fn paths_keep_every_byte_and_say_when_they_are_not_plain() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, include_str!("programs/paths.c"), STATIC);
    let work = std::fs::File::open(session.work.path()).unwrap();
    let mut command = Command::new(&image);
    // The program finds its way back from the depths through descriptor 9.
    let fd = work.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(
            move || if libc::dup2(fd, 9) == 9 { Ok(()) } else { Err(std::io::Error::last_os_error()) },
        );
    }
    let (recording, said) = record(&session, &mut command);
    assert_eq!(recording.summary.outcome.exit_code, Some(0), "{said:?}");
    let effects: Vec<Effect> = recording.effects().unwrap().map(Result::unwrap).collect();
    let opens: Vec<Effect> = after_exec(&effects, &image)
        .into_iter()
        .filter(|effect| effect.operation == Operation::Open)
        .collect();
    let results: Vec<i64> = opens.iter().map(|open| open.return_value.unwrap()).collect();
    let said: Vec<i64> = said.iter().map(|line| line.split(" = ").nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(results, said);

    let work = session.folder();
    let work = work.to_str().unwrap();
    let path = |at: usize| opens[at].path.clone().unwrap();
    let deep = format!("{work}{}/deep", format!("/{}", "n".repeat(255)).repeat(15));
    assert_eq!((path(0).value, path(0).state), (deep, PathState::Resolved));
    assert_eq!((path(1).value.as_str(), path(1).requested.unwrap().len()), ("/", 4095));
    assert_eq!((path(2).state, results[2]), (PathState::Truncated, -i64::from(libc::ENAMETOOLONG)));
    assert_eq!(path(3).state, PathState::Truncated);
    assert!(path(3).value.ends_with("/x") && path(3).value.len() > 3800);
    assert_eq!(path(4).value, format!("{work}/\\xff\\xfe\\\\n\n\u{e9}"));
    assert_eq!((path(5).value, path(5).state), (format!("{work}/gone"), PathState::Resolved));
    assert_eq!((path(6).value, path(6).state), (format!("{work}/gone"), PathState::Deleted));
    assert_eq!(path(7).state, PathState::Deleted);
    assert_eq!((path(8).value.as_str(), path(8).state), ("tmpfs:memfd:hidden", PathState::Anonymous));
    assert_eq!((path(9).value.as_str(), path(9).state), ("pipefs:", PathState::Anonymous));
    assert_eq!((path(10).value.as_str(), path(10).state), ("/", PathState::Resolved));
    // A file that was opened where no path can say: named, so that nobody takes the evidence for whole.
    assert_eq!(crate::session::reasons(&recording), ["path_truncated"]);
}

#[test]
fn threads_children_images_and_scripts_are_told_apart() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, include_str!("programs/tasks.c"), &["-static", "-pthread"]);
    let script = session.work.path().join("script");
    std::fs::write(&script, format!("#!{} by-script\n", image.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (recording, _) = record(&session, &mut Command::new(&image));
    let effects = complete(&recording);
    let work = session.folder();
    let opened = |name: &str| {
        let value = work.join(name).to_str().unwrap().to_owned();
        effects.iter().find(|effect| effect.path.as_ref().is_some_and(|path| path.value == value)).unwrap()
    };
    assert_eq!((opened("by-thread").process, opened("by-thread").pid != opened("by-thread").tid), (0, true));
    let ordinals = ["by-child", "by-grandchild", "by-image", "by-script"].map(|name| opened(name).process);
    assert_eq!(ordinals, [1, 2, 3, 4]);
    let births: Vec<&str> = effects
        .iter()
        .filter(|effect| effect.operation == Operation::Fork)
        .map(|effect| effect.detail.as_deref().unwrap())
        .collect();
    assert_eq!(births, ["thread of 0", "process of 0", "process of 1", "process of 0", "process of 0"]);
    let ends: Vec<(u32, i64)> = effects
        .iter()
        .filter(|effect| effect.operation == Operation::Exit)
        .map(|effect| (effect.process, effect.return_value.unwrap()))
        .collect();
    assert_eq!(ends, [(0, 0), (2, 7 << 8), (1, 9), (3, 3 << 8), (4, 3 << 8), (0, 0)]);
    let executed: Vec<&Effect> =
        effects.iter().filter(|effect| effect.operation == Operation::Exec).collect();
    let failed = executed[1];
    assert_eq!((failed.process, failed.return_value), (3, Some(-2)));
    assert_eq!(failed.path.as_ref().unwrap().value, work.join("none").to_str().unwrap());
    let by_script = executed.last().unwrap();
    assert_eq!(by_script.path.as_ref().unwrap().value, image.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(by_script.target.as_ref().unwrap().value, work.join("script").to_str().unwrap());
    assert_eq!(by_script.marks, ["script"]);
}

#[test]
fn peers_are_recorded_and_those_without_a_name_are_counted() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, include_str!("programs/network.c"), STATIC);
    let (recording, said) = record(&session, &mut Command::new(&image));
    assert_eq!(recording.summary.outcome.exit_code, Some(0), "{said:?}");
    let found = lines(&after_exec(&complete(&recording), &image));
    assert_eq!(found, said);
    let summary = &recording.summary;
    let emitted = |hook: &str| summary.hooks[hook].emitted;
    assert_eq!(
        (emitted("connect"), emitted("sendto"), emitted("sendmsg"), emitted("other_family")),
        (4, 2, 3, 2)
    );
    assert_eq!((summary.network.sendto_no_peer, summary.network.sendto_non_ip), (1, 0));
}

#[test]
fn io_uring_requests_are_recorded_with_path_and_result() {
    if !support::need_root() {
        return;
    }
    says_what_it_does(include_str!("programs/uring.c"), STATIC);
}

#[test]
fn io_uring_requests_that_a_kernel_thread_takes_are_recorded_too() {
    if !support::need_root() {
        return;
    }
    says_what_it_does(include_str!("programs/uring.c"), &["-static", "-DSQPOLL"]);
}

#[test]
fn a_bind_mount_is_named_by_where_it_is_mounted() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let work = session.folder();
    for folder in ["real", "mounted"] {
        std::fs::create_dir(work.join(folder)).unwrap();
    }
    let script = "mount --bind real mounted; echo x > mounted/file; umount mounted; echo y > real/file";
    // The namespace must not hand the mount back.
    let (recording, _) = record(
        &session,
        Command::new("/usr/bin/unshare").args(["-m", "--propagation", "private", "/bin/sh", "-c", script]),
    );
    let effects = complete(&recording);
    let opened: Vec<String> = effects
        .iter()
        .filter_map(|effect| {
            effect.path.as_ref().map(|path| path.value.clone()).filter(|path| path.ends_with("/file"))
        })
        .collect();
    assert_eq!(
        opened,
        ["mounted/file", "real/file"].map(|path| work.join(path).to_str().unwrap().to_owned())
    );
    let mounts: Vec<&str> = effects
        .iter()
        .filter(|effect| matches!(effect.operation, Operation::Mount | Operation::Namespace))
        .map(|effect| effect.syscall.as_str())
        .collect();
    assert!(mounts.contains(&"unshare") && mounts.contains(&"umount2"), "{mounts:?}");
}
