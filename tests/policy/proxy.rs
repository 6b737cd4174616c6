//! Runs the proxy as a caller would.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// A policy that allows `echo` and `read_*`, and nothing else.
pub const POLICY: &str = "schema: assay.gates.policy.v0\ndefault: deny\ntools:\n  allow: [echo, 'read_*']\n";

/// A proxy in front of a server, with the files of a folder of its own.
pub struct Proxy {
    pub child: Child,
    pub input: Option<ChildStdin>,
    pub output: BufReader<ChildStdout>,
    pub folder: tempfile::TempDir,
}

/// The proxy's command, not yet started: `policy.yaml` and `decisions.ndjson` stand in `folder`.
pub fn command(folder: &Path, server: &[&str]) -> Command {
    std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
    command
        .args(["mcp-wrap", "--policy"])
        .arg(folder.join("policy.yaml"))
        .arg("--decision-log")
        .arg(log_of(folder))
        .args(["--event-source", "assay://test", "--label", "test", "--"])
        .args(server)
        .env_remove("ASSAY_GATES_CONTROL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn log_of(folder: &Path) -> PathBuf {
    folder.join("decisions.ndjson")
}

/// The decisions logged in `folder`.
pub fn decisions(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "half a line: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Proxy {
    pub fn start(server: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = command(folder.path(), server);
        Self::spawn(command, folder)
    }

    pub fn spawn(mut command: Command, folder: tempfile::TempDir) -> Self {
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, folder }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.input.as_mut().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// One line of the proxy's output without its line feed; empty at the end.
    pub fn line(&mut self) -> String {
        let mut bytes = Vec::new();
        self.output.read_until(b'\n', &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
    }

    pub fn json(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Sends one line and reads one.
    pub fn ask(&mut self, line: &str) -> Value {
        self.send(format!("{line}\n"));
        self.json()
    }

    pub fn decisions(&self) -> Vec<Value> {
        decisions(&log_of(self.folder.path()))
    }

    /// Closes the input and waits; gives back the status and what was left of the output.
    pub fn end(mut self) -> (ExitStatus, Vec<u8>, tempfile::TempDir) {
        use std::io::Read;
        drop(self.input.take());
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest, self.folder)
    }
}
