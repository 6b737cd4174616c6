//! What leads out of the sandbox on some kernel or host, and what is held without bound: each refused or ended, on this
//! kernel and as on one without Landlock.

use super::{Seen, Trial};
use crate::support::need_root;
use assay_gates::capture::catalogue::FENCED;
use assay_gates::capture::{Effect, Operation};
use assay_gates::error::Exit;
use assay_gates::gate::Allowance;
use assay_gates::host::session::Place;
use assay_gates::host::user::MeasuredUser;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Runs on a thread for which, and for all that it starts, the kernel has no Landlock.
fn without_landlock<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    std::thread::scope(|scope| {
        let old = scope.spawn(|| {
            let rules = [(libc::SYS_landlock_create_ruleset, Vec::new())].into();
            let (allow, unknown) = (SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32));
            let filter =
                SeccompFilter::new(rules, allow, unknown, std::env::consts::ARCH.try_into().unwrap());
            let program: BpfProgram = filter.unwrap().try_into().unwrap();
            apply_filter(&program).unwrap();
            run()
        });
        old.join().unwrap()
    })
}

/// On this kernel, and as on one without Landlock.
fn on_both(trial: &Trial, check: impl Fn(&Seen)) {
    check(&trial.run());
    let old = without_landlock(|| trial.run());
    assert!(
        !old.measured.fences.iter().any(|fence| fence.starts_with("landlock")),
        "{:?}",
        old.measured.fences
    );
    check(&old);
}

struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A process of the host that has the measured uid: the worst that can be, since none has it.
fn victim() -> Victim {
    let uid = MeasuredUser::alone(None).unwrap().uid;
    let mut command = Command::new("sleep");
    command.arg("1000").env_clear().env("RUNTIME_TOKEN", "ghs_secret").uid(uid).gid(uid);
    Victim(command.spawn().unwrap())
}

#[test]
fn no_process_of_the_host_lends_its_root_its_environment_or_its_life() {
    if !need_root() {
        return;
    }
    let mut victim = victim();
    let trial = Trial::new(&format!(
        "
attempt('kill', lambda: os.kill({pid}, signal.SIGKILL))
attempt('group', lambda: os.killpg({pid}, signal.SIGKILL))
attempt('root', lambda: os.listdir('/proc/{pid}/root/'))
attempt('environment', lambda: open('/proc/{pid}/environ').read())
attempt('pidfd', lambda: call(434, {pid}, 0))
attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, {pid}, 19))
try: os.kill(-1, signal.SIGKILL)
except ProcessLookupError: pass
seen = [name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]
print('others:', len(seen))
reached = 0
for number in range(1, 70000):
    for name in ('environ', 'root/etc/hostname', 'cwd', 'fd', 'mem'):
        if number != os.getpid() and os.path.lexists(f'/proc/{{number}}/{{name}}'):
            reached += 1
print('reached:', reached)
",
        pid = victim.0.id()
    ));
    on_both(&trial, |seen| {
        for name in ["kill", "group", "pidfd", "priority"] {
            assert_eq!(seen.said(name), "ESRCH", "{name}");
        }
        for name in ["root", "environment"] {
            assert_eq!(seen.said(name), "ENOENT", "{name}");
        }
        assert_eq!((seen.said("others"), seen.said("reached")), ("0", "0"));
        assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
    });
    assert!(victim.0.try_wait().unwrap().is_none(), "a process of the host was ended");
}

/// Whether `effect` tells that the fence refused this call.
fn refused(effect: &Effect, name: &str) -> bool {
    effect.operation == Operation::Escape
        && effect.syscall == name
        && effect.return_value.is_some_and(|value| value < 0)
        && effect.marks == ["refused"]
}

