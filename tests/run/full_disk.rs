//! The command on disks that are full for real: at the results, at the records of the kernel, at standard output.

#[path = "../support/disk.rs"]
mod disk;

use crate::support;
use assert_cmd::cargo::CommandCargoExt;
use disk::Disk;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn tool(state: &Path) -> Command {
    let mut command = Command::cargo_bin("assay-gates").unwrap();
    command.env("ASSAY_GATES_STATE_DIR", state).env_remove("GITHUB_ACTIONS");
    command
}

fn run(root: &Path, state: &Path, more: &[&str]) -> Output {
    let mut command = tool(state);
    command.args(["run", "--gate", "kernel-only", "--runs", "2", "--root"]).arg(root).args(more);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn triaged(root: &Path) -> Value {
    let output = tool(root).args(["triage", "--format", "json"]).arg(root).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `run` said when the disk was full: its code, the hint, and neither a verdict nor a claim.
fn says_full(output: &Output, what: &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(40), "{what}: {err}");
    assert!(err.contains("error[AG006]: ") && err.contains("  hint: "), "{what}: {err}");
    assert!(!out.contains("passed") && !out.contains("earned"), "{what}: {out}");
}

#[test]
fn a_root_on_a_full_disk_says_so_and_the_line_that_is_printed_goes_on() {
    if !support::need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let mut seen = 0;
    for size in [40, 90, 130, 180, 260, 400, 560, 700, 860] {
        let disk = Disk::new(&format!("size={size}k"));
        let root = disk.join("root");
        let output = run(&root, &state, &[]);
        if output.status.success() {
            assert_eq!(triaged(&root)["class"], "passed", "{size}");
            continue;
        }
        says_full(&output, &size.to_string());
        if !root.join("run.json").is_file() {
            continue;
        }
        let found = triaged(&root);
        assert_eq!(
            (&found["class"], &found["confidence"]),
            (&"disk_full".into(), &"certain".into()),
            "{found:#}"
        );
        seen += 1;
        if seen == 2 {
            disk.resize("size=64m");
            let err = text(&output.stderr);
            let line = err.split("go on with: ").nth(1).unwrap().lines().next().unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(&words[..2], ["sudo", "assay-gates"], "{line}");
            let again = tool(&state).args(&words[2..]).output().unwrap();
            assert_eq!(again.status.code(), Some(0), "{line}: {}", text(&again.stderr));
            assert_eq!(triaged(&root)["class"], "passed");
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn records_that_find_no_room_are_a_full_disk_and_no_incomplete_capture() {
    if !support::need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for options in ["size=4k", "size=16k", "size=24k", "size=1m,nr_inodes=4", "size=1m,nr_inodes=7"] {
        let disk = Disk::new(options);
        let root = home.path().join(format!("root-{options}"));
        let output = run(&root, disk.path(), &["--no-pack"]);
        if !output.status.success() {
            says_full(&output, options);
        }
        let output = tool(disk.path())
            .current_dir(home.path())
            .args([
                "record",
                "--output",
                "x.tar.gz",
                "--",
                "/bin/sh",
                "-c",
                "i=0; while [ $i -lt 300 ]; do : < /etc/passwd; i=$((i+1)); done",
            ])
            .output()
            .unwrap();
        let archive = home.path().join("x.tar.gz");
        if output.status.success() {
            let verified = tool(disk.path()).arg("verify").arg(&archive).output().unwrap();
            assert!(verified.status.success(), "{options}: {}", text(&verified.stderr));
            std::fs::remove_file(archive).unwrap();
        } else {
            says_full(&output, options);
            assert!(!archive.exists(), "{options}");
        }
    }
}

#[test]
fn an_archive_that_finds_no_room_leaves_the_earlier_one_alone() {
    if !support::need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let record = |disk: &Disk| {
        let script = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done";
        let mut command = tool(&state);
        command.current_dir(disk.path());
        command.args(["record", "--output", "x.tar.gz", "--effects", "all", "--", "/bin/sh", "-c", script]);
        command.output().unwrap()
    };
    for size in [4, 8, 16, 28] {
        let disk = Disk::new(&format!("size={size}k"));
        std::fs::write(disk.join("x.tar.gz"), "earlier").unwrap();
        says_full(&record(&disk), &size.to_string());
        assert_eq!(std::fs::read(disk.join("x.tar.gz")).unwrap(), b"earlier");
        disk.resize("size=8m");
        let output = record(&disk);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

#[test]
fn what_standard_output_does_not_take_is_no_success() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for arguments in [
        &["list"][..],
        &["explain", "disk_full"],
        &["--version"],
        &["--help"],
        &["run", "--gate", "kernel-only", "--dry-run"],
        &["triage", "README.md", "--format", "json"],
        &["completions", "bash"],
    ] {
        let output = tool(here).current_dir(here).args(arguments).stdout(full()).output().unwrap();
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(40), "{arguments:?}: {err}");
        assert!(err.contains("error[AG006]: standard output: "), "{arguments:?}: {err}");
    }
}
