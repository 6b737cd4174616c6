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

#[test]
fn memory_that_no_process_maps_is_bounded_too() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(
        "
held = os.memfd_create('held')
for _ in range(3 * 1024):
    os.write(held, bytes(1 << 20))
print('held:', os.fstat(held).st_size)
",
    );
    trial.wanted.limits.memory_mib = 96;
    ended_by(&trial.run(), "memory: more than 96 MiB");
}

#[test]
fn a_flood_of_effects_ends_before_it_fills_the_disk() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(
        "
name = '/'.join(['x' * 200] * 15)
while True:
    try: os.open(name, os.O_RDONLY)
    except OSError: pass
",
    );
    trial.wanted.limits.effects_mib = 4;
    ended_by(&trial.run(), "effects: more than 4 MiB of records");
    let mut bytes = 0;
    for entry in std::fs::read_dir(trial.path("out")).unwrap() {
        bytes += entry.unwrap().metadata().unwrap().len();
    }
    assert!(bytes < 32 << 20, "{bytes} bytes were left");
}

#[test]
fn a_work_folder_that_is_full_of_bytes_or_of_files_ends_the_run() {
    if !need_root() {
        return;
    }
    for program in [
        "open('large', 'wb').write(bytes(64 << 20))",
        "import itertools\nfor number in itertools.count(): open(str(number), 'w').close()",
    ] {
        let mut trial =
            Trial::new(&format!("try:\n    exec('''{program}''')\nexcept OSError: signal.pause()"));
        (trial.wanted.limits.written_mib, trial.wanted.limits.written_files) = (2, 500);
        ended_by(&trial.run(), "written: 2 MiB or 500 files in the work folder");
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
