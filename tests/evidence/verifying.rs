//! `assay-gates verify` on archives, as a user types it.

use crate::fixtures::{RUN, archive};
use assay_gates::files::sha256;
use assert_cmd::Command;
use std::path::PathBuf;

struct Place(tempfile::TempDir);

impl Place {
    fn with(bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.tar.gz"), bytes).unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("run.tar.gz")
    }

    /// Exit code, standard output and error with the folder's name cut out.
    fn verify(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::cargo_bin("assay-gates")
            .unwrap()
            .arg("verify")
            .arg("run.tar.gz")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_whole_archive_verifies_and_says_what_that_means() {
    let bytes = archive();
    let hex = sha256(&bytes).hex();
    let (code, stdout, stderr) = Place::with(&bytes).verify(&["--run-id", RUN, "--sha256", &hex]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout.replace(&hex, "HEX"), @r"
    verified run.tar.gz
      run          run_fixture
      digest       sha256:HEX
      kernel       complete, 5 events, 0 lost
      policy       present, 1 decisions
      sdk          self_reported, 3 events
      correlation  clean
      not shown    authenticity: who wrote these bytes
      not shown    that the measured program did nothing outside of what was observed
    ");
}

#[test]
fn another_run_or_digest_is_refused() {
    let place = Place::with(&archive());
    let (code, stdout, stderr) = place.verify(&["--run-id", "run_other"]);
    assert_eq!((code, stdout.as_str()), (14, ""));
    insta::assert_snapshot!(stderr, @r"
    error[AG401]: manifest.json: expected run_id run_other, found run_fixture
      hint: do not use this archive; measure again
    ");
    let (code, _, stderr) = place.verify(&["--sha256", &"0".repeat(64)]);
    assert_eq!(code, 14);
    assert!(stderr.starts_with("error[AG401]: archive: expected sha256:0000"), "{stderr}");
    assert_eq!(place.verify(&["--sha256", "abc"]).0, 2);
}

#[test]
fn json_lists_everything_that_is_wrong() {
    let mut bytes = archive();
    bytes.push(0);
    let (code, stdout, stderr) = Place::with(&bytes).verify(&["--format", "json"]);
    assert_eq!((code, stderr.as_str()), (14, ""));
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["schema"], "assay.gates.verification.v0");
    assert_eq!((&found["verified"], &found["run_id"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(found["findings"][0]["expected"], "nothing after the gzip stream");
    let (code, stdout, _) = Place::with(&archive()).verify(&["--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &found["verified"], &found["layers"]["kernel"][1]), (0, &true.into(), &5.into()));
}

#[test]
fn what_is_no_archive_is_named() {
    let place = Place::with(b"hello");
    let (code, _, stderr) = place.verify(&[]);
    assert_eq!(code, 14);
    assert!(stderr.contains("found another kind of file"), "{stderr}");
    std::fs::remove_file(place.file()).unwrap();
    assert_eq!(place.verify(&[]).0, 1);
}
