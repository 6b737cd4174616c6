//! Programs that try to get out, and programs that try to get rid of us.

use super::Trial;
use crate::support::need_root;
use assay_gates::capture::Operation;
use assay_gates::error::Exit;
use std::time::Duration;

#[test]
fn everything_that_leads_out_is_refused_and_recorded() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
attempt('ptrace', lambda: call(101, 16, 1, 0, 0))
attempt('bpf', lambda: call(321, 0, ctypes.create_string_buffer(struct.pack('IIII', 2, 4, 4, 1) + bytes(56)), 72))
attempt('mount', lambda: call(165, b'none', b'/tmp', b'tmpfs', 0, 0))
attempt('umount', lambda: call(166, b'/root', 2))
attempt('module', lambda: call(175, b'x', 1, b''))
attempt('perf', lambda: call(298, ctypes.create_string_buffer(struct.pack('II', 1, 128) + bytes(120)), -1, 0, -1, 0))
attempt('setns', lambda: call(308, os.open('/proc/self/ns/net', os.O_RDONLY), 0))
attempt('chroot', lambda: os.chroot('/tmp'))
attempt('setuid', lambda: os.setuid(0))
attempt('groups', lambda: os.setgroups([0]))
attempt('reboot', lambda: call(169, 0xfee1dead, 672274793, 0, 0))
attempt('time', lambda: call(227, 0, ctypes.create_string_buffer(16)))
attempt('mknod', lambda: os.mknod('disk', 0o600 | 0o060000, os.makedev(8, 0)))
for line in open('/proc/self/mountinfo'):
    if ' - cgroup2 ' in line:
        top = line.split()[4]
attempt('cgroup', lambda: open(top + '/cgroup.procs', 'w'))
attempt('subgroup', lambda: os.mkdir(top + open('/proc/self/cgroup').read().split('0::')[1].strip() + '/own'))
",
    )
    .run();
    for (name, expected) in [
        ("ptrace", "EPERM"),
        ("bpf", "EPERM"),
        ("mount", "EPERM"),
        ("umount", "EPERM"),
        ("setns", "EPERM"),
        ("chroot", "EPERM"),
        ("setuid", "EPERM"),
        ("groups", "EPERM"),
        ("reboot", "EPERM"),
        ("time", "EPERM"),
        ("mknod", "EPERM"),
    ] {
        assert_eq!(seen.said(name), expected, "{name}");
    }
    // A kernel without modules knows no such call.
    for name in ["perf", "cgroup", "subgroup", "module"] {
        assert!(
            ["EPERM", "EACCES", "EROFS", "ENOSYS"].contains(&seen.said(name)),
            "{name}: {}",
            seen.said(name)
        );
    }
    let tried: Vec<&str> = seen
        .effects
        .iter()
        .filter(|effect| effect.operation == Operation::Escape)
        .map(|effect| effect.syscall.as_str())
        .collect();
    for syscall in ["bpf", "mount", "init_module", "setns"] {
        assert!(tried.contains(&syscall), "{syscall} is not in {tried:?}");
    }
    assert_eq!(seen.of(Operation::CgroupAttach, "cgroup_attach_task").count(), 1, "only the launcher's own");
}

#[test]
fn a_user_namespace_of_its_own_uncovers_nothing() {
    if !need_root() {
        return;
    }
    let trial = Trial::new(
        "
attempt('unshare', lambda: call(272, 0x10000000 | 0x00020000))
attempt('umount', lambda: call(166, b'/root', 2))
attempt('remount', lambda: call(165, 0, b'/', 0, 0x1020, 0))
attempt('look', lambda: os.listdir('/root'))
attempt('write', lambda: open('/etc/forged', 'w'))
",
    );
    let seen = trial.run();
    for name in ["umount", "remount", "look", "write"] {
        assert!(
            ["EINVAL", "EPERM", "EACCES", "EROFS"].contains(&seen.said(name)),
            "{name}: {}",
            seen.said(name)
        );
    }
    assert!(seen.of(Operation::Escape, "unshare").count() == 1, "what changes the view of paths is recorded");
}

#[test]
fn a_daemon_that_forks_twice_and_ignores_sigterm_is_ended_and_counted() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        open('daemon', 'w').write(str(os.getpid()))
        while True:
            signal.pause()
    os._exit(0)
while not os.path.exists('daemon'):
    pass
print('pid:', open('daemon').read() or 'none', flush=True)
",
    )
    .run();
    let outcome = &seen.measured.summary.outcome;
    assert_eq!((outcome.exit_code, outcome.stragglers), (Some(0), 1));
    let pid: u32 = seen.said("pid").parse().unwrap_or_default();
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "the daemon lives on");
}

#[test]
fn a_fork_bomb_is_contained_measured_and_ended() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(
        "
refused = 0
while refused < 100:
    try:
        if os.fork() == 0:
            signal.pause()
    except BlockingIOError:
        refused += 1
print('refused:', refused, flush=True)
signal.pause()
",
    );
    trial.wanted.timeout = Some(Duration::from_secs(20));
    let seen = trial.run();
    let outcome = &seen.measured.summary.outcome;
    assert_eq!(outcome.exceeded.as_deref(), Some("processes: more than 512"));
    assert_eq!(seen.measured.exit(), Exit::CaptureIncomplete, "{outcome:?}");
    let born = seen.effects.iter().filter(|effect| effect.operation == Operation::Fork).count();
    assert!((400..=512).contains(&born), "{born} births");
}

#[test]
fn setuid_and_immutable_files_are_refused_or_gone_with_the_run() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
open('shell', 'w').write('#!/bin/sh\\n')
os.chmod('shell', 0o6755)
def immutable():
    import fcntl
    fcntl.ioctl(os.open('shell', os.O_RDONLY), 0x40086602, struct.pack('l', 0x10))
attempt('immutable', immutable)
attempt('outside', lambda: os.chmod('/usr/bin/env', 0o4755))
print('mode:', oct(os.stat('shell').st_mode))
",
    )
    .run();
    assert!(
        ["EPERM", "EOPNOTSUPP", "ENOTTY"].contains(&seen.said("immutable")),
        "{}",
        seen.said("immutable")
    );
    assert!(["EPERM", "EROFS"].contains(&seen.said("outside")));
    assert_eq!(seen.said("mode"), "0o106755");
    let mode = seen
        .effects
        .iter()
        .find(|effect| effect.operation == Operation::Chmod)
        .and_then(|effect| effect.mode);
    assert_eq!(mode, Some(0o6755), "the setuid bit stands in the record");
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
}
