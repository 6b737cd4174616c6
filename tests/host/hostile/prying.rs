//! Programs that look for what is none of their business, or that want to talk to the world.

use super::Trial;
use crate::support::need_root;
use assay_gates::capture::Operation;
use assay_gates::host::session::Place;
use assay_gates::host::user::MeasuredUser;

#[test]
fn evidence_proof_roots_and_state_can_neither_be_seen_nor_written() {
    if !need_root() {
        return;
    }
    let trial = Trial::new("");
    let targets =
        ["out/effects.ndjson", "out/forged", "state/lock", "fixture/hostile.py"].map(|name| trial.path(name));
    let lines: Vec<String> = targets
        .iter()
        .map(|path| path.display().to_string())
        .chain(
            [
                "/run/assay-gates/fixture/hostile.py",
                "/run/assay-gates/bin/assay-gates",
                "/etc/forged",
                "/var/lib/forged",
            ]
            .map(String::from),
        )
        .map(|path| format!("attempt('{path}', lambda: os.open('{path}', os.O_WRONLY | os.O_CREAT))"))
        .collect();
    let trial = retold(trial, &lines.join("\n"));
    let seen = trial.run();
    for line in seen.out.lines() {
        let empty = line.starts_with("/tmp/") || line.starts_with("/var/");
        let refused: &[&str] = if empty { &["ENOENT"] } else { &["EROFS", "EACCES"] };
        assert!(refused.iter().any(|code| line.ends_with(code)), "{line}\n{}", seen.err);
    }
    assert_eq!(seen.out.lines().count(), 8);
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
    assert!(!trial.path("out/forged").exists());
    let surface = seen.measured.written.unwrap().surface.filesystem_paths;
    assert!(surface.contains("/etc/forged"), "what was tried stands in the evidence: {surface:?}");
}

/// The same trial with another program: paths of the trial's own are known only now.
fn retold(trial: Trial, program: &str) -> Trial {
    std::fs::write(trial.path("fixture/hostile.py"), format!("{}\n{program}", super::HELPERS)).unwrap();
    trial
}

#[test]
fn tokens_homes_and_other_processes_are_out_of_sight() {
    if !need_root() {
        return;
    }
    let driver = std::process::id();
    let trial = Trial::new("");
    let runner = trial.path("runner");
    std::fs::create_dir_all(runner.join("_work/_temp")).unwrap();
    std::fs::write(runner.join(".credentials"), "token").unwrap();
    let program = format!(
        "
for path in ['/root/.bashrc', '/home/x', '{runner}/.credentials', '/etc/shadow', '/proc/{driver}/environ',
             '/proc/{driver}/cmdline', '/proc/1/mem', '/proc/kcore', '/run/docker.sock', '/run/dbus/system_bus_socket']:
    attempt(path, lambda: os.open(path, os.O_RDONLY))
others = [name for name in os.listdir('/proc') if name.isdigit() and os.stat('/proc/' + name).st_uid != os.getuid()]
print('others:', len(others))
",
        runner = runner.display()
    );
    let mut trial = retold(trial, &program);
    trial.wanted.hide.push(runner);
    let seen = trial.run();
    for line in seen.out.lines().filter(|line| line.starts_with('/')) {
        let refused = ["ENOENT", "EACCES", "EPERM"].iter().any(|code| line.ends_with(code));
        assert!(refused, "{line}");
    }
    assert_eq!(seen.out.lines().count(), 11, "{}\n{}", seen.out, seen.err);
    assert_eq!(seen.said("others"), "0");
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
}

#[test]
fn the_network_and_metadata_addresses_are_out_of_reach_and_the_attempts_are_evidence() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
attempt('metadata', lambda: socket.create_connection(('169.254.169.254', 80), timeout=2))
attempt('tcp', lambda: socket.create_connection(('1.1.1.1', 443), timeout=2))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('udp', lambda: udp.sendto(b'secret', ('8.8.8.8', 53)))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
",
    )
    .run();
    for (name, code) in [
        ("metadata", "ENETUNREACH"),
        ("tcp", "ENETUNREACH"),
        ("udp", "ENETUNREACH"),
        ("raw", "EPERM"),
        ("packet", "EAFNOSUPPORT"),
    ] {
        assert_eq!(seen.said(name), code);
    }
    let written = seen.measured.written.as_ref().unwrap();
    for endpoint in ["169.254.169.254:80", "1.1.1.1:443", "8.8.8.8:53"] {
        assert!(
            written.surface.network_endpoints.contains(endpoint),
            "{:?}",
            written.surface.network_endpoints
        );
    }
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
}

/// A process that goes with the test, however that ends.
struct Victim(std::process::Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn other_processes_of_the_same_user_can_neither_be_killed_nor_traced() {
    if !need_root() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("sleep");
    let mut victim =
        Victim(command.arg("1000").uid(MeasuredUser::alone(None).unwrap().uid).gid(65534).spawn().unwrap());
    let seen = Trial::new(&format!(
        "
attempt('kill', lambda: os.kill({pid}, signal.SIGKILL))
attempt('driver', lambda: os.kill({driver}, signal.SIGKILL))
attempt('trace', lambda: call(101, 16, {pid}, 0, 0))
attempt('memory', lambda: os.open('/proc/{pid}/mem', os.O_RDWR))
",
        pid = victim.0.id(),
        driver = std::process::id()
    ))
    .run();
    assert!(victim.0.try_wait().unwrap().is_none(), "a process of the same user was killed");
    // It has no number for any of them: with or without Landlock's scopes.
    for name in ["kill", "driver", "trace"] {
        assert_eq!(seen.said(name), "ESRCH", "{name}");
    }
    assert_eq!(seen.said("memory"), "ENOENT");
}

#[test]
fn names_with_line_feeds_and_escapes_stay_names() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new("open(b'line\\nPASS: all\\x1b[2J\\xff', 'w')");
    trial.wanted.details = Some(trial.wanted.output.clone());
    let seen = trial.run();
    let opened = seen.of(Operation::Open, "openat").filter_map(|effect| effect.path.as_ref());
    let name = opened.map(|path| path.value.as_str()).find(|path| path.contains("PASS")).expect("seen");
    assert_eq!(name, "/run/assay-gates/work/line\nPASS: all\u{1b}[2J\\xff");
    let effects = std::fs::read(trial.path("out/effects.ndjson")).unwrap();
    assert!(!effects.contains(&0x1b) && std::str::from_utf8(&effects).is_ok());
    assert!(matches!(trial.wanted.place, Place::Gate { .. }) && seen.complete());
}
