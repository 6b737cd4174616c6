//! What the driver adds: wall time of `run` over the time that the bare fixtures take, in one invocation.
//!
//! Bare is a gate's command by itself: no capture, no cgroup, no sandbox but the mounts that put its folders where it
//! looks for them. Both are done as often, gate after gate, and take turns, so that other work on the machine disturbs
//! both alike; the round with the median ratio counts.

use assay_gates::gate::{Catalog, Entry, dependencies};
use assay_gates::host::{FIXTURE, WORK, environment};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
/// Measured runs of each gate in one invocation of `run`.
const RUNS: u32 = 3;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: measuring needs root");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let record = median(|| {
        let archive = work.path().join("runner-bench.tar.gz");
        let _absent_the_first_time = std::fs::remove_file(&archive);
        let mut record = tool();
        record.args(["record", "--run-id", "bench", "--output"]).arg(&archive);
        record.args(["--", "/bin/true"]).stdout(Stdio::null()).stderr(Stdio::null());
        timed(&mut record)
    });
    println!("record -- /bin/true:          {:8.1} ms", milliseconds(record));
    for gates in ["kernel-only", "all"] {
        let selection = Catalog::load(Path::new("gates")).unwrap().select(&[gates.to_owned()]).unwrap().gates;
        let mut rounds: Vec<Round> = (0..ROUNDS)
            .map(|number| {
                let bare = bare_fixtures(selection.clone());
                // A new root each time: a file system may make files slowly while it remembers those just deleted.
                let (wall, trees) = whole_run(gates, &work.path().join(format!("{gates}-{number}")));
                Round { bare, wall, trees }
            })
            .collect();
        rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let median = &rounds[ROUNDS / 2];
        println!(
            "run --gates {gates:<12} wall: {:8.1} ms, bare fixtures {:8.1} ms, ratio {:.2} ({:.2} to {:.2})",
            milliseconds(median.wall),
            milliseconds(median.bare.iter().sum()),
            median.ratio(),
            rounds[0].ratio(),
            rounds[ROUNDS - 1].ratio(),
        );
        for ((entry, bare), tree) in selection.iter().zip(&median.bare).zip(&median.trees) {
            let (bare, tree) = (milliseconds(*bare), milliseconds(*tree));
            println!("  {:<36} bare: {bare:8.1} ms, measured {tree:8.1} ms", entry.definition.id);
        }
    }
}

/// Both, one after the other.
struct Round {
    /// Of each gate.
    bare: Vec<Duration>,
    /// Of the whole command.
    wall: Duration,
    /// That the measured trees of each gate lived.
    trees: Vec<Duration>,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.wall.as_secs_f64() / self.bare.iter().sum::<Duration>().as_secs_f64()
    }
}

/// The time of each gate's command by itself, as often as it is measured, run in a mount namespace of a thread of its own.
fn bare_fixtures(gates: Vec<Entry>) -> Vec<Duration> {
    let alone = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
        for folder in [FIXTURE, WORK] {
            std::fs::create_dir_all(folder).unwrap();
        }
        gates.iter().map(|gate| (0..RUNS).map(|_| bare_fixture(gate)).sum()).collect()
    };
    std::thread::spawn(alone).join().unwrap()
}

fn bare_fixture(gate: &Entry) -> Duration {
    let none = None::<&str>;
    mount(Some(&gate.fixture()), FIXTURE, none, MsFlags::MS_BIND, none).unwrap();
    let interpreters = dependencies::Inspector::default().inspect(gate).unwrap().ready().unwrap();
    let definition = &gate.definition;
    let words = dependencies::expand(&definition.command, &interpreters, Path::new(FIXTURE)).unwrap();
    let logs = tempfile::tempdir().unwrap();
    for (name, text) in &definition.seed {
        std::fs::write(Path::new(WORK).join(name), text).unwrap();
    }
    let mut agent = Command::new(&words[0]);
    agent
        .args(&words[1..])
        .current_dir(WORK)
        .env_clear()
        .envs(environment::of_gate(&definition.env))
        .env("HOME", WORK)
        .env("ASSAY_GATES_BIN", env!("CARGO_BIN_EXE_assay-gates"))
        .env("ASSAY_GATES_WORK", WORK)
        .env("ASSAY_GATES_FIXTURE", FIXTURE)
        .env("ASSAY_RUNNER_RUN_ID", &definition.run_id)
        .env("ASSAY_RUNNER_SDK_EVENT_LOG", logs.path().join("sdk-events.ndjson"))
        .env("ASSAY_RUNNER_SDK_EVENT_SCHEMA", assay_gates::evidence::contract::schema::SDK_EVENT)
        .env("ASSAY_RUNNER_POLICY_DECISION_LOG", logs.path().join("policy-decisions.ndjson"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let time = timed(&mut agent);
    umount2(FIXTURE, MntFlags::MNT_DETACH).unwrap();
    for entry in std::fs::read_dir(WORK).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    time
}

/// Wall time of the command, and for each gate the time that its measured trees lived, over all runs.
fn whole_run(gates: &str, root: &Path) -> (Duration, Vec<Duration>) {
    let mut run = tool();
    run.args(["run", "--gates", gates, "--runs", &RUNS.to_string(), "--format", "json", "--root"]);
    run.arg(root);
    let began = Instant::now();
    let output = run.output().unwrap();
    let wall = began.elapsed();
    // Only a run that passed has a time that means anything.
    assert!(output.status.success(), "run --gates {gates}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lived = |gate: &Value| {
        let runs = gate["runs"].as_array().unwrap().iter();
        Duration::from_millis(runs.map(|run| run["elapsed_ms"].as_u64().unwrap()).sum())
    };
    (wall, report["verdicts"].as_array().unwrap().iter().map(lived).collect())
}

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_assay-gates"))
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    assert!(command.status().unwrap().success(), "{command:?}");
    began.elapsed()
}

fn median(mut round: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
