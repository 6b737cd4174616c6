//! The capture on the real kernel: what small programs do, and what the recorder says they did.

mod btf;
mod effects;
mod everything;
mod layout;
mod load;
mod numbers;
mod oddities;
mod reuse;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod witness;

use session::{Session, complete, lines};
use std::process::Command;

#[test]
fn programs_compile_ahead() {
    let folder = tempfile::tempdir().unwrap();
    for (source, flags) in [
        (include_str!("programs/files.c"), &["-static"][..]),
        (include_str!("programs/paths.c"), &["-static"]),
        (include_str!("programs/network.c"), &["-static"]),
        (include_str!("programs/uring.c"), &["-static"]),
        (include_str!("programs/uring.c"), &["-static", "-DSQPOLL"]),
        (include_str!("programs/tasks.c"), &["-static", "-pthread"]),
        (include_str!("programs/odd.c"), &["-static", "-pthread"]),
        (include_str!("programs/beyond.c"), &["-static"]),
        (everything::one_call_of_each().as_str(), &["-static"]),
    ] {
        assert!(session::program_in(folder.path(), source, flags).exists());
    }
    assert!(session::compile(folder.path(), "loop", include_str!("../../benches/loop.c"), &[]).exists());
}

#[test]
fn a_shell_script_is_recorded_whole() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let script = "echo hi > a; mkdir d; mv a d/b; rm d/b; rmdir d; cat nothere";
    let recording = session.record(Command::new("/bin/sh").args(["-c", script]));
    let work = session.folder();
    let work = work.to_str().unwrap();
    let found: Vec<String> =
        lines(&complete(&recording)).into_iter().filter(|line| line.contains(work)).collect();
    let expected = [
        "openat W/a = 3",
        "mkdir W/d (requested) = 0",
        "renameat2 W/a (requested) -> W/d/b = 0",
        "unlinkat W/d/b (requested) = 0",
        "rmdir W/d (requested) = 0",
        "openat W/nothere (requested) = -2",
    ];
    assert_eq!(found, expected.map(|line| line.replace('W', work)));
}
