//! A machine in a folder on which `.github/workflows/gates.yml` runs unchanged: nektos/act in host mode stands for the
//! runner, its artifact server for the artifact service. Real are the workflow, the binary, the kernel and the SDKs;
//! three things are stood in for: `sudo` (an empty environment, as sudoers leaves it), the store of built binaries (hands
//! over the one that this test was built with; `tests/roothalf` has the real ones) and actions/attest (needs GitHub).

use crate::{here, succeeds, tool};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Stage {
    folder: tempfile::TempDir,
}

/// How a workflow run ended, and everything that it printed.
pub struct Ended {
    pub success: bool,
    pub log: String,
}

/// The environment that a sudoers file with env_reset leaves, and what the drop-in of `host install` keeps.
const SUDO: &str = r#"#!/usr/bin/env node
const { spawnSync } = require('node:child_process');
const words = process.argv.slice(2);
while (words[0]?.startsWith('-')) words.shift();
const kept = /^(PATH|CI|RUNNER_ENVIRONMENT|GITHUB_(?!TOKEN)[A-Z_]+|ASSAY_GATES_(SELECTION|HOST_FILE|STATE_DIR))$/;
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => kept.test(name)));
const done = spawnSync(words[0], words.slice(1), { env, stdio: 'inherit' });
process.exit(done.status ?? 1);
"#;

impl Stage {
    /// Checks the repository out as it is in the work tree, committed, with the fixtures' packages beside it.
    pub fn new() -> Self {
        let stage = Self { folder: tempfile::Builder::new().prefix("act-").tempdir().unwrap() };
        for folder in ["bin", "attest", "artifacts", "runner/_work/app/app", "proof", "scratch", "state"] {
            std::fs::create_dir_all(stage.path(folder)).unwrap();
        }
        // The measured user must be able to walk down to its fixture.
        std::fs::set_permissions(stage.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        stage.check_out();
        stage.program("sudo", SUDO);
        let binary = env!("CARGO_BIN_EXE_assay-gates");
        let builds = stage.path("builds").display().to_string();
        stage.program(
            "assay-gates",
            &format!(
                "#!/bin/sh\nset -e\nif [ \"$1 $2\" = 'host build' ]; then mkdir -p {builds}/$4; ln -sf {binary} {builds}/$4/assay-gates; exit; fi\n\
                 if [ \"$1\" = built ]; then test -e {builds}/$2/assay-gates; shift 2; fi\nexec {binary} \"$@\"\n"
            ),
        );
        std::fs::write(
            stage.path("attest/action.yml"),
            "name: attest\ndescription: stands in\nruns: {using: composite, steps: []}\n",
        )
        .unwrap();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let at = stage.folder.path().display();
        std::fs::write(
            stage.path("host.yaml"),
            format!(
                "schema: assay.gates.host.v0\ndedicated: true\nrunner: {{user: root, root: {at}/runner}}\n\
                 proof_roots: [{at}/proof]\nscratch: [{at}/scratch]\nprefix: agact-{}-{}\n",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            ),
        )
        .unwrap();
        stage
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        succeeds(
            Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgSign=false"])
                .args(arguments)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .current_dir(self.path("checkout")),
        );
    }

    fn check_out(&self) {
        let checkout = self.path("checkout");
        std::fs::create_dir(&checkout).unwrap();
        let listed = succeeds(
            Command::new("git").args(["ls-files", "-coz", "--exclude-standard"]).current_dir(here()),
        );
        for name in String::from_utf8(listed.stdout).unwrap().split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (here().join(name), checkout.join(name));
            if from.is_file() {
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(from, to).unwrap();
            }
        }
        self.git(&["init", "-q", "-b", "main"]);
        self.git(&["remote", "add", "origin", "https://github.com/example/agents.git"]);
        self.commit("checkout");
        // What the fixtures need is there already when `make fixtures` has run; the workflow installs what is missing.
        for gate in std::fs::read_dir(here().join("gates")).unwrap().flatten() {
            for packages in ["node_modules", "site-packages"] {
                let (from, gate) =
                    (gate.path().join(packages), checkout.join("gates").join(gate.file_name()));
                if from.is_dir() {
                    succeeds(Command::new("cp").arg("-al").arg(from).arg(gate.join(packages)));
                }
            }
        }
    }

    /// Commits whatever the work tree of the checkout holds.
    pub fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
    }

    /// Dispatches the workflow with these gates, and waits for its end.
    pub fn dispatch(&self, gates: &str) -> Ended {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = std::env::var("PATH").unwrap_or_default();
        let at = |below: &str| self.path(below).display().to_string();
        let output = Command::new(tool("act"))
            .current_dir(self.path("checkout"))
            .arg("workflow_dispatch")
            .args([
                "-W",
                ".github/workflows/gates.yml",
                "--input",
                &format!("gates={gates}"),
                "--input",
                "build_ebpf=true",
            ])
            .args([
                "-P",
                "assay-bpf-runner=-self-hosted",
                "--container-daemon-socket",
                "-",
                "--use-gitignore=false",
            ])
            .args(["--artifact-server-path", &at("artifacts"), "--artifact-server-addr", "127.0.0.1"])
            .args(["--artifact-server-port", &port.to_string(), "--action-cache-path", &at("cache")])
            .args(["--var", &format!("ASSAY_GATES_PROOF_DIR={}", at("proof"))])
            .args(["--var", &format!("ASSAY_GATES_BUILDS_DIR={}", at("builds"))])
            .args(["--var", "ASSAY_GATES_ATTEST=off"])
            .args(["--local-repository", &format!("actions/attest@{}={}", attest_pin(), at("attest"))])
            .env("PATH", format!("{}:{path}", at("bin")))
            .env("HOME", at(""))
            .env("ASSAY_GATES_HOST_FILE", at("host.yaml"))
            .env("ASSAY_GATES_STATE_DIR", at("state"))
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { success: output.status.success(), log: text(&output.stdout) + &text(&output.stderr) }
    }

    /// The one artifact that was uploaded, as it is stored.
    #[track_caller]
    pub fn artifact(&self) -> PathBuf {
        let mut found = Vec::new();
        let mut pending = vec![self.path("artifacts")];
        while let Some(folder) = pending.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => pending.push(entry.path()),
                    false => found.push(entry.path()),
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

/// The commit to which the workflow pins actions/attest.
fn attest_pin() -> String {
    let text = std::fs::read_to_string(here().join(".github/workflows/gates.yml")).unwrap();
    let (_, rest) = text.split_once("actions/attest@").expect("the workflow attests");
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

impl Ended {
    /// How each step ended, in order: name and whether it succeeded.
    pub fn steps(&self) -> Vec<(&str, bool)> {
        self.log
            .lines()
            .filter_map(|line| {
                let (mark, rest) =
                    match (line.split_once("Success - Main "), line.split_once("Failure - Main ")) {
                        (Some((_, rest)), _) => (true, rest),
                        (None, Some((_, rest))) => (false, rest),
                        (None, None) => return None,
                    };
                Some((rest.split(" [").next().unwrap_or(rest), mark))
            })
            .collect()
    }
}
