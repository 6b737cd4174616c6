//! The store of built binaries that root runs: one for each commit, put there by root alone.
//!
//! A job can't hand root a binary: whoever can write the file would be root. So root starts the build, of a commit that
//! an approved branch of the repository holds, which root asks the repository itself; a user that is nobody else's
//! compiles it, in a folder and with caches of this one build; and root copies what came of it into the store, with its
//! digest. From then on the binary is root's, and only runs when it still has that digest.
//!
//! What this trusts is who may push to an approved branch: their code becomes root's. Nothing that the machine's other
//! users can write has a part in it.

use super::hostfile::{Builds, HostFile};
use super::rights::{CALLER_PATH, Rights};
use crate::error::{Code, Error, Result};
use crate::files::{RootPath, Sha256Digest, sha256_reader};
use serde::{Deserialize, Serialize};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The store.
pub const STORE: &str = "/var/lib/assay-gates/builds";
/// Where builds are made.
const WORKSHOP: &str = "/var/lib/assay-gates/workshop";
/// Whom builds run as: a system user that `host install` makes and nothing else has.
pub const BUILDER: &str = "assay-gates-build";
/// How long each step of a build may take.
const TIME_LIMIT: std::time::Duration = std::time::Duration::from_secs(45 * 60);
/// Largest binary that is taken over.
const BINARY_BYTES: u64 = 1 << 30;

/// A binary of the store (`build.json`, `assay.gates.build.v0`), written by root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// `assay.gates.build.v0`.
    pub schema: String,
    /// The commit that was built.
    pub commit: String,
    /// Where it came from, as the host file names it.
    pub repository: String,
    /// The approved branch that holds it.
    pub branch: String,
    /// Digest of the binary.
    pub sha256: Sha256Digest,
    /// Its length.
    pub bytes: u64,
    /// RFC 3339, UTC: when it was put into the store.
    pub built_at: String,
}

/// Builds `commit` as the host file allows, unless the store has it.
///
/// # Errors
/// `BuildRefused` when no approved branch holds it, or the host file approves of none; `BuildFailed` with the end of
/// what git or cargo said.
pub fn build(host: &HostFile, commit: &str) -> Result<Build> {
    let entry = entry(commit)?;
    if let Some(build) = known(&entry)? {
        return Ok(build);
    }
    let Some(allowed) = &host.builds else {
        return Err(refused(commit, "the host file approves of no repository to build from")
            .hint("sudo assay-gates host install --user … --builds-from URL --builds-branch main"));
    };
    let workshop = Workshop::open(commit)?;
    let branch = workshop.fetch(allowed, commit)?;
    workshop.compile(allowed)?;
    let build = workshop.take(&entry, allowed, commit, branch)?;
    Ok(build)
}

/// The binary of `commit`, opened, when the store has it and it still has its digest; and its path.
///
/// # Errors
/// `BuildRefused` when it is not there, or is not what was put there.
pub fn binary(commit: &str) -> Result<(std::fs::File, PathBuf)> {
    let entry = entry(commit)?;
    let Some(build) = known(&entry)? else {
        return Err(refused(commit, "the store has no binary of this commit")
            .hint(format!("sudo -n assay-gates host build --commit {commit}")));
    };
    let place = entry.join("assay-gates");
    let mut file = place.expect_file()?;
    let (found, _) =
        sha256_reader(&mut file).map_err(|error| Error::io("cannot read", &place.path(), error))?;
    if found != build.sha256 {
        let why = format!("expected a binary with the digest {}, found {found}", build.sha256);
        return Err(refused(commit, &why).hint(format!("sudo rm -r {}", entry.path().display())));
    }
    Ok((file, place.path()))
}

/// What the store says of the running binary; `None` when it does not stand there.
///
/// # Errors
/// As the store's record fails with.
pub fn running() -> Result<Option<Build>> {
    let path = super::session::own_binary();
    let Some(commit) = path.strip_prefix(STORE).ok().and_then(|below| below.iter().next()?.to_str()) else {
        return Ok(None);
    };
    known(&entry(commit)?)
}

fn entry(commit: &str) -> Result<RootPath> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if commit.len() != 40 || !commit.bytes().all(plain) {
        return Err(Error::new(
            Code::Usage,
            format!("expected a commit of 40 hexadecimal digits, found {}", commit.escape_debug()),
        ));
    }
    Ok(RootPath::of_root(Path::new(STORE))?.join(commit))
}