#[test]
fn every_call_of_the_fence_is_refused_and_every_refusal_is_an_effect() {
    if !need_root() {
        return;
    }
    let mut program = String::new();
    for (nr, name) in FENCED.iter() {
        let arguments = match *name {
            "socket" | "socketpair" => "40, 1, 0, 0",
            "clone" => "0x10000011, 0, 0, 0, 0",
            "unshare" => "0x10000000",
            _ => "0, 0, 0, 0, 0",
        };
        program.push_str(&format!("attempt('{name}', lambda: call({nr}, {arguments}))\n"));
    }
    program.push_str(
        "attempt('clone3', lambda: call(435, 0, 0))\nattempt('x32', lambda: call(0x40000000 | 39))\n",
    );
    let seen = Trial::new(&program).run();
    for (_, name) in FENCED.iter() {
        let expected = if name.starts_with("socket") { "EAFNOSUPPORT" } else { "EPERM" };
        assert_eq!(seen.said(name), expected, "{name}");
        assert!(seen.effects.iter().any(|effect| refused(effect, name)), "no effect tells of {name}");
    }
    let told = |name: &str| {
        let effect = seen.effects.iter().find(|effect| refused(effect, name)).unwrap();
        effect.detail.clone().unwrap()
    };
    assert_eq!(told("socket"), "family=40 type=1 protocol=0");
    assert_eq!(told("unshare"), "flags=0x10000000");
    assert_eq!((seen.said("clone3"), seen.said("x32")), ("ENOSYS", "ENOSYS"));
    assert!(
        !seen.effects.iter().any(|effect| effect.syscall.ends_with("435")),
        "libc's own attempt is no effect"
    );
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
    // Nothing is left of keys, since none could be made.
    let uid = MeasuredUser::alone(None).unwrap().uid.to_string();
    let users = std::fs::read_to_string("/proc/key-users").unwrap_or_default();
    assert!(!users.lines().any(|line| line.trim_start().starts_with(&format!("{uid}:"))), "{users}");
}

/// mkdir through the 32-bit gate of a 64-bit program, which needs no library; whoever gets that far says so.
#[cfg(target_arch = "x86_64")]
const FOREIGN: &str = r#"
static const char name[] = "by-foreign";
__attribute__((used)) void _start(void) {
  long result = 39;
  __asm__ volatile("int $0x80" : "+a"(result) : "b"(name), "c"(0755L) : "memory");
  __asm__ volatile("syscall" : : "a"(60L), "D"(result < 0 ? 1L : 0L));
}
"#;

#[cfg(target_arch = "x86_64")]
#[test]
fn a_32_bit_call_ends_its_process_undone_and_the_end_is_an_effect() {
    use std::os::unix::process::ExitStatusExt;
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(
        "
import subprocess
print('ended:', subprocess.run(['/run/assay-gates/fixture/foreign']).returncode)
print('made:', os.path.exists('by-foreign'))
",
    );
    let (source, image) = (trial.path("foreign.c"), trial.path("fixture/foreign"));
    std::fs::write(&source, FOREIGN).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-O1", "-nostdlib", "-static", "-no-pie", "-fno-stack-protector", "-o"]);
    assert!(compile.arg(&image).arg(&source).status().unwrap().success());
    // A kernel without that ABI ends the program by itself.
    let outside = Command::new(&image).current_dir(trial.home.path()).status().unwrap();
    let signal = if outside.success() { libc::SIGSYS } else { outside.signal().unwrap() };
    assert_eq!(trial.path("by-foreign").exists(), outside.success());

    let seen = trial.run();
    assert_eq!((seen.said("ended"), seen.said("made")), (format!("-{signal}").as_str(), "False"));
    let ends = seen.effects.iter().filter(|effect| {
        effect.operation == Operation::Exit && effect.return_value == Some(i64::from(signal))
    });
    assert_eq!(ends.count(), 1, "no effect tells of the end");
    assert!(!seen.effects.iter().any(|effect| effect.operation == Operation::Mkdir));
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
    // And as the program itself.
    trial.wanted.argv = vec!["/run/assay-gates/fixture/foreign".into()];
    let seen = trial.run();
    assert_eq!(seen.measured.summary.outcome.signal, Some(signal));
}

#[test]
fn only_unix_internet_and_route_sockets_can_be_made() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
made = []
for family in range(0, 50):
    for kind in (1, 2, 3, 5):
        for protocol in range(0, 24):
            descriptor = libc.socket(family, kind, protocol)
            if descriptor >= 0:
                made.append((family, protocol if family == 16 else 0))
                os.close(descriptor)
print('made:', sorted(set(made)))
",
    )
    .run();
    assert_eq!(seen.said("made"), "[(1, 0), (2, 0), (10, 0), (16, 0)]");
}

