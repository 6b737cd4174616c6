//! What the capture costs: an open/close loop bare, outside the session while attached, inside it, and under other tracers, in one invocation.
//!
//! Run as root with `cargo bench --bench capture`. Every row is the best of several rounds, in the order of the table within each round,
//! so that other work on the machine disturbs all rows alike and least. Ratios are what counts; nanoseconds depend on the machine. On a machine that does other
//! work, `BENCH_CPU=1` counts the loop's own CPU time instead of wall time (which is unfair to nobody but strace, whose work is elsewhere).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and prints"
)]

#[path = "../tests/capture/session.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod session;

use session::Session;
use std::path::Path;
use std::process::{Command, Stdio};

const ROUNDS: usize = 7;
const COUNT: &str = "50000";

struct Row {
    name: &'static str,
    nanoseconds: Vec<f64>,
    note: String,
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    // `cargo bench --bench capture -- inside`: only rows whose name holds the word.
    let only: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let folder = tempfile::tempdir().unwrap();
    let program = session::compile(folder.path(), "loop", include_str!("loop.c"), &[]);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();

    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..ROUNDS {
        let mut put = |name: &'static str, run: &dyn Fn() -> Option<(f64, String)>| {
            let wanted = only.is_empty() || name == "bare" || only.iter().any(|word| name.contains(word));
            let Some((nanoseconds, note)) = wanted.then(run).flatten() else { return };
            match rows.iter_mut().find(|row: &&mut Row| row.name == name) {
                Some(row) => row.nanoseconds.push(nanoseconds),
                None => rows.push(Row { name, nanoseconds: vec![nanoseconds], note }),
            }
        };
        put("bare", &|| Some((bare(&program, &file), String::new())));
        put("assay-gates, outside the session", &|| Some((outside(&program, &file), String::new())));
        put("assay-gates, inside the session", &|| Some(inside(&program, &file)));
        put("bpftrace (openat)", &|| bpftrace(&program, &file));
        put("perf trace (openat)", &|| {
            tool(&["perf", "trace", "-o", "/dev/null", "-e", "openat"], &program, &file)
        });
        let strace = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=openat"];
        put("strace -f --seccomp-bpf (openat)", &|| tool(&strace, &program, &file));
    }
    let best = |row: &Row| row.nanoseconds.iter().copied().fold(f64::INFINITY, f64::min);
    let bare = best(&rows[0]);
    println!("open/close loop, {COUNT} iterations, best of {ROUNDS} rounds\n");
    println!("{:<36} {:>10} {:>7}  records", "", "ns/iter", "ratio");
    for row in &rows {
        let value = best(row);
        println!("{:<36} {value:>10.0} {:>7.2}  {}", row.name, value / bare, row.note);
    }
}

fn nanoseconds(output: &[u8]) -> Option<f64> {
    let column = if std::env::var_os("BENCH_CPU").is_some() { 2 } else { 0 };
    std::str::from_utf8(output).ok()?.split_whitespace().nth(column)?.parse().ok()
}

fn bare(program: &Path, file: &Path) -> f64 {
    nanoseconds(&Command::new(program).arg(file).args([COUNT, "1"]).output().unwrap().stdout).unwrap()
}

fn outside(program: &Path, file: &Path) -> f64 {
    let session = Session::new();
    let recorder = session.arm(&session.options());
    let value = bare(program, file);
    drop(recorder);
    value
}

fn inside(program: &Path, file: &Path) -> (f64, String) {
    let session = Session::new();
    let recorder = session.arm(&session.options());
    let output = session.work.path().join("output");
    let mut command = Command::new(program);
    command.arg(file).args([COUNT, "1"]).stdout(Stdio::from(std::fs::File::create(&output).unwrap()));
    let recording = session.measure(recorder, &mut command);
    let summary = &recording.summary;
    let opens = summary.hooks["openat"].emitted;
    let state = if summary.proof.complete { "complete" } else { "INCOMPLETE" };
    (
        nanoseconds(&std::fs::read(output).unwrap()).unwrap(),
        format!("{opens} opens, {} lost, {state}", summary.ringbuf_drops),
    )
}

fn bpftrace(program: &Path, file: &Path) -> Option<(f64, String)> {
    let script = r#"tracepoint:syscalls:sys_enter_openat { printf("%d %s\n", pid, str(args->filename)); }"#;
    let command = format!("{} {} {COUNT} 1", program.display(), file.display());
    let run = Command::new("bpftrace")
        .args(["-o", "/dev/null", "-e", script, "-c", &command])
        .env("BPFTRACE_PERF_RB_PAGES", "4096")
        .output()
        .ok()?;
    let lost = String::from_utf8_lossy(&run.stderr).lines().any(|line| line.contains("Lost"));
    Some((nanoseconds(&run.stdout)?, if lost { "lost events".into() } else { String::new() }))
}

fn tool(words: &[&str], program: &Path, file: &Path) -> Option<(f64, String)> {
    let (tool, arguments) = words.split_first()?;
    let run = Command::new(tool).args(arguments).arg(program).arg(file).args([COUNT, "1"]).output().ok()?;
    Some((nanoseconds(&run.stdout)?, String::new()))
}