fn known(entry: &RootPath) -> Result<Option<Build>> {
    let Some(text) = entry.join("build.json").read()? else { return Ok(None) };
    let build: Build = serde_json::from_slice(&text).map_err(|error| {
        Error::new(Code::Internal, format!("expected the record of a build: {error}"))
            .at(entry.path().display())
            .hint(format!("sudo rm -r {}", entry.path().display()))
    })?;
    Ok(Some(build))
}

fn refused(commit: &str, why: &str) -> Error {
    Error::new(Code::BuildRefused, why.to_owned()).at(commit)
}

/// A folder of the builder's, made for one build and gone with it; nothing of the builder's is alive before or after.
struct Workshop {
    folder: RootPath,
    builder: nix::unistd::User,
}

impl Workshop {
    fn open(commit: &str) -> Result<Self> {
        let builder = nix::unistd::User::from_name(BUILDER).ok().flatten().filter(|user| !user.uid.is_root());
        let Some(builder) = builder else {
            return Err(Error::new(Code::BuildRefused, format!("this host has no user {BUILDER}"))
                .hint("sudo assay-gates host install --user … --builds-from URL"));
        };
        end_all_of(&builder)?;
        let folder = RootPath::of_root(Path::new(WORKSHOP))?.join(commit);
        folder.remove()?;
        folder.create_private_folder()?;
        let workshop = Self { folder, builder };
        std::os::unix::fs::chown(
            workshop.path(),
            Some(workshop.builder.uid.as_raw()),
            Some(workshop.builder.gid.as_raw()),
        )
        .map_err(|error| Error::io("cannot give it to the builder", &workshop.path(), error))?;
        Ok(workshop)
    }

    fn path(&self) -> PathBuf {
        self.folder.path()
    }

    /// Gets the repository's approved branches, and checks `commit` out when one of them holds it.
    fn fetch(&self, allowed: &Builds, commit: &str) -> Result<String> {
        let mut folders = self.command("mkdir", &Builds::default(), "");
        folders.args(["home", "tmp"]);
        said(folders, "mkdir")?;
        self.git(&["init", "-q", "source"], "")?;
        let refs: Vec<String> =
            allowed.branches.iter().map(|name| format!("+refs/heads/{name}:refs/approved/{name}")).collect();
        let mut fetch = vec!["fetch", "-q", "--no-tags", "--end-of-options", allowed.repository.as_str()];
        fetch.extend(refs.iter().map(String::as_str));
        self.git(&fetch, "source")?;
        let holds = |name: &&String| {
            let branch = format!("refs/approved/{name}");
            self.git(&["merge-base", "--is-ancestor", commit, &branch], "source").is_ok()
        };
        let Some(branch) = allowed.branches.iter().find(holds) else {
            let why = format!(
                "expected a commit that {} of {} holds, found another",
                allowed.branches.join(" or "),
                allowed.repository
            );
            return Err(refused(commit, &why).hint(
                "merge it first, or let an administrator add its branch to builds.branches of the host file",
            ));
        };
        self.git(&["-c", "advice.detachedHead=false", "checkout", "-q", "--detach", commit], "source")?;
        Ok(branch.clone())
    }

    fn compile(&self, allowed: &Builds) -> Result<()> {
        let mut cargo = self.command("cargo", allowed, "source");
        cargo.args(["build", "--release", "--locked"]);
        said(cargo, "cargo build")
    }

