//! A driver that nobody waits for any more, or that is told to stop: it ends within three seconds with 13, whoever was
//! signalled, and leaves nothing but a root that can be gone on with.

use crate::stage::{Stage, proof, run_form, stage, succeeded, text};
use crate::support::need_root;
use assay_gates::host::cgroup::Parent;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// What a stopped unit may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What it may take here: on a machine on which more is waiting for a processor than there are, everything takes longer.
fn limit() -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    LIMIT.mul_f64((load / processors as f64).max(1.0)) + Duration::from_millis(500)
}

/// A runner's service as a service manager starts it: a main process that heads a session, a worker, the shell of a
/// step, sudo, the driver. Nothing below the main process is told anything when that one ends.
struct Service<'a> {
    stage: &'a Stage,
    holder: &'a Child,
    main: Child,
    root: String,
}

impl<'a> Service<'a> {
    fn start(
        stage: &'a Stage,
        holder: &'a Child,
        checkout: &str,
        gate: &str,
        root: &str,
        before: &str,
    ) -> Self {
        let out = format!("{}/{root}", crate::stage::HOME);
        let step = format!(
            "{before} sudo -n assay-gates {} > {out}.log 2>&1; echo $? > {out}.code",
            run_form(gate, root)
        );
        // `:` behind the last command: no shell gives its place to what it starts.
        let scripts = format!(
            "echo '{step}' > {out}.step; echo 'bash {out}.step; :' > {out}.worker; echo 'bash {out}.worker; :' > {out}.main"
        );
        succeeded(&stage.user(holder, checkout, &scripts));
        let main = format!("exec setsid env --default-signal=HUP bash {out}.main");
        let main = stage.user_command(holder, checkout, &main).spawn().unwrap();
        Self { stage, holder, main, root: root.to_owned() }
    }

    fn file(&self, kind: &str) -> String {
        let path = format!("{}/{}.{kind}", crate::stage::HOME, self.root);
        text(&self.stage.root(self.holder, &format!("cat {path} 2>/dev/null")))
    }

    /// The processes below the main one: id and name.
    fn below(&self) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        let mut next = vec![self.main.id()];
        while let Some(id) = next.pop() {
            for (child, name) in children(id) {
                next.push(child);
                found.push((child, name));
            }
        }
        found
    }

    /// The driver, when there is one: the first of that name on the way down.
    fn driver(&self) -> Option<u32> {
        self.below().into_iter().find(|(_, name)| name == "assay-gates").map(|(id, _)| id)
    }

    fn measuring(&self) -> u32 {
        wait("a measured program", Duration::from_secs(120), || {
            let driver = self.driver()?;
            // The gate's own program, and not what the host is tried with before it.
            let busy = |group: &PathBuf| {
                let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                procs.lines().any(|id| stat(id.parse().unwrap()).is_some_and(|(name, ..)| name == "sleep"))
            };
            cgroups_of(driver).iter().any(busy).then_some(driver)
        })
    }

    fn kill_main(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.main.id() as i32), signal).unwrap();
        self.main.wait().unwrap();
    }

    /// The driver is gone in time, and nothing of it is left.
    fn ended(&self, driver: u32, since: Instant) {
        wait("the driver's end", limit(), || (!alive(driver)).then_some(()));
        assert!(since.elapsed() < limit(), "it took {:?}", since.elapsed());
        assert_eq!(cgroups_of(driver), Vec::<PathBuf>::new());
    }

    fn code(&self) -> String {
        wait("the step's end", Duration::from_secs(60), || {
            Some(self.file("code")).filter(|code| !code.is_empty())
        })
    }
}

fn wait<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stat(id: u32) -> Option<(String, String, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((head.split_once('(')?.1.to_owned(), state, fields.next()?.parse().ok()?))
}

fn alive(id: u32) -> bool {
    stat(id).is_some_and(|(_, state, _)| !matches!(state.as_str(), "Z" | "X"))
}

fn children(of: u32) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| stat(id).filter(|(_, _, parent)| *parent == of).map(|(name, ..)| (id, name)))
        .collect()
}

fn cgroups_of(driver: u32) -> Vec<PathBuf> {
    let folder = Parent::find().unwrap().folder;
    let prefix = format!("assay-gates-{driver}-");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect()
}

const HANGS: (&str, &str, &str) = ("hangs", "timeout_seconds: 100\n", "trap '' TERM INT HUP; sleep 90");

fn incomplete(stage: &Stage, holder: &Child, root: &str, gate: &str) {
    let status = proof(root).join(format!("gates/{gate}/status.txt"));
    let said = text(&stage.root(holder, &format!("cat {}", status.display())));
    assert_eq!(said, "incomplete\n");
}

