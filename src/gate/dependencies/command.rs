//! An install command: shown as a line to paste, or carried out.

use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use std::path::{Path, PathBuf};

/// Where root's own environment says that registries are; through sudo none of it comes this far.
const PROXIES: [&str; 7] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE"];

/// What installs a fixture's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallCommand {
    folder: PathBuf,
    replaces: Option<String>,
    steps: Vec<Vec<String>>,
}

impl InstallCommand {
    /// `steps`, one after the other, in `folder`.
    pub(super) fn new(folder: &Path, steps: Vec<Vec<String>>) -> Self {
        Self { folder: folder.to_path_buf(), replaces: None, steps }
    }

    /// Removes `folder`, relative to where the steps run, before the first of them.
    pub(super) fn replacing(mut self, folder: &str) -> Self {
        self.replaces = Some(folder.to_owned());
        self
    }

    /// As one line for a shell.
    #[must_use]
    pub fn shown(&self) -> String {
        let remove = self.replaces.as_ref().map(|folder| format!("rm -rf {}", quoted(folder)));
        let steps = self
            .steps
            .iter()
            .map(|words| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        let line = remove.into_iter().chain(steps).collect::<Vec<_>>().join(" && ");
        format!("(cd {} && {line})", quoted(&self.folder.display().to_string()))
    }

    /// The same line with an installer that tells what it does.
    pub(super) fn loud(&self) -> String {
        self.shown().replace("--loglevel=error", "--loglevel=http").replace("--quiet", "--verbose")
    }

    /// Carries it out: as the user who called sudo, else as the owner of the folder. What stands in a checkout
    /// (`.npmrc`, `pip.conf`, scripts) says what an installer does, so it is never done as root for somebody else.
    ///
    /// # Errors
    /// `InstallFailed`, with the end of what the installer said and what helps against it.
    pub fn run(&self) -> Result<()> {
        let rights = Rights::over(&self.folder)?;
        if let Some(folder) = &self.replaces {
            let folder = self.folder.join(folder);
            rights.act(|| match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("cannot remove", &folder, error))
                }
                _ => Ok(()),
            })?;
        }
        self.steps.iter().try_for_each(|words| self.step(words, &rights))
    }

    fn step(&self, words: &[String], rights: &Rights) -> Result<()> {
        let failed = |message: String| Error::new(Code::InstallFailed, message).at(self.folder.display());
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let mut command = rights.command(program);
        command.args(arguments).current_dir(&self.folder);
        for name in PROXIES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let output = command.output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let package = if program == "npm" { "npm" } else { "python3-pip" };
                failed(format!("{program} is not there")).hint(format!("apt-get install -y {package}"))
            }
            _ => failed(format!("cannot start {program}: {error}")),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = end_of(&output.stderr, &output.stdout);
        let everything = [output.stderr, output.stdout].concat();
        let help =
            help_against(&String::from_utf8_lossy(&everything)).map_or_else(|| self.loud(), str::to_owned);
        Err(failed(format!("{program} ended with {}: {said}", output.status)).hint(help))
    }
}

/// What an installer says, and what helps against it. The command that just failed never does.
const HELP: [(&[&str], &str); 7] = [
    (
        &["EINTEGRITY", "DO NOT MATCH THE HASHES"],
        "the registry gave another file than the locked one; see which one answers: npm config get registry; python3 -m pip config list",
    ),
    (&["No module named pip"], "apt-get install -y python3-pip"),
    (
        &[
            "ENOTFOUND",
            "EAI_AGAIN",
            "ETIMEDOUT",
            "ECONNREFUSED",
            "ECONNRESET",
            "NewConnectionError",
            "name resolution",
            "unreachable",
        ],
        "the registry can't be reached from here; see whether anything can: npm ping; curl -sSI https://pypi.org/simple/",
    ),
    (
        &["CERTIFICATE_VERIFY_FAILED", "SELF_SIGNED_CERT", "UNABLE_TO_GET_ISSUER", "UNABLE_TO_VERIFY"],
        "put the certificate of the proxy in between into /usr/local/share/ca-certificates and run update-ca-certificates",
    ),
    (
        &["No matching distribution", "ETARGET", "E404"],
        "the registry has no such version for this machine and interpreter: lock the fixture anew, or ask another registry",
    ),
    (&["ENOSPC", "No space left"], "df -h ."),
    (
        &["EACCES", "Permission denied", "EROFS"],
        "the owner of the fixture's folder must be able to write it: ls -ld .",
    ),
];

fn help_against(said: &str) -> Option<&'static str> {
    let says = |words: &&(&[&str], &str)| words.0.iter().any(|word| said.contains(word));
    HELP.iter().find(says).map(|(_, help)| *help)
}

/// The last lines of what an installer said, on one line.
fn end_of(stderr: &[u8], stdout: &[u8]) -> String {
    let said = if stderr.iter().all(u8::is_ascii_whitespace) { stdout } else { stderr };
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(folder: &Path, words: &[&str]) -> InstallCommand {
        InstallCommand::new(folder, vec![words.iter().map(|&word| word.to_owned()).collect()])
    }

    #[test]
    fn it_is_shown_as_a_line_that_a_shell_reads_back() {
        let shown = command(Path::new("/a b"), &["npm", "ci", "it's"]).replacing("site-packages").shown();
        assert_eq!(shown, r"(cd '/a b' && rm -rf site-packages && npm ci 'it'\''s')");
    }

    #[cfg(unix)]
    #[test]
    fn a_failing_step_tells_what_the_installer_said_and_the_next_one_does_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut both = command(folder.path(), &["sh", "-c", "echo no such package >&2; exit 3"]);
        both.steps.push(vec!["touch".to_owned(), "ran".to_owned()]);
        let error = both.run().unwrap_err();
        assert_eq!(error.code(), Code::InstallFailed);
        assert!(error.message().contains("no such package"), "{error}");
        assert!(!folder.path().join("ran").exists());
    }

    #[cfg(unix)]
    #[test]
    fn no_hint_repeats_the_command_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        for said in HELP.iter().flat_map(|(words, _)| *words).chain(&["something new"]) {
            let failing =
                command(folder.path(), &["sh", "-c", &format!("echo '{said}' >&2; exit 3"), "--quiet"]);
            let error = failing.run().unwrap_err();
            let hint = error.advice().unwrap();
            assert_ne!(hint, failing.shown(), "{said}");
        }
    }

    #[test]
    fn a_missing_installer_names_the_package_that_brings_it() {
        let error = command(&std::env::temp_dir(), &["no-such-npm-here"]).run().unwrap_err();
        assert_eq!(error.advice(), Some("apt-get install -y python3-pip"));
    }
}