#[test]
fn threads_and_children_start_as_ever_behind_the_fence() {
    if !need_root() {
        return;
    }
    let seen = Trial::new(
        "
import subprocess, threading
done = []
for number in range(8):
    thread = threading.Thread(target=done.append, args=(number,))
    thread.start(); thread.join()
print('threads:', len(done))
print('child:', subprocess.run(['/bin/echo', 'hello'], capture_output=True).stdout.decode().strip())
",
    )
    .run();
    assert_eq!((seen.said("threads"), seen.said("child")), ("8", "hello"));
    assert!(!seen.effects.iter().any(|effect| effect.marks.iter().any(|mark| mark == "refused")));
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
}

#[test]
fn what_a_gate_asks_for_is_let_through_and_stands_in_the_proof() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(
        "
attempt('ring', lambda: call(425, 0, 0))
attempt('namespace', lambda: call(272, 0x10000000 | 0x00020000))
attempt('keys', lambda: call(250, 0, 0))
",
    );
    trial.wanted.allow = vec![Allowance::IoUring, Allowance::Namespaces];
    let seen = trial.run();
    assert_ne!(seen.said("ring"), "EPERM", "a ring was refused by the fence");
    assert_eq!((seen.said("namespace"), seen.said("keys")), ("ok", "EPERM"));
    let environment = &seen.measured.summary.proof.environment;
    assert_eq!(environment["fences_missing"], "io_uring refused, namespaces and mounts refused");
    assert!(environment["fences"].contains("system calls but io_uring and namespaces"));
}

/// A service of the host that would do anything for anybody.
fn service(path: &std::path::Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    listener
}

#[test]
fn services_of_the_host_are_out_of_reach_wherever_their_sockets_are() {
    if !need_root() {
        return;
    }
    let folders = ["/tmp", "/var/tmp", "/dev/shm", "/opt", env!("CARGO_TARGET_TMPDIR")];
    let folders: Vec<_> = folders.iter().map(|folder| tempfile::tempdir_in(folder).unwrap()).collect();
    let mut listeners = Vec::new();
    let mut program = String::new();
    for (number, folder) in folders.iter().enumerate() {
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("service.sock");
        listeners.push(service(&path));
        program.push_str(&format!(
            "attempt('service {number}', lambda: socket.socket(socket.AF_UNIX).connect('{}'))\n",
            path.display()
        ));
    }
    let name = format!("assay-gates-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    listeners.push(UnixListener::bind_addr(&address).unwrap());
    program.push_str(&format!(
        "attempt('service {}', lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}'))\n",
        folders.len()
    ));
    let mut trial = Trial::new(&program);
    let check = |seen: &Seen| {
        for number in 0..=folders.len() {
            assert_ne!(seen.said(&format!("service {number}")), "ok", "{}", seen.out);
        }
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "a service was reached");
        }
    };
    on_both(&trial, check);
    // A recorded command sees the host's folders, but not those sockets either.
    let script = trial.path("fixture/hostile.py");
    trial.wanted.place = Place::Host { cwd: "/".into() };
    trial.wanted.argv = ["python3", "-I", "-S", "-c"].map(Into::into).to_vec();
    trial.wanted.argv.push(std::fs::read_to_string(script).unwrap().into());
    check(&trial.run());
}

fn ended_by(seen: &Seen, limit: &str) {
    let summary = &seen.measured.summary;
    assert_eq!(summary.outcome.exceeded.as_deref(), Some(limit), "{}\n{}", seen.out, seen.err);
    assert!(!seen.complete());
    let reason = format!("limit_exceeded: {limit}: the tree was ended");
    assert!(summary.proof.reasons.contains(&reason), "{:?}", summary.proof.reasons);
    assert_eq!(seen.measured.exit(), Exit::CaptureIncomplete);
    assert!(!summary.outcome.timed_out && summary.outcome.elapsed_ms < 30_000, "{:?}", summary.outcome);
}

