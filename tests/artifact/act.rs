//! The artifact server of nektos/act: an independent implementation, strict where GitHub is lenient.

use crate::harness::{NAME, TestClock, request, token, zip_of};
use assay_gates::github::artifact::{Backoff, Proof, Service, Timeouts, upload};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

struct Act {
    child: Child,
    address: String,
    stored: PathBuf,
    _folder: tempfile::TempDir,
}

impl Act {
    /// Starts act with a job that waits: its artifact server lives as long as the job does.
    fn start() -> Option<Self> {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/act/bin/act");
        if !binary.exists() {
            assert!(std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(), "scripts/setup.sh test installs act");
            eprintln!("SKIPPED: target/tools/act is missing (make test-tools)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let workflow = folder.path().join(".github/workflows/wait.yml");
        std::fs::create_dir_all(workflow.parent().unwrap()).unwrap();
        let steps = "echo server-is-up; exec sleep 600";
        std::fs::write(
            &workflow,
            format!(
                "on: push\njobs:\n  wait:\n    runs-on: ubuntu-latest\n    steps:\n      - run: {steps}\n"
            ),
        )
        .unwrap();
        for arguments in [
            &["init", "-q"][..],
            &[
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "commit",
                "-q",
                "--allow-empty",
                "-m",
                "x",
            ],
        ] {
            assert!(
                Command::new("git").args(arguments).current_dir(folder.path()).status().unwrap().success()
            );
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let stored = folder.path().join("stored");
        #[allow(clippy::zombie_processes, reason = "killed and waited for when the server is dropped")]
        let mut child = Command::new(binary)
            .args(["push", "-P", "ubuntu-latest=-self-hosted", "--artifact-server-addr", "127.0.0.1"])
            .args(["--artifact-server-port", &port, "--no-cache-server", "--artifact-server-path"])
            .arg(&stored)
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut seen = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line.contains("server-is-up") && line.contains('|') {
                let address = format!("http://127.0.0.1:{port}");
                return Some(Self { child, address, stored, _folder: folder });
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("act ended before its job ran:\n{seen}");
    }
}

impl Drop for Act {
    fn drop(&mut self) {
        // act ends its job's processes when it is asked to end; a killed one would leave the `sleep` behind.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ended_already = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _reaped = self.child.wait();
    }
}

#[test]
fn an_upload_to_act_is_stored_whole_read_back_and_replaced_on_request() {
    let Some(act) = Act::start() else { return };
    let service = Service::new(&act.address, &act_token(), Timeouts::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let send = |bytes: usize, overwrite: bool| {
        let mut wanted = request(&zip_of(folder.path(), bytes));
        wanted.overwrite = overwrite;
        wanted.retention_days = Some(5);
        runtime.block_on(upload(&service, &wanted, &Backoff::default(), &TestClock::default(), &mut |_| {}))
    };
    // Two blocks: act appends them as they come.
    let first = send(8 * 1024 * 1024 + 5, false).unwrap();
    assert_eq!(first.proof, Proof::Download, "its listing has no digest, so every byte was read back");
    let file = find(&act.stored, &format!("{NAME}.zip")).expect("a stored file");
    assert_eq!(assay_gates::files::sha256_file(&file).unwrap(), (first.digest, first.bytes));

    let refused = send(10, false).unwrap_err();
    assert_eq!(refused.code(), assay_gates::error::Code::ArtifactExists);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), first.bytes, "the first is as it was");

    let second = send(10, true).unwrap();
    assert_eq!(assay_gates::files::sha256_file(&file).unwrap(), (second.digest, 10));
}

/// act wants numbers for the two ids.
fn act_token() -> assay_gates::github::artifact::RuntimeToken {
    token()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
    }
    None
}