#[test]
fn a_stop_that_reaches_the_main_process_alone_ends_the_run_behind_sudo() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "stop-main", &[HANGS]);
    for (root, signal) in [("901-1", Signal::SIGKILL), ("902-1", Signal::SIGTERM)] {
        let mut service = Service::start(stage, &holder, &checkout, "hangs", root, "");
        let driver = service.measuring();
        let since = Instant::now();
        service.kill_main(signal);
        service.ended(driver, since);
        assert_eq!(service.code(), "13\n", "{}", service.file("log"));
        let log = service.file("log");
        let resume = format!("sudo assay-gates run --gates hangs --resume --root {}", proof(root).display());
        assert!(log.contains("which it was started from, is gone") && log.contains(&resume), "{log}");
        incomplete(stage, &holder, root, "hangs");
    }
}

#[test]
fn a_stop_that_reaches_everybody_and_a_killed_sudo_end_the_run_too() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "stop-all", &[HANGS]);
    let mut service = Service::start(stage, &holder, &checkout, "hangs", "903-1", "");
    let driver = service.measuring();
    let since = Instant::now();
    for (id, name) in service.below() {
        let signal = if name == "sudo" { Signal::SIGKILL } else { continue };
        kill(Pid::from_raw(id as i32), signal).unwrap();
    }
    service.ended(driver, since);
    incomplete(stage, &holder, "903-1", "hangs");
    service.kill_main(Signal::SIGKILL);

    let mut service = Service::start(stage, &holder, &checkout, "hangs", "904-1", "");
    let driver = service.measuring();
    let since = Instant::now();
    for (id, _) in service.below() {
        let _gone_by_now = kill(Pid::from_raw(id as i32), Signal::SIGTERM);
    }
    service.kill_main(Signal::SIGTERM);
    service.ended(driver, since);
    incomplete(stage, &holder, "904-1", "hangs");
}

#[test]
fn a_unit_that_systemd_calls_stopped_ends_the_run_though_nobody_was_signalled() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "stop-unit", &[HANGS]);
    let unit = format!("agstop-{}.service", std::process::id());
    let group = Parent::find().unwrap().mount.join(&unit);
    std::fs::create_dir(&group).unwrap();
    let link = format!("/run/systemd/units/invocation:{unit}");
    succeeded(&stage.root(&holder, &format!("mkdir -p /run/systemd/units && ln -s 0123abcd {link}")));
    let mut service = Service::start(stage, &holder, &checkout, "hangs", "905-1", "sleep 1;");
    wait("the service", Duration::from_secs(10), || (!service.below().is_empty()).then_some(()));
    for id in service.below().into_iter().map(|(id, _)| id).chain([service.main.id()]) {
        let _gone_by_now = std::fs::write(group.join("cgroup.procs"), id.to_string());
    }
    let driver = service.measuring();
    assert!(std::fs::read_to_string(format!("/proc/{driver}/cgroup")).unwrap().contains(&unit));
    let since = Instant::now();
    succeeded(&stage.root(&holder, &format!("rm {link}")));
    service.ended(driver, since);
    assert_eq!(service.code(), "13\n", "{}", service.file("log"));
    assert!(service.file("log").contains(&format!("{unit} was stopped")), "{}", service.file("log"));
    service.kill_main(Signal::SIGKILL);
    wait("an empty unit", Duration::from_secs(10), || std::fs::remove_dir(&group).ok());
}

#[test]
fn what_is_started_to_go_on_alone_goes_on_alone() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "stop-not", &[("short", "", "sleep 1")]);
    let mut service = Service::start(stage, &holder, &checkout, "short", "906-1", "nohup");
    service.measuring();
    service.kill_main(Signal::SIGKILL);
    assert_eq!(service.code(), "0\n", "{}", service.file("log"));
}