/// A program for each limit, with `{}` for how much of it is used: what is within, what is beyond, and what is said then.
const EDGES: [(&str, &str, u64, u64, &str); 7] = [
    ("memory", "held = b'x' * ({} << 20)", 48, 512, "memory: more than 96 MiB"),
    // What no process maps counts too.
    (
        "memory",
        "held = os.memfd_create('held')\nfor _ in range({}): os.write(held, bytes(1 << 20))",
        48,
        3 * 1024,
        "memory: more than 96 MiB",
    ),
    (
        "processes",
        "for _ in range({}):\n    if os.fork() == 0: time.sleep(20); os._exit(0)",
        24,
        200,
        "processes: more than 32",
    ),
    (
        "threads",
        "for _ in range({}): threading.Thread(target=time.sleep, args=(20,), daemon=True).start()",
        24,
        200,
        "processes: more than 32",
    ),
    (
        "effects",
        "name = '/'.join(['x' * 200] * 15)\nfor _ in range({}):\n    try: os.open(name, os.O_RDONLY)\n    except OSError: pass",
        100,
        1 << 40,
        "effects: more than 4 MiB of records",
    ),
    (
        "bytes",
        "open('large', 'wb').write(bytes({} << 20))",
        1,
        64,
        "written: 2 MiB or 500 files in the work folder",
    ),
    (
        "files",
        "for number in range({}): open(str(number), 'w').close()",
        300,
        1 << 40,
        "written: 2 MiB or 500 files in the work folder",
    ),
];

/// Bytes on disk and files below `folder`.
fn held(folder: &std::path::Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir(folder).unwrap().fold((0, 0), |(bytes, files), entry| {
        let found = entry.as_ref().unwrap().metadata().unwrap();
        let below = if found.is_dir() { held(&entry.unwrap().path()) } else { (0, 0) };
        (bytes + below.0 + found.blocks() * 512, files + below.1 + 1)
    })
}

#[test]
fn each_limit_lets_through_what_is_within_it_and_ends_what_is_beyond_with_the_disk_not_full() {
    if !need_root() {
        return;
    }
    for (name, program, within, beyond, said) in EDGES {
        for (amount, over) in [(within, false), (beyond, true)] {
            let program = program.replace("{}", &amount.to_string());
            let mut trial = Trial::new(&format!(
                "import threading, time\ntry:\n    exec({program:?})\nexcept (OSError, RuntimeError): signal.pause()\n\
                 print('went on: yes', flush=True)\nos.kill(0, 9) if {name:?} == 'processes' else os._exit(0)"
            ));
            let limits = &mut trial.wanted.limits;
            (limits.memory_mib, limits.processes, limits.effects_mib) = (96, 32, 4);
            (limits.written_mib, limits.written_files) = (2, 500);
            let seen = trial.run();
            if over {
                ended_by(&seen, said);
            } else {
                assert_eq!(seen.measured.summary.outcome.exceeded, None, "{name}: {}", seen.err);
                assert_eq!(seen.said("went on"), "yes", "{name}");
                assert!(seen.complete(), "{name}: {:?}", seen.measured.summary.proof.reasons);
            }
            let (bytes, files) = held(trial.home.path());
            assert!(bytes < 64 << 20 && files < 1000, "{name}: {bytes} bytes in {files} files are held");
        }
    }
}

