//! What the driver adds: wall time of `run` over the time that the fixtures themselves take.
//!
//! The smallest fixture is also run bare, beside the tool, in the same invocation. A fixture that needs the sandbox
//! (its paths, its proxy) can't run bare; for those the time that their own processes lived counts, as the kernel saw it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: measuring needs root");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let bare = median(|| {
        let mut agent = Command::new("/bin/sh");
        agent.arg("gates/kernel-only/agent.sh").env("ASSAY_GATES_WORK", work.path()).stdout(Stdio::null());
        timed(&mut agent)
    });
    println!("kernel-only, bare:            {:8.1} ms", milliseconds(bare));
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
        let mut best: Option<(Duration, Duration)> = None;
        for _ in 0..3 {
            let found = whole_run(gates, &work.path().join("root"));
            if best.is_none_or(|(wall, _)| found.0 < wall) {
                best = Some(found);
            }
        }
        let (wall, fixtures) = best.unwrap();
        println!(
            "run --gates {gates:<12} wall: {:8.1} ms, fixtures {:8.1} ms, ratio {:.2} (best of 3)",
            milliseconds(wall),
            milliseconds(fixtures),
            wall.as_secs_f64() / fixtures.as_secs_f64()
        );
    }
}

/// Wall time of the command, and the time that its measured trees lived, over all runs.
fn whole_run(gates: &str, root: &Path) -> (Duration, Duration) {
    let _absent_the_first_time = std::fs::remove_dir_all(root);
    let mut run = tool();
    run.args(["run", "--gates", gates, "--format", "json", "--root"]).arg(root).stderr(Stdio::null());
    let began = Instant::now();
    let output = run.output().unwrap();
    let wall = began.elapsed();
    assert!(output.status.success(), "run --gates {gates} must pass before its time means anything");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs =
        report["verdicts"].as_array().unwrap().iter().flat_map(|gate| gate["runs"].as_array().unwrap());
    let fixtures = runs.map(|run| run["elapsed_ms"].as_u64().unwrap()).sum();
    (wall, Duration::from_millis(fixtures))
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
