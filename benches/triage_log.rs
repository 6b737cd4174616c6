//! A gibibyte of log through triage's reader and through the whole command, beside `unzip -p | grep` on the same zip.
//!
//! `cargo bench --bench triage_log`. `ASSAY_GATES_BENCH_MIB` sets the size.

use assay_gates::triage::{Rules, gather};
use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mebibytes: u64 =
        std::env::var("ASSAY_GATES_BENCH_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("logs.zip");
    let length = write_log(&path, mebibytes << 20)?;
    let rules = Rules::embedded()?;
    let rate = |seconds: f64| {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let mebibytes = length as f64 / f64::from(1 << 20);
        mebibytes / seconds
    };
    let out = |text: &str| writeln!(std::io::stdout(), "{text}");

    let begun = Instant::now();
    let (read, missing) = gather::read_logs(&mut gather::Tree::open(&path)?, rules.patterns());
    let seconds = begun.elapsed().as_secs_f64();
    let hits: usize = read.iter().map(|(_, scan)| scan.hits.len()).sum();
    out(&format!(
        "triage: {seconds:.2} s, {:.0} MiB/s, {hits} hits, {} unreadable",
        rate(seconds),
        missing.len()
    ))?;
    out(&format!("peak memory: {}", peak()))?;

    let begun = Instant::now();
    let told = Command::new(env!("CARGO_BIN_EXE_assay-gates")).arg("triage").arg(&path).output()?;
    let seconds = begun.elapsed().as_secs_f64();
    let told = String::from_utf8(told.stdout)?;
    let first = told.lines().next().unwrap_or_default();
    if !first.starts_with("evidence_invalid ") {
        return Err(format!("the error at the end of the log was not found: {first}").into());
    }
    out(&format!("assay-gates triage logs.zip: {seconds:.2} s, {:.0} MiB/s: {first}", rate(seconds)))?;

    let begun = Instant::now();
    let mut unzip = Command::new("unzip").arg("-p").arg(&path).stdout(Stdio::piped()).spawn()?;
    let text = unzip.stdout.take().ok_or("no output of unzip")?;
    let grep = Command::new("grep")
        .args(["-c", "-E", r"error\[AG[0-9]{3}\]|Process completed with exit code"])
        .stdin(text)
        .output()?;
    unzip.wait()?;
    let seconds = begun.elapsed().as_secs_f64();
    out(&format!(
        "unzip -p | grep -c -E (two patterns): {seconds:.2} s, {:.0} MiB/s, {} lines",
        rate(seconds),
        String::from_utf8_lossy(&grep.stdout).trim()
    ))?;
    Ok(())
}

/// A log as a build writes it: times, paths, some colour, an error at the end.
fn write_log(path: &std::path::Path, wanted: u64) -> Result<u64, Box<dyn Error>> {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path)?);
    let options = zip::write::SimpleFileOptions::default().large_file(true);
    zip.start_file("Measure/4_Gate kernel-only.txt", options)?;
    let mut length = 0u64;
    let mut line = 0u64;
    let mut block = String::new();
    while length < wanted {
        block.clear();
        for _ in 0..5000 {
            line += 1;
            let (second, fraction) = (line / 1000 % 60, line % 10_000_000);
            let colour = if line.is_multiple_of(50) { "\u{1b}[32m" } else { "" };
            block.push_str(&format!(
                "2026-02-03T12:43:{second:02}.{fraction:07}Z {colour}   Compiling crate-{} v0.{}.{} (/opt/actions-runner/_work/r/r/{line:x})\n",
                line % 997, line % 13, line % 7
            ));
        }
        length += block.len() as u64;
        zip.write_all(block.as_bytes())?;
    }
    let end = "2026-02-03T12:44:00.0000000Z error[AG401]: evidence does not verify\n2026-02-03T12:44:00.0000000Z ##[error]Process completed with exit code 14.\n";
    zip.write_all(end.as_bytes())?;
    zip.finish()?;
    Ok(length + end.len() as u64)
}

/// The largest resident size so far, from the kernel.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim_start_matches("VmHWM:").trim().to_owned())
}
