//! `record` as its user meets it: the archive, the exit code with its reason, and a host that is as it was.

use crate::support::need_root;
use assay_gates::evidence::Archive;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_assay-gates");

/// A folder that everybody can enter, with a state folder of this test's own.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let home = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(home)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn record(&self, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(["record", "--run-id", "run_test", "--output", "out.tar.gz"])
            .args(options)
            .args(["--", "sh", "-c", script])
            .current_dir(self.0.path())
            .env("ASSAY_GATES_STATE_DIR", self.path("state"))
            .env("ASSAY_REDACTION_KEY_FILE", self.key())
            .env_remove("GITHUB_ACTIONS")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn key(&self) -> PathBuf {
        let path = self.path("redaction.key");
        if !path.exists() {
            std::fs::write(&path, format!("assay-redaction-key-v1:{}\n", "A".repeat(43))).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        path
    }

    fn archive(&self) -> Archive {
        Archive::open(&self.path("out.tar.gz")).unwrap()
    }

    /// Nothing in the state folder but the lock, given back, and the empty spool.
    fn assert_tidy(&self) {
        assert_eq!(
            std::fs::metadata(self.path("state/lock")).unwrap().len(),
            0,
            "the lock was not given back"
        );
        let spool = std::fs::read_dir(self.path("state/spool")).unwrap().count();
        assert_eq!(spool, 0, "records stayed in the spool");
    }
}

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn run(mut command: Command) -> Said {
    said(command.output().unwrap())
}