/// Whenever it comes: while the host is looked at, before a capture is armed, while something is measured, between two
/// runs, when the results are written.
#[test]
fn at_any_moment_the_run_ends_with_13_or_was_done_and_going_on_gives_what_an_undisturbed_one_gives() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "stop-any", &[("brief", "", "echo x > $ASSAY_GATES_WORK/x")]);
    let began = Instant::now();
    succeeded(&stage.run_gate(&holder, &checkout, "brief", "910-1"));
    let whole = began.elapsed();
    let sets = |root: &str| {
        let files = format!("cat {}/gates/brief/run-?/kernel_set.json", proof(root).display());
        succeeded(&stage.root(&holder, &files))
    };
    let told = [None, Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP)];
    let mut stopped = 0;
    for step in 0..12u32 {
        let root = format!("{}-1", 911 + step);
        let mut service = Service::start(stage, &holder, &checkout, "brief", &root, "");
        let driver = wait("the driver", Duration::from_secs(60), || service.driver());
        std::thread::sleep(whole * step / 12);
        let since = Instant::now();
        match told[step as usize % told.len()] {
            None => service.kill_main(Signal::SIGKILL),
            Some(signal) => drop(kill(Pid::from_raw(driver as i32), signal)),
        }
        service.ended(driver, since);
        let code = service.code();
        let there =
            stage.root(&holder, &format!("test -e {}/run.json", proof(&root).display())).status.success();
        // A signal before the first instruction of ours ends it as it ends any program: nothing was begun then.
        let unborn = !there && ["143\n", "130\n", "129\n"].contains(&code.as_str());
        assert!(code == "0\n" || code == "13\n" || unborn, "step {step}: {code}{}", service.file("log"));
        stopped += u32::from(code == "13\n");
        if service.main.try_wait().unwrap().is_none() {
            service.kill_main(Signal::SIGKILL);
        }
        let again = format!(
            "cd {checkout} && assay-gates run --gate brief --resume --no-pack --root {}",
            proof(&root).display()
        );
        succeeded(&stage.root(&holder, &again));
        assert_eq!(sets(&root), sets("910-1"), "step {step}");
    }
    assert!(stopped >= 3, "only {stopped} of 12 were stopped: nothing is shown");
}

/// A power cut and a killed driver leave the same: what was on disk. The recovery at boot says what it is, readers repeat
/// it, and going on in the default place comes to what an undisturbed invocation comes to.
#[test]
fn what_a_killed_driver_left_is_marked_by_the_recovery_told_by_readers_and_gone_on_with() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout =
        stage.checkout(&holder, "stop-cut", &[("cut", "", "echo x > $ASSAY_GATES_WORK/x; sleep 1")]);
    succeeded(&stage.run_gate(&holder, &checkout, "cut", "930-1"));
    let proofs = "/var/lib/assay-gates/proof";
    let sets = |root: &str| {
        succeeded(&stage.root(&holder, &format!("cat {proofs}/{root}/gates/cut/run-?/kernel_set.json")))
    };
    let mut marked = 0;
    for step in 0..6u32 {
        let root = format!("{}-1", 931 + step);
        let at = format!("{proofs}/{root}");
        let mut service = Service::start(stage, &holder, &checkout, "cut", &root, "");
        let driver = wait("the driver", Duration::from_secs(60), || service.driver());
        wait("the record", Duration::from_secs(60), || {
            stage.root(&holder, &format!("test -e {at}/run.json")).status.success().then_some(())
        });
        // Three runs of a second each: somewhere in each of them, and between them.
        std::thread::sleep(Duration::from_millis(600) * step);
        let _done_by_now = kill(Pid::from_raw(driver as i32), Signal::SIGKILL);
        service.code();
        service.kill_main(Signal::SIGKILL);
        let recovered = succeeded(&stage.root(&holder, "assay-gates clean --phase after-run --apply"));
        let record = text(&stage.root(&holder, &format!("cat {at}/run.json")));
        let Ok(record) = serde_json::from_str::<serde_json::Value>(&record) else { continue };
        if record["finished_at"].is_null() {
            marked += 1;
            assert_eq!(record["unfinished"], "its driver ended before it was done");
            assert!(recovered.contains(&format!("unfinished: {at}: its driver ended")), "{recovered}");
            let told = stage.user(&holder, &checkout, "assay-gates list");
            assert!(text(&told).contains(&format!("unfinished: {at}: ")), "{}", text(&told));
            let status = text(&stage.root(&holder, &format!("cat {at}/gates/cut/status.txt")));
            assert_ne!(status, "passed\n");
            let packed = format!(
                "cd {checkout} && assay-gates pack --root {at} --out /srv/home/pack-{root} && assay-gates verify /srv/home/pack-{root}"
            );
            let packed = stage.user(&holder, &checkout, &packed);
            assert!(
                text(&packed).contains("the invocation is unfinished: its driver ended"),
                "{}",
                text(&packed)
            );
        }
        let again = format!("cd {checkout} && assay-gates run --gate cut --resume --no-pack");
        let again = succeeded(&stage.root(&holder, &again));
        assert!(again.contains(&format!("results: {at}\n")), "{again}");
        assert_eq!(sets(&root), sets("930-1"), "step {step}");
        let record: serde_json::Value =
            serde_json::from_str(&text(&stage.root(&holder, &format!("cat {at}/run.json")))).unwrap();
        assert!(record["finished_at"].is_string() && record.get("unfinished").is_none(), "{record}");
    }
    assert!(marked >= 2, "only {marked} of 6 were cut in the middle: nothing is shown");
}
