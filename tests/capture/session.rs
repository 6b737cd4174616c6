//! A session's cgroup, a program in it, and what the recorder says of it.

use assay_gates::capture::{ArmOptions, Effect, Operation, Outcome, Recorder, Recording};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the measured programs share.
const SAY: &str = include_str!("programs/say.h");

/// A fresh cgroup, a work folder, and a private folder for records; all gone when dropped.
pub struct Session {
    pub cgroup: PathBuf,
    pub work: tempfile::TempDir,
    pub spool: tempfile::TempDir,
}

/// Where cgroup v2 is mounted.
pub fn hierarchy() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line =
        mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup v2 is mounted");
    PathBuf::from(line.split(' ').nth(1).unwrap())
}

impl Session {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = hierarchy().join(format!("assay-gates-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&cgroup).unwrap();
        Self { cgroup, work: tempfile::tempdir().unwrap(), spool: tempfile::tempdir().unwrap() }
    }

    pub fn options(&self) -> ArmOptions {
        ArmOptions::new("run_test", &self.cgroup, self.spool.path())
    }

    /// An armed recorder whose begin canary has run.
    pub fn arm(&self, options: &ArmOptions) -> Recorder {
        let mut recorder = Recorder::arm(options).unwrap();
        recorder.begin().unwrap();
        recorder
    }

    /// `command` as the driver starts it: in the cgroup before its first own instruction.
    pub fn enter<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let procs = std::ffi::CString::new(self.cgroup.join("cgroup.procs").to_str().unwrap()).unwrap();
        command.current_dir(self.work.path()).env_clear().env("PATH", "/usr/bin:/bin");
        // SAFETY: open, write and close are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if fd < 0 || libc::write(fd, c"0".as_ptr().cast(), 1) != 1 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            })
        }
    }

    /// Waits until nobody is left in the cgroup.
    pub fn wait_empty(&self) {
        let events = std::fs::File::open(self.cgroup.join("cgroup.events")).unwrap();
        loop {
            let text = std::fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap();
            if text.contains("populated 0") {
                return;
            }
            let mut poll = libc::pollfd {
                fd: std::os::fd::AsRawFd::as_raw_fd(&events),
                events: libc::POLLPRI,
                revents: 0,
            };
            // SAFETY: one pollfd, as said.
            unsafe { libc::poll(&mut poll, 1, 200) };
        }
    }

    /// Runs `command` to its end under `recorder`.
    pub fn measure(&self, recorder: Recorder, command: &mut Command) -> Recording {
        let status = self.enter(command).status().unwrap();
        self.wait_empty();
        recorder.finish(outcome(status), Vec::new()).unwrap()
    }

    /// Arms with default options and runs `command` to its end.
    pub fn record(&self, command: &mut Command) -> Recording {
        let recorder = self.arm(&self.options());
        self.measure(recorder, command)
    }

    /// Folder for the measured program's files, as the kernel names it.
    pub fn folder(&self) -> PathBuf {
        self.work.path().canonicalize().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _killed = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..200 {
            for child in std::fs::read_dir(&self.cgroup).into_iter().flatten().flatten() {
                let _removed = std::fs::remove_dir(child.path());
            }
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

pub fn outcome(status: ExitStatus) -> Outcome {
    Outcome {
        exit_code: status.code(),
        signal: status.signal(),
        elapsed_ms: 0,
        timed_out: false,
        interrupted: false,
        exceeded: None,
        stragglers: 0,
    }
}

/// All effects; the record must be complete.
pub fn complete(recording: &Recording) -> Vec<Effect> {
    assert!(recording.summary.proof.complete, "{:#?}", recording.summary.proof.reasons);
    assert!(recording.summary.proof.invariants.iter().all(|invariant| invariant.held));
    effects(recording)
}

pub fn effects(recording: &Recording) -> Vec<Effect> {
    recording.effects().unwrap().map(Result::unwrap).collect()
}

/// The names of the reasons why a recording is not complete.
pub fn reasons(recording: &Recording) -> Vec<String> {
    let reasons = &recording.summary.proof.reasons;
    assert_eq!(recording.summary.proof.complete, reasons.is_empty());
    reasons.iter().map(|reason| reason.split(':').next().unwrap().to_owned()).collect()
}

/// Compiles a C program; the measured programs are small, so that every call of theirs is known. Where `ASSAY_GATES_TEST_PROGRAMS` names
/// a folder it is taken from there if it stands there, for a machine without a compiler, and left there if not.
pub fn compile(folder: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (code, program) = (folder.join(format!("{name}.c")), folder.join(name));
    let text = format!("{SAY}{source}{flags:?}");
    let kept = std::env::var_os("ASSAY_GATES_TEST_PROGRAMS").map(|kept| {
        let digest = assay_gates::files::sha256(text.as_bytes()).to_string();
        Path::new(&kept).join(format!("{name}-{}", digest.trim_start_matches("sha256:")))
    });
    if let Some(kept) = kept.as_ref().filter(|kept| kept.exists()) {
        std::fs::copy(kept, &program).unwrap();
        return program;
    }
    std::fs::write(&code, source).unwrap();
    // Another architecture's compiler makes programs for a machine of that.
    let compiler = std::env::var("ASSAY_GATES_TEST_CC").ok().filter(|compiler| !compiler.is_empty());
    let compiler = compiler.as_deref().unwrap_or("cc");
    let output =
        Command::new(compiler).args(["-O1", "-o"]).arg(&program).arg(&code).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if let Some(kept) = kept {
        std::fs::copy(&program, kept).unwrap();
    }
    program
}

/// A measured C program: compiled with `programs/say.h`, run in `session`, with what it said it did (`W` is the work folder).
pub fn program(session: &Session, source: &str, flags: &[&str]) -> PathBuf {
    program_in(session.spool.path(), source, flags)
}

pub fn program_in(folder: &Path, source: &str, flags: &[&str]) -> PathBuf {
    std::fs::write(folder.join("say.h"), SAY).unwrap();
    compile(folder, "program", source, flags)
}

/// Runs `program` under a fresh recorder; gives the recording and the lines that the program said.
pub fn record(session: &Session, command: &mut Command) -> (Recording, Vec<String>) {
    let recorder = session.arm(&session.options());
    record_with(session, recorder, command)
}

/// The same with a recorder that is armed already.
pub fn record_with(session: &Session, recorder: Recorder, command: &mut Command) -> (Recording, Vec<String>) {
    let output = session.spool.path().join("output");
    command.stdout(std::fs::File::create(&output).unwrap());
    let recording = session.measure(recorder, command);
    let folder = session.folder();
    let said = std::fs::read_to_string(output).unwrap();
    (
        recording,
        said.lines()
            .map(|line| {
                line.replace("W/", &format!("{}/", folder.display()))
                    .replace(" W ", &format!(" {} ", folder.display()))
            })
            .collect(),
    )
}

/// Effects on files and addresses in the words that a test states them in: `syscall value [-> target] = return`.
pub fn lines(effects: &[Effect]) -> Vec<String> {
    let quiet = [Operation::Fork, Operation::Exit, Operation::CgroupAttach];
    effects.iter().filter(|effect| !quiet.contains(&effect.operation)).map(line).collect()
}

pub fn line(effect: &Effect) -> String {
    let mut text = effect.syscall.clone();
    if let Some(path) = &effect.path {
        text += &format!(" {}", path.value);
        if path.state != assay_gates::capture::PathState::Resolved {
            text += &format!(" ({})", serde_json::to_value(path.state).unwrap().as_str().unwrap());
        }
    }
    if let Some(target) = &effect.target {
        text += &format!(" -> {}", target.value);
    }
    if let Some(endpoint) = &effect.endpoint {
        text += &format!(" {endpoint}");
    }
    if let Some(value) = effect.return_value {
        text += &format!(" = {value}");
    }
    for mark in &effect.marks {
        text += &format!(" !{mark}");
    }
    text
}