/// A host on which no controller of processes or memory can be used, as seen by one invocation.
#[test]
fn where_no_controller_counts_the_driver_does_and_ends_the_tree_with_the_same_reason() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let forks = "import os, time\nchildren = []\nfor _ in range({}):\n    child = os.fork()\n    if child == 0: time.sleep(20); os._exit(0)\n    children.append(child)\ntime.sleep(0.5)\nfor child in children: os.kill(child, 9)";
    let threads = "import os, threading, time\nfor _ in range({}): threading.Thread(target=time.sleep, args=(20,), daemon=True).start()\nos._exit(9)";
    let waits = "import time\nheld = b'x' * ({} << 20)\ntime.sleep(1)";
    for (name, program, within, beyond, said) in [
        ("processes", forks, 24, 200, "limit_exceeded: processes: more than 32: the tree was ended"),
        ("threads", threads, 24, 200, "limit_exceeded: processes: more than 32: the tree was ended"),
        ("memory", waits, 24, 200, "limit_exceeded: memory: more than 96 MiB resident: the tree was ended"),
    ] {
        for (amount, over) in [(within, false), (beyond, true)] {
            let id = format!("{name}-{amount}");
            let folder = home.path().join("gates").join(&id);
            std::fs::create_dir_all(&folder).unwrap();
            // Whoever is refused a further process waits for the end.
            let program = program.replace("{}", &amount.to_string()).replace('\n', "\n    ");
            std::fs::write(
                folder.join("agent.py"),
                format!("try:\n    {program}\nexcept (OSError, RuntimeError):\n    import signal\n    signal.pause()\n"),
            )
            .unwrap();
            let definition = format!(
                "schema: assay.gates.gate.v0\nid: {id}\ntitle: x\ngroup: opt-in\nlabel: x\nrun_id: run_x\narchive: runner-x.tar.gz\n\
                 agent_shim: none\nlayers: {{policy: absent, sdk: absent}}\nlimits: {{memory_mib: 96, processes: 32}}\n\
                 command: [python3, -I, -S, /run/assay-gates/fixture/agent.py]\nexpect: {{}}\n"
            );
            std::fs::write(folder.join("gate.yaml"), definition).unwrap();
            let root = home.path().join(format!("root-{id}"));
            let script = "mount --make-rprivate /; for at in $(grep ' - cgroup ' /proc/self/mountinfo | grep -E 'pids|memory' | cut -d' ' -f5); do umount -l $at; done; exec \"$@\"";
            let ran = Command::new("unshare")
                .args(["--mount", "bash", "-c", script, "bash", env!("CARGO_BIN_EXE_assay-gates")])
                .args(["run", "--gate", &id, "--no-pack", "--runs", "1", "--gates-dir"])
                .arg(home.path().join("gates"))
                .arg("--root")
                .arg(&root)
                .env("ASSAY_GATES_STATE_DIR", home.path().join("state"))
                .current_dir(home.path())
                .output()
                .unwrap();
            let text =
                String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
            let proof = root.join(format!("gates/{id}/run-1/capture_proof.json"));
            let proof = std::fs::read_to_string(proof).unwrap_or_else(|error| panic!("{error}: {text}"));
            if !proof.contains("polled") {
                let unified =
                    std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
                assert!(unified.contains("pids"), "no controller, and nobody counts: {proof}");
                let _told =
                    crate::support::skip("controllers of version 2 can't be taken away from one process");
                return;
            }
            assert_eq!(proof.contains(said), over, "{id}: {text}\n{proof}");
            assert!(
                !over || ran.status.code() == Some(Exit::CaptureIncomplete.code().into()),
                "{id}: {text}"
            );
        }
    }
}

#[test]
fn a_gate_says_what_must_be_refused_what_is_let_through_and_how_much_is_used() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("gates/fenced");
    std::fs::create_dir_all(&folder).unwrap();
    let script = "import ctypes; call = ctypes.CDLL(None).syscall; call(250, 0); call(425, 0, 0); held = bytes(8 << 20)";
    for (refused, memory, exit) in
        [("keyctl", 512, 0), ("keyctl, io_uring_setup", 512, 10), ("keyctl", 16, 12)]
    {
        let definition = format!(
            "schema: assay.gates.gate.v0\nid: fenced\ntitle: Fenced\ngroup: opt-in\nlabel: fenced\nrun_id: run_fenced\n\
             archive: runner-fenced.tar.gz\nagent_shim: none\nlayers: {{policy: absent, sdk: absent}}\n\
             command: [python3, -I, -S, -c, \"{script} * {}\"]\nallow: [io_uring]\nlimits: {{memory_mib: {memory}}}\n\
             expect:\n  exit_code: 0\n  refused: [{refused}]\n",
            if memory == 16 { 4 } else { 1 },
        );
        std::fs::write(folder.join("gate.yaml"), definition).unwrap();
        let root = home.path().join(format!("root-{exit}"));
        let said = Command::new(env!("CARGO_BIN_EXE_assay-gates"))
            .args(["run", "--gate", "fenced", "--no-pack", "--runs", "2", "--gates-dir"])
            .arg(home.path().join("gates"))
            .arg("--root")
            .arg(&root)
            .env("ASSAY_GATES_STATE_DIR", home.path().join("state"))
            .current_dir(home.path())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
        assert_eq!(said.status.code(), Some(exit), "{refused} {memory}: {text}");
    }
}
