//! A second observer: the kernel's own tracer, with another filter, another buffer and another reader, must have seen the same.
//!
//! It hangs on the same tracepoints, so it shares their blind spots; it shares nothing else.

use crate::session::{Session, complete, record};
use crate::support;
use assay_gates::capture::{Effect, Operation, catalogue};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const EVENTS: [&str; 4] =
    ["raw_syscalls/sys_enter", "raw_syscalls/sys_exit", "task/task_newtask", "sched/sched_process_exit"];
/// No process has this number: with it in the filter, nothing is traced until the measured process adds its own.
const NOBODY: &str = "4194303";

/// An instance of the tracer; gone when dropped.
struct Tracer(PathBuf);

impl Tracer {
    fn new() -> Option<Self> {
        let root = Path::new("/sys/kernel/tracing");
        if !root.join("instances").exists() {
            let _mounted = nix::mount::mount(
                Some("tracefs"),
                root,
                Some("tracefs"),
                nix::mount::MsFlags::empty(),
                None::<&str>,
            );
        }
        let instance = root.join(format!("instances/assay-gates-test-{}", std::process::id()));
        std::fs::create_dir(&instance).ok()?;
        let tracer = Self(instance);
        tracer.set("buffer_size_kb", "16384");
        tracer.set("options/event-fork", "1");
        tracer.set("set_event_pid", NOBODY);
        for event in EVENTS {
            tracer.set(&format!("events/{event}/enable"), "1");
        }
        Some(tracer)
    }

    fn set(&self, file: &str, value: &str) {
        std::fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Lines of events that the tracer's own buffers did not lose: (thread, event, rest).
    fn events(&self) -> Vec<(u32, String, String)> {
        for cpu in std::fs::read_dir(self.0.join("per_cpu")).unwrap() {
            let stats = std::fs::read_to_string(cpu.unwrap().path().join("stats")).unwrap();
            for kind in ["overrun: ", "dropped events: "] {
                let lost = stats.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
                assert_eq!(lost.trim(), "0", "{kind}");
            }
        }
        let trace = std::fs::read_to_string(self.0.join("trace")).unwrap();
        trace.lines().filter(|line| !line.starts_with('#')).filter_map(event).collect()
    }
}

/// `comm-123   [000] ..... 1.000000: name: rest`
fn event(line: &str) -> Option<(u32, String, String)> {
    let (head, rest) = line.split_once(" [")?;
    let thread = head.trim_end().rsplit('-').next()?.parse().ok()?;
    let (name, rest) = rest.split_once(": ")?.1.split_once(':')?;
    Some((thread, name.to_owned(), rest.trim().to_owned()))
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for event in EVENTS {
            let _disabled = std::fs::write(self.0.join(format!("events/{event}/enable")), "0");
        }
        let _removed = std::fs::remove_dir(&self.0);
    }
}

/// Decimal digits of the calling process's number, without allocating.
fn own_number(buffer: &mut [u8; 16]) -> &[u8] {
    let mut left = std::process::id();
    let mut at = buffer.len();
    while left > 0 {
        at -= 1;
        buffer[at] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    &buffer[at..]
}

#[test]
fn the_kernels_own_tracer_saw_the_same_calls_births_and_ends() {
    if !support::need_root() {
        return;
    }
    let Some(tracer) = Tracer::new() else {
        assert!(std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(), "no tracefs");
        return eprintln!("SKIPPED: no tracefs");
    };
    let session = Session::new();
    let script = "i=0; while [ $i -lt 30 ]; do mkdir d$i; echo $i > d$i/f; mv d$i/f g; rm -r d$i; cat nothere; (: < g); i=$((i+1)); done";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stderr(std::process::Stdio::null());
    let filter = std::ffi::CString::new(tracer.0.join("set_event_pid").to_str().unwrap()).unwrap();
    // SAFETY: open and write are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            let mut buffer = [0; 16];
            let number = own_number(&mut buffer);
            let fd = libc::open(filter.as_ptr(), libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC);
            let written = libc::write(fd, number.as_ptr().cast(), number.len());
            if written == number.len() as isize { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let (recording, _) = record(&session, &mut command);
    let effects = complete(&recording);
    let ours = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();

    // The tracer began before the cgroup was joined: what the root did before its exec is not ours.
    let root = effects[0].tid;
    let execve = catalogue::embedded().syscalls().iter().find(|row| row.name == "execve").unwrap();
    let exec = format!("NR {} ", execve.number().unwrap());
    let mut begun = false;
    let theirs: Vec<(u32, String, String)> = tracer
        .events()
        .into_iter()
        .filter(|(thread, name, rest)| {
            begun |= *thread == root && name == "sys_enter" && rest.starts_with(&exec);
            begun
        })
        .collect();
    let births = theirs.iter().filter(|(_, name, _)| name == "task_newtask").count();
    let ends = theirs.iter().filter(|(_, name, _)| name == "sched_process_exit").count();
    assert!(births >= 150, "{births}");
    assert_eq!(
        (births, ends),
        (ours(&|e| e.operation == Operation::Fork), ours(&|e| e.operation == Operation::Exit))
    );

    // Every call that is recorded whatever its arguments, by number and result.
    let compared = |name: &str| {
        let row = catalogue::embedded().syscalls().iter().find(|row| row.name == name);
        let by_arguments = ["ioctl", "socket", "prlimit64", "kill", "tgkill"].contains(&name);
        row.is_some_and(|row| {
            row.treatment.operation.is_some() && row.treatment.hook.is_none() && !by_arguments
        })
    };
    let mut expected: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for (_, _, rest) in theirs.iter().filter(|(_, name, _)| name == "sys_exit") {
        let (nr, result) = rest.strip_prefix("NR ").unwrap().split_once(" = ").unwrap();
        if let Some(row) = catalogue::syscall(nr.parse().unwrap()).filter(|row| compared(&row.name)) {
            *expected.entry((row.name.clone(), result.parse().unwrap())).or_default() += 1;
        }
    }
    let mut found: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for effect in effects.iter().filter(|effect| compared(&effect.syscall)) {
        *found.entry((effect.syscall.clone(), effect.return_value.unwrap())).or_default() += 1;
    }
    assert!(expected.values().sum::<usize>() > 500, "{expected:?}");
    assert_eq!(found, expected);
}