/// Cgroups of the process `pid` that still exist, in either hierarchy.
fn cgroups_of(pid: u32) -> Vec<PathBuf> {
    let prefix = format!("assay-gates-{pid}-");
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"]
        .iter()
        .flat_map(|top| std::fs::read_dir(top).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !there() {
        assert!(std::time::Instant::now() < until, "{what} never came");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Starts a run that writes `ready` and then hangs, deaf to every signal that it may ignore.
fn hanging(desk: &Desk, options: &[&str]) -> Child {
    let folder = desk.path("open");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = "trap '' TERM INT HUP; (setsid sleep 1000 &) ; : > open/ready; sleep 1000";
    let child = desk.record(options, script).spawn().unwrap();
    wait_for("the measured program", || folder.join("ready").exists());
    child
}

#[test]
fn one_run_to_one_archive_whatever_the_status_of_the_program() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let said =
        run(desk
            .record(&["--effects", "fx", "--env", "COLOUR=blue"], "echo $COLOUR; cat redaction.key; exit 3"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(
        said.out,
        "wrote runner-spike bundle: out.tar.gz (run_id=run_test, status=exit_code:3, kernel_capture=clean)\n"
    );
    assert!(
        said.err.contains("\n  | blue\n") && said.err.contains("redaction.key: Permission denied"),
        "{}",
        said.err
    );
    let archive = desk.archive();
    assert_eq!(archive.finished.exit_code, Some(3));
    assert_eq!(archive.started.env_keys, ["ASSAY_RUNNER_RUN_ID", "COLOUR"]);
    let refused = desk.path("redaction.key").display().to_string();
    assert!(
        archive.kernel.iter().any(|event| event.value.as_deref() == Some(&refused)),
        "{:?}",
        archive.kernel
    );
    let mut files: Vec<_> = std::fs::read_dir(desk.path("fx"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "capture_proof.json",
            "effects.ndjson",
            "filter.json",
            "kernel_set.json",
            "stderr.log",
            "stdout.log",
            "surface.json",
            "tool_effects.json"
        ]
    );
    desk.assert_tidy();
}

#[test]
fn the_programs_own_status_is_passed_on_when_asked_for() {
    if !need_root() {
        return;
    }
    for (script, code, status) in [("exit 7", 7, "exit_code:7"), ("kill -TERM $$", 143, "signal:15")] {
        let desk = Desk::new();
        let said = run(desk.record(&["--propagate-exit"], script));
        assert_eq!(said.code, Some(code), "{}", said.err);
        assert!(said.out.contains(&format!("status={status},")), "{}", said.out);
        desk.assert_tidy();
    }
}

#[test]
fn secrets_of_the_caller_do_not_reach_the_program() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let mut command = desk.record(&[], "env");
    command
        .env("GITHUB_TOKEN", "ghs_x")
        .env("ACTIONS_RUNTIME_TOKEN", "t")
        .env("LD_PRELOAD", "")
        .env("HARMLESS", "yes");
    let said = run(command);
    assert!(said.err.contains("  | HARMLESS=yes\n") && said.err.contains("  | TZ=UTC\n"), "{}", said.err);
    assert!(said.err.contains("withheld from the command:"), "{}", said.err);
    for secret in ["ghs_x", "| ACTIONS_", "| LD_PRELOAD", "| ASSAY_REDACTION"] {
        assert!(!said.err.contains(secret), "{secret}\n{}", said.err);
    }
}

#[test]
fn logs_of_the_program_are_taken_over_from_where_it_was_told_to_write_them() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let log = desk.path("sdk.ndjson");
    let line = r#"{"schema":"assay.runner.sdk_event.v0","run_id":"run_test","seq":0,"event_type":"run_finished","source":"test"}"#;
    let options = ["--agent-shim", "openai-agents", "--sdk-event-log", "sdk.ndjson"];
    let said = run(desk.record(&options, &format!("echo '{line}' > $ASSAY_RUNNER_SDK_EVENT_LOG")));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(desk.archive().sdk.len(), 1);
    // The file of an earlier run could be taken for this one's.
    let said = run(desk.record(&options, "true"));
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(
        said.err.contains("error[AG208]") && said.err.contains(&format!("hint: rm {}", log.display())),
        "{}",
        said.err
    );
    std::fs::remove_file(&log).unwrap();
    let said = run(desk.record(&options, "true"));
    assert_eq!(said.code, Some(12), "an empty log is no log: {}", said.err);
    assert!(
        said.err.contains(&format!("{}: expected at least one SDK event", log.display())),
        "{}",
        said.err
    );
    desk.assert_tidy();
}

#[test]
fn sdk_events_without_an_sdk_are_refused() {
    let desk = Desk::new();
    let said = run(desk.record(&["--sdk-event-log", "sdk.ndjson"], "true"));
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("no SDK was named"), "{}", said.err);
}

#[test]
fn a_time_limit_ends_the_run_and_keeps_what_was_seen() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let said = said(hanging(&desk, &["--timeout", "1s"]).wait_with_output().unwrap());
    assert_eq!(said.code, Some(12), "{}", said.err);
    assert!(said.err.contains("killed: the time limit was reached"), "{}", said.err);
    assert!(said.out.contains("status=signal:9, kernel_capture="), "{}", said.out);
    let ready = desk.path("open/ready").display().to_string();
    assert!(desk.archive().surface.filesystem_paths.contains(&ready), "{:?}", desk.archive().surface);
    desk.assert_tidy();
}

#[test]
fn an_interrupt_ends_the_run_and_keeps_what_was_seen() {
    if !need_root() {
        return;
    }
    for signal in [nix::sys::signal::SIGINT, nix::sys::signal::SIGTERM] {
        let desk = Desk::new();
        let child = hanging(&desk, &[]);
        let pid = child.id();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
        let said = said(child.wait_with_output().unwrap());
        assert_eq!(said.code, Some(13), "{}", said.err);
        assert!(said.err.contains("killed: told to stop"), "{}", said.err);
        assert_eq!(cgroups_of(pid), Vec::<PathBuf>::new());
        assert!(desk.path("out.tar.gz").exists());
        desk.assert_tidy();
    }
}

