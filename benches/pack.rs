//! What hashing, packing and reading back cost, beside `sha256sum` and `zip` in the same invocation; and what a pack of
//! 10 GiB, the largest that is promised, takes of memory and of 64-bit sizes.
//!
//! Run with `cargo bench --bench pack`; needs 11 GiB of disk below `target`. Rounds are interleaved, so that a noisy machine
//! disturbs all rows alike. Ratios are what counts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise and prints"
)]

#[path = "../tests/support/answers.rs"]
#[allow(dead_code, reason = "the server's; nothing asks it over REST here")]
mod answers;
#[path = "../tests/artifact/server.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod server;

use assay_gates::files::sha256_file;
use assay_gates::pack::{Source, zip_folder};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use server::{Kind, Server};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const FILES: usize = 16;
const FILE_BYTES: usize = 8 * 1024 * 1024;
/// Payload of the largest pack.
const LARGEST: u64 = 10 << 30;
/// What its upload may take above that of a small one.
const ALLOWANCE_KIB: u64 = 64 * 1024;

fn main() {
    let folder = scratch();
    let pack = folder.path().join("pack");
    fill(&pack);
    let one = folder.path().join("one");
    join(&pack, &one);
    let zip = folder.path().join("ours.zip");
    let mut rows: Vec<(&str, &str, Vec<f64>)> = Vec::new();
    for _ in 0..ROUNDS {
        let mut put = |name, peer, seconds: f64| match rows.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.2.push(seconds),
            None => rows.push((name, peer, vec![seconds])),
        };
        put("sha256sum", "sha256sum", time(|| run(Command::new("sha256sum").arg(&one))));
        put("hash", "sha256sum", time(|| assert!(sha256_file(&one).is_ok())));
        let theirs = folder.path().join("theirs.zip");
        let _none_before = std::fs::remove_file(&theirs);
        let mut command = Command::new("zip");
        command.args(["-q", "-r", "-6", "-n", ".gz"]).arg(&theirs).arg(".").current_dir(&pack);
        put("zip -6", "zip -6", time(|| run(&mut command)));
        put("pack", "zip -6", time(|| zip_folder(&pack, &zip).unwrap()));
        put("read back", "zip -6", time(|| read(&zip)));
    }
    let bytes = (FILES * FILE_BYTES) as f64;
    println!("{} MiB of effects as NDJSON, median of {ROUNDS} rounds\n", bytes / 1048576.0);
    println!("{:<12} {:>8} {:>8} {:>22}", "", "seconds", "MiB/s", "");
    for (name, peer, seconds) in &rows {
        let peer_seconds = median(&rows.iter().find(|row| row.0 == *peer).unwrap().2);
        let seconds = median(seconds);
        let speed = bytes / 1048576.0 / seconds;
        println!("{name:<12} {seconds:>8.3} {speed:>8.0} {:>10.2} x {peer}", peer_seconds / seconds);
    }
    println!("\nzip: {} bytes by `zip -6`, {} by ours", size(&folder.path().join("theirs.zip")), size(&zip));
    largest();
}

/// On the disk of the build, since `/tmp` may be memory.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A pack whose zip and whose one entry pass 4 GiB: zipped and uploaded in bounded memory, and read back whole.
fn largest() {
    let small = upload(1 << 20);
    let large = upload(LARGEST);
    let zip = large.folder.path().join("pack.zip");
    let seconds = time(|| {
        let source = Source::open(&zip).unwrap();
        assert_eq!(source.members()["payload/a.gz"], LARGEST);
        assert_eq!(source.text("payload/b.txt").unwrap(), "after");
        source.digest("payload/a.gz").unwrap();
    });
    println!(
        "\na pack of 10 GiB: {} bytes of zip, zipped and uploaded in {:.1} s, read back whole in {seconds:.1} s",
        size(&zip),
        large.seconds
    );
    println!("peak memory: {} KiB for 10 GiB, {} KiB for 1 MiB", large.peak_kib, small.peak_kib);
    assert!(
        large.peak_kib.saturating_sub(small.peak_kib) <= ALLOWANCE_KIB,
        "more than {ALLOWANCE_KIB} KiB above a small one"
    );
}

/// Lines as a run leaves them.
fn fill(pack: &Path) {
    let mut number = 0_u64;
    for file in 0..FILES {
        let mut text = String::with_capacity(FILE_BYTES + 300);
        while text.len() < FILE_BYTES {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!(
                "{{\"schema\":\"assay.gates.effect.v0\",\"run_id\":\"run_bench\",\"seq\":{},\"time_ns\":{number},\"operation\":\"open\",\"path\":{{\"value\":\"/run/assay-gates/work/f{}\",\"state\":\"resolved\"}}}}\n",
                number >> 40,
                number >> 48
            ));
        }
        text.truncate(FILE_BYTES);
        let place = pack.join(format!("payload/gates/g/run-{file}/effects.ndjson"));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, text).unwrap();
    }
}

fn join(pack: &Path, one: &Path) {
    let mut out = std::fs::File::create(one).unwrap();
    for file in 0..FILES {
        let mut part =
            std::fs::File::open(pack.join(format!("payload/gates/g/run-{file}/effects.ndjson"))).unwrap();
        std::io::copy(&mut part, &mut out).unwrap();
    }
}

fn read(zip: &Path) {
    let source = Source::open(zip).unwrap();
    for name in source.members().keys() {
        source.digest(name).unwrap();
    }
}

struct Upload {
    /// `pack`, and `pack.zip` as it was uploaded.
    folder: tempfile::TempDir,
    peak_kib: u64,
    seconds: f64,
}

/// `assay-gates upload` of a pack with so many bytes of payload.
fn upload(bytes: u64) -> Upload {
    let folder = scratch();
    let payload = folder.path().join("pack/payload");
    std::fs::create_dir_all(&payload).unwrap();
    std::fs::write(folder.path().join("pack/manifest.json"), "{}\n").unwrap();
    // `.gz` is stored, so that the zip is as large as what is in it.
    std::fs::File::create(payload.join("a.gz")).unwrap().set_len(bytes).unwrap();
    std::fs::write(payload.join("b.txt"), "after").unwrap();
    let server = Server::start_keeping(Kind::Github, false);
    let claims = URL_SAFE_NO_PAD.encode(r#"{"scp":"Actions.Results:11:22"}"#);
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["upload", "pack"])
        .current_dir(folder.path())
        .env("ACTIONS_RESULTS_URL", &server.address)
        .env("ACTIONS_RUNTIME_TOKEN", format!("e30.{claims}.x"))
        .env("GITHUB_RUN_ID", "42")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak_kib = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kib = peak_kib.max(mark.map_or(0, |text| text.replace("kB", "").trim().parse().unwrap()));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return Upload { folder, peak_kib, seconds: start.elapsed().as_secs_f64() };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn time(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn run(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
