//! The session's own process namespace: its init, what the program notices of it, and further programs in it.

use crate::bench::Bench;
use crate::support::need_root;
use assay_gates::error::Code;
use assay_gates::host::launch::{Program, SpawnRequest};
use assay_gates::host::session::Session;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;

/// `sh -c script`, with nothing to read, and its output at the end of the pipe.
fn shell(script: &str) -> (SpawnRequest, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let program = Program {
        argv: [b"sh".as_slice(), b"-c", script.as_bytes()].map(<[u8]>::to_vec).to_vec(),
        environment: vec![b"PATH=/usr/bin:/bin".to_vec()],
        cwd: "/run/assay-gates/work".into(),
    };
    let errors = writer.try_clone().unwrap();
    (SpawnRequest { program, stdio: [null, writer.into(), errors.into()] }, reader)
}

fn text(mut reader: std::io::PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn processes_signals_zombies_and_exit_codes_are_what_they_are_outside() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let said = bench.output(
        "python3 - <<'END'
import os, signal, time
print('others', sorted(int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) not in (os.getpid(), os.getppid())))
print('first', os.path.exists('/proc/1'))
try: os.kill(1, signal.SIGKILL)
except PermissionError: print('init is out of reach')
child = os.fork()
if child == 0: os.kill(os.getpid(), signal.SIGTERM)
print('terminated', os.WTERMSIG(os.waitpid(child, 0)[1]))
child = os.fork()
if child == 0: os._exit(9)
time.sleep(0.05)
print('zombie', open(f'/proc/{child}/stat').read().split()[2])
print('status', os.WEXITSTATUS(os.waitpid(child, 0)[1]))
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != 1: time.sleep(0.001)
        os.write(write, str(os.getpid()).encode())
        os._exit(0)
    os._exit(0)
os.wait()
orphan = os.read(read, 16).decode()
until = time.time() + 10
while os.path.exists(f'/proc/{orphan}') and time.time() < until: time.sleep(0.001)
print('orphan reaped', not os.path.exists(f'/proc/{orphan}'))
END",
    );
    assert_eq!(
        said,
        "others []\nfirst False\ninit is out of reach\nterminated 15\nzombie Z\nstatus 9\norphan reaped True\n"
    );
    // The root itself: a signal that the first process of a namespace would not notice ends it as anywhere.
    let ended = bench.run(bench.gate("kill -TERM $$; echo survived"));
    assert_eq!((ended.outcome.exit_code, ended.outcome.signal), (None, Some(15)));
    assert_eq!(std::fs::read_to_string(&ended.stdout.path).unwrap(), "");
}

#[test]
fn a_further_program_executes_nothing_before_its_word_and_is_all_that_the_first_one_is() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let session =
        Session::prepare(&bench.host, bench.gate("read x < /tmp/never 2>/dev/null; sleep 1000")).unwrap();
    let cgroup = session.cgroup().path().to_owned();
    let members = || std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    std::thread::scope(|scope| {
        let running = session.spawn().unwrap();
        let spawner = running.spawner();
        let waiting = scope.spawn(move || running.wait().unwrap());

        let facts = "cat /proc/self/status /proc/self/cgroup; pwd; cat /dev/shm/assay-gates/x; readlink /proc/$$/ns/pid; exit 3";
        let (request, output) = shell(facts);
        let pending = spawner.spawn(request).unwrap();
        assert!(!members().lines().any(|line| line == pending.pid().to_string()), "joined before the word");
        let exe = std::fs::read_link(format!("/proc/{}/exe", pending.pid())).unwrap();
        assert!(exe.ends_with("assay-gates"), "{exe:?} was executed before the word");
        let status = std::fs::read_to_string(format!("/proc/{}/status", pending.pid())).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0\t0"), "a measured program could signal it: {status}");
        let pid = pending.pid();
        let process = pending.start().unwrap();
        assert_eq!(process.pid(), pid);
        assert_eq!(process.wait().unwrap().code(), Some(3));
        let said = text(output);
        for line in [
            "NoNewPrivs:\t1",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "/run/assay-gates/work",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
        assert!(!said.contains("Uid:\t0"), "{said}");

        let (request, output) = shell("kill -KILL $$");
        let killed = spawner.spawn(request).unwrap().start().unwrap();
        assert_eq!(killed.wait().unwrap().signal(), Some(9));
        assert_eq!(text(output), "");

        let (mut request, _output) = shell("");
        request.program.argv = vec![b"no-such-program".to_vec()];
        assert_eq!(spawner.spawn(request).unwrap_err().code(), Code::ProgramUnusable);

        let (request, output) = shell("echo ran");
        drop(spawner.spawn(request).unwrap());
        assert_eq!(text(output), "", "a program whose word never came was executed");

        let (request, output) = shell("echo alive; sleep 1000");
        let last = spawner.spawn(request).unwrap().start().unwrap();
        std::fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
        let ended = waiting.join().unwrap();
        assert_eq!(ended.programs, 4, "the first one, and those whose word came");
        assert_eq!(last.wait().unwrap().signal(), Some(9));
        assert!(["", "alive\n"].contains(&text(output).as_str()));
        ended.remove().unwrap();
        let (request, _output) = shell("");
        assert_eq!(spawner.spawn(request).unwrap_err().code(), Code::SandboxFailed, "the session is over");
    });
}

#[test]
fn no_tree_outlives_its_driver() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mark = format!("{}", 1_000_000 + std::process::id());
    let mut driver = std::process::Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["record", "--", "sh", "-c", &format!("setsid sleep {mark} & sleep {mark}")])
        .env("ASSAY_GATES_STATE_DIR", home.path().join("state"))
        .current_dir(home.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let alive = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_ours = |path: std::path::PathBuf| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            line.starts_with(b"sleep\0") && line.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        processes.filter(|entry| is_ours(entry.path())).count()
    };
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while alive() < 2 {
        assert!(std::time::Instant::now() < until && driver.try_wait().unwrap().is_none(), "never began");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    driver.kill().unwrap();
    driver.wait().unwrap();
    while alive() > 0 {
        assert!(std::time::Instant::now() < until, "{} live on", alive());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