#[test]
fn after_a_killed_driver_the_next_run_reaps_tells_and_measures() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let mut child = hanging(&desk, &[]);
    let pid = child.id();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert!(!cgroups_of(pid).is_empty(), "nothing was left, so nothing is tested");
    let said = run(desk.record(&[], "true"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.err.contains(&format!("stale lock taken over: process {pid} (measuring run_test since")),
        "{}",
        said.err
    );
    // Another test's run may have been quicker to reap it.
    wait_for("the end of the leftover", || cgroups_of(pid).is_empty());
    desk.assert_tidy();
}

#[test]
fn one_run_at_a_time_on_a_host() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let mut child = hanging(&desk, &[]);
    let said = run(desk.record(&[], "true"));
    assert_eq!(said.code, Some(40));
    assert!(said.err.contains(&format!("process {} (measuring run_test since", child.id())), "{}", said.err);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_full_disk_is_named_and_leaves_no_half_archive() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let small = desk.path("small");
    std::fs::create_dir(&small).unwrap();
    let _mounted = Mounted::tmpfs(&small, "size=16k");
    let mut command = desk.record(&["--effects", "small/fx"], "head -c 500000 /dev/zero");
    command.stdin(Stdio::null());
    let said = run(command);
    assert_eq!(said.code, Some(40), "{}", said.err);
    let expected = "small/fx/stdout.log: cannot keep the measured program's output: no storage space";
    assert!(said.err.contains("error[AG006]") && said.err.contains(expected), "{}", said.err);
    assert!(!desk.path("out.tar.gz").exists());
    desk.assert_tidy();
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, options: &str) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn without_root_nothing_is_measured_and_the_exit_is_40() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let copy = desk.path("assay-gates");
    std::fs::copy(BINARY, &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let folder = desk.path("nobodys");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
    let gates = folder.join("gates/one");
    std::fs::create_dir_all(&gates).unwrap();
    let definition = std::fs::read_to_string("gates/kernel-only/gate.yaml").unwrap();
    std::fs::write(gates.join("gate.yaml"), definition.replace("id: kernel-only", "id: one")).unwrap();
    std::fs::copy("gates/kernel-only/agent.sh", gates.join("agent.sh")).unwrap();
    // With a home to keep a key in and without: that root is missing comes before what only root could use.
    for (home, words) in [
        (folder.as_path(), &["record", "--", "true"][..]),
        (&folder, &["run", "--gate", "one"]),
        (Path::new("/proc"), &["run", "--gate", "one"]),
        (Path::new("/proc"), &["record", "--", "true"]),
    ] {
        let mut command = Command::new(&copy);
        command.args(words).uid(65534).gid(65534).current_dir(&folder).env("HOME", home);
        command.env("ASSAY_GATES_STATE_DIR", folder.join("state"));
        let said = run(command);
        assert_eq!(said.code, Some(40), "{}", said.err);
        let expected = "error[AG202]: expected to run as root, found uid 65534";
        assert!(said.err.contains(expected), "{words:?}: {}", said.err);
    }
}

#[test]
fn a_ring_of_another_size_is_the_next_power_of_two_and_stands_in_the_proof() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    let said = said(desk.record(&["--ring-bytes", "5000", "--effects", "effects"], "true").output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let proof = std::fs::read(desk.path("effects/capture_proof.json")).unwrap();
    let proof: serde_json::Value = serde_json::from_slice(&proof).unwrap();
    assert_eq!(proof["environment"]["ring.bytes"], "8192");
}

#[test]
fn a_command_whose_user_cannot_enter_the_current_folder_starts_in_the_work_folder() {
    if !need_root() {
        return;
    }
    let desk = Desk::new();
    std::fs::create_dir(desk.path("mine")).unwrap();
    std::fs::set_permissions(desk.path("mine"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = desk.record(&[], "echo x > here");
    let said = said(command.current_dir(desk.path("mine")).output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("the command starts in /run/assay-gates/work"), "{}", said.err);
    let archive = Archive::open(&desk.path("mine/out.tar.gz")).unwrap();
    assert!(archive.surface.filesystem_paths.contains("/run/assay-gates/work/here"), "{:?}", archive.surface);
}
