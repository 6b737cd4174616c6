//! What the proxy costs: one call to a server that does nothing, directly, through the proxy, and through the decider of
//! a driver that measures the server and stamps each effect with its call.
//!
//! Run with `cargo bench --bench proxy`; the last row needs root. Rounds are interleaved, so that a noisy machine
//! disturbs all rows alike. Ratios are what counts; a real tool takes milliseconds, not the microseconds of this one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and prints"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 7;
const CALLS: usize = 2000;
const PAYLOAD: usize = 1024 * 1024;

#[cfg(feature = "capture")]
#[path = "../tests/policy/starter.rs"]
mod starter;

fn main() {
    if std::env::args().any(|argument| argument == "--server") {
        return serve();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("policy.yaml"),
        "schema: assay.gates.policy.v0\ndefault: deny\ntools: {allow: [echo]}\n",
    )
    .unwrap();
    let mut rows: Vec<(&str, usize, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut put = |name, bytes, micros: Option<f64>| {
            let Some(micros) = micros else { return };
            match rows.iter_mut().find(|row| row.0 == name) {
                Some(row) => row.2.push(micros),
                None => rows.push((name, bytes, vec![micros])),
            }
        };
        put("direct", 0, Some(time(server(), CALLS, 0)));
        put("proxy", 0, Some(time(proxy(folder.path()), CALLS, 0)));
        put("decider, a window per call", 0, windows(folder.path()));
        put("direct, 1 MiB", PAYLOAD, Some(time(server(), 20, PAYLOAD)));
        put("proxy, 1 MiB", PAYLOAD, Some(time(proxy(folder.path()), 20, PAYLOAD)));
    }
    println!("one tools/call to a server that does nothing, median of {ROUNDS} rounds\n");
    println!("{:<28} {:>10} {:>7}", "", "µs/call", "ratio");
    for (name, bytes, micros) in &rows {
        let direct = rows.iter().find(|row| row.0.starts_with("direct") && row.1 == *bytes).unwrap();
        println!("{name:<28} {:>10.1} {:>7.2}", median(micros), median(micros) / median(&direct.2));
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Answers each line with a small result.
fn serve() {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    while input.read_line(&mut line).unwrap() > 0 {
        let id = line.split_once("\"id\":").unwrap().1.split_once(',').unwrap().0;
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n");
        std::io::stdout().write_all(answer.as_bytes()).unwrap();
        std::io::stdout().flush().unwrap();
        line.clear();
    }
}

fn server() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--server");
    command
}

fn proxy(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
    command.args(["mcp-wrap", "--policy"]).arg(folder.join("policy.yaml"));
    command.arg("--decision-log").arg(folder.join("decisions.ndjson")).arg("--");
    command.arg(std::env::current_exe().unwrap()).arg("--server").env_remove("ASSAY_GATES_CONTROL");
    command
}

/// Microseconds per call, after a first one that is not counted.
fn time(mut command: Command, calls: usize, payload: usize) -> f64 {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let text = "p".repeat(payload);
    call(&mut input, &mut output, 0, &text);
    let start = Instant::now();
    for id in 1..=calls {
        call(&mut input, &mut output, id, &text);
    }
    let elapsed = start.elapsed();
    end(child, input);
    elapsed.as_secs_f64() * 1e6 / calls as f64
}

fn call(input: &mut ChildStdin, output: &mut BufReader<ChildStdout>, id: usize, text: &str) {
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\"arguments\":{{\"text\":\"{text}\"}}}}}}\n"
    );
    input.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    output.read_line(&mut answer).unwrap();
    assert!(answer.contains("\"result\""), "{answer}");
}

fn end(mut child: Child, input: ChildStdin) {
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[cfg(feature = "capture")]
fn windows(folder: &Path) -> Option<f64> {
    use assay_gates::capture::{ArmOptions, Recorder};
    use assay_gates::host::calls::{CallConfig, ControlSocket, Policies};
    use assay_gates::host::cgroup::SessionCgroup;
    use assay_gates::policy::Policy;
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let run = tempfile::tempdir().unwrap();
    let cgroup = std::sync::Arc::new(SessionCgroup::create(&assay_gates::gate::Limits::default()).unwrap());
    let control = ControlSocket::open(CallConfig {
        socket: run.path().join("control.sock"),
        log: run.path().join("decisions.ndjson"),
        policies: Policies::one(Policy::read(&folder.join("policy.yaml")).unwrap()),
    })
    .unwrap();
    let spool = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::arm(&ArmOptions::new("bench", cgroup.path(), spool.path())).unwrap();
    recorder.begin().unwrap();
    let starter = Box::new(starter::CgroupStarter(std::sync::Arc::clone(&cgroup)));
    let server = control.serve(recorder.calls(), starter).unwrap();
    let inner = proxy(folder);
    let mut outer = Command::new("sh");
    outer.args(["-c", "echo 0 > \"$0\" && exec \"$@\""]).arg(cgroup.path().join("cgroup.procs"));
    outer.arg(inner.get_program()).args(inner.get_args()).env_remove("LD_LIBRARY_PATH");
    outer.env("ASSAY_GATES_CONTROL", run.path().join("control.sock"));
    let micros = time(outer, CALLS, 0);
    let report = server.finish();
    assert!(report.windows.len() == CALLS + 1 && report.windows.iter().all(|w| !w.ambiguous), "{report:?}");
    Some(micros)
}

#[cfg(not(feature = "capture"))]
fn windows(_folder: &Path) -> Option<f64> {
    None
}