    fn git(&self, arguments: &[&str], below: &str) -> Result<()> {
        let mut git = self.command("git", &Builds::default(), below);
        git.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]).args(arguments);
        said(git, arguments.first().copied().unwrap_or_default())
    }

    /// As the builder, with nothing of this process's environment and caches of this build alone.
    fn command(&self, program: &str, allowed: &Builds, below: &str) -> Command {
        let at = |name: &str| self.path().join(name);
        let mut path: Vec<PathBuf> = allowed.path.clone();
        path.extend(std::env::split_paths(CALLER_PATH));
        let path = std::env::join_paths(path).unwrap_or_else(|_| CALLER_PATH.into());
        let mut command = as_builder(&self.builder, "/usr/bin/env");
        // `env` looks the program up along the new PATH, not along root's.
        command.arg("-i").arg(format!("PATH={}", path.to_string_lossy()));
        for (name, value) in [
            ("HOME", at("home")),
            ("CARGO_HOME", at("cargo")),
            ("CARGO_TARGET_DIR", at("target")),
            ("TMPDIR", at("tmp")),
        ] {
            command.arg(format!("{name}={}", value.display()));
        }
        if let Some(rustup) = &allowed.rustup_home {
            command.arg(format!("RUSTUP_HOME={}", rustup.display()));
        }
        command.args(["LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", program]);
        command.current_dir(at(below)).env_clear();
        command
    }

    /// Copies the binary into the store, digested on the way, and only then says that it is there.
    fn take(&self, entry: &RootPath, allowed: &Builds, commit: &str, branch: String) -> Result<Build> {
        end_all_of(&self.builder)?;
        // The builder's folder may hold anything by now: only a regular file below it is opened, through no link.
        let made = RootPath::open(&self.path(), Rights::own())?.join("target/release/assay-gates");
        let mut from = made.expect_file()?.take(BINARY_BYTES + 1);
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| Error::io("cannot read", &made.path(), error))?;
        if bytes.len() as u64 > BINARY_BYTES {
            return Err(failed(format!("expected a binary of at most {BINARY_BYTES} bytes, found more")));
        }
        let build = Build {
            schema: "assay.gates.build.v0".to_owned(),
            commit: commit.to_owned(),
            repository: allowed.repository.clone(),
            branch,
            sha256: crate::files::sha256(&bytes),
            bytes: bytes.len() as u64,
            built_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        };
        let place = entry.join("assay-gates");
        let mut file = place.create_file()?;
        let at = |error| Error::io("cannot write", &place.path(), error);
        file.write_all(&bytes).map_err(at)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).map_err(at)?;
        file.sync_all().map_err(at)?;
        entry.join("build.json").write_json(&build)?;
        Ok(build)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _nothing_to_add = end_all_of(&self.builder);
        let _best_effort = self.folder.remove();
    }
}

fn as_builder(builder: &nix::unistd::User, program: &str) -> Command {
    Rights::of_ids(builder.uid.as_raw(), builder.gid.as_raw()).command(program)
}

/// Ends every process of the builder's: what one build left running could change the next.
fn end_all_of(builder: &nix::unistd::User) -> Result<()> {
    for _ in 0..20 {
        if !alive(builder) {
            return Ok(());
        }
        // The signal goes to all that this user may signal, which is all that is this user's, the sender included.
        let sent = as_builder(builder, "/bin/kill")
            .args(["-KILL", "--", "-1"])
            .env_clear()
            .current_dir("/")
            .stderr(std::process::Stdio::null())
            .status();
        sent.map_err(|error| failed(format!("cannot end what is left of earlier builds: {error}")))?;
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(failed(format!("processes of {} don't end", builder.name)))
}

/// Whether a process is the builder's. One that has ended and waits for its parent changes nothing any more.
fn alive(builder: &nix::unistd::User) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ended = |process: &Path| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let process = entry.path();
        let number = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        number
            && process.metadata().is_ok_and(|found| found.uid() == builder.uid.as_raw())
            && !ended(&process)
    })
}

fn said(mut command: Command, what: &str) -> Result<()> {
    // Into a file, since what a build leaves running would keep a pipe open.
    let unusable = |error| Error::io("cannot keep what is said in", &std::env::temp_dir(), error);
    let mut kept = tempfile::tempfile().map_err(unusable)?;
    command.stdout(std::process::Stdio::null()).stderr(kept.try_clone().map_err(unusable)?);
    let at = |error| failed(format!("{what} could not be waited for: {error}"));
    let mut child =
        command.spawn().map_err(|error| failed(format!("{what} could not be started: {error}")))?;
    let began = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(at)? {
            break status;
        }
        if began.elapsed() > TIME_LIMIT {
            // What it started goes with the workshop.
            let _gone_already = child.kill().and_then(|()| child.wait());
            return Err(failed(format!("{what} took longer than {} minutes", TIME_LIMIT.as_secs() / 60)));
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let end = kept.seek(std::io::SeekFrom::End(0)).map_err(unusable)?;
    kept.seek(std::io::SeekFrom::Start(end.saturating_sub(64 * 1024))).map_err(unusable)?;
    kept.take(64 * 1024).read_to_end(&mut text).map_err(unusable)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(6)..].join("; ");
    Err(failed(format!("{what} ended with {status}: {}", end.escape_debug())))
}

fn failed(why: String) -> Error {
    Error::new(Code::BuildFailed, why).hint("assay-gates explain ebpf-build-failed")
}
