//! What `host install` puts on a dedicated runner, and takes back.
//!
//! A plan of plain files first, so that `--dry-run` shows exactly what would be written. The sudoers drop-in is the whole
//! of what the runner's user may do as root: a few forms, each from its first to its last word.

use super::builds::BUILDER;
use super::hostfile::{Builds, HostFile, Retention};
use super::rights::Rights;
use super::user::SYSTEM_USER;
use crate::error::{Code, Error, Result};
use crate::files::write_atomic;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the binary is put.
pub const BINARY: &str = "/usr/local/bin/assay-gates";
/// The recovery unit.
pub const UNIT: &str = "assay-gates-recovery.service";
/// What makes the users that nothing else has.
pub const SYSUSERS: &str = "/etc/sysusers.d/assay-gates.conf";
const MARK: &str = "# Written by `assay-gates host install`; `assay-gates host uninstall` removes it.";

/// What to install for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The user that the Actions runner runs as.
    pub user: String,
    /// Where the Actions runner is installed.
    pub runner_root: PathBuf,
    /// What jobs may have built to run as root; none when absent.
    pub builds: Option<Builds>,
    /// How long results are kept.
    pub retention: Retention,
    /// The binary to install.
    pub binary: PathBuf,
}

/// One file of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Mode.
    pub mode: u32,
    /// What stands in it.
    pub content: Content,
    /// What it is for.
    pub why: &'static str,
}

/// What stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This text.
    Text(String),
    /// The bytes of this file.
    CopyOf(PathBuf),
}

/// The files, in the order in which they are written: what grants rights comes after what uses them.
///
/// # Errors
/// `Usage` for a user or a path that can't stand in the files; `Internal` when the host file can't be written down.
pub fn plan(wanted: &Wanted) -> Result<Vec<Item>> {
    check_user(&wanted.user)?;
    check_path(&wanted.runner_root)?;
    let host_file = HostFile {
        builds: wanted.builds.clone(),
        retention: wanted.retention,
        ..HostFile::new(&wanted.user, &wanted.runner_root)
    };
    let host_file = serde_yaml::to_string(&host_file)
        .map_err(|error| Error::new(Code::Internal, format!("cannot write the host file down: {error}")))?;
    let text = |path: &str, mode, text: String, why| Item {
        path: path.into(),
        mode,
        content: Content::Text(format!("{MARK}\n{text}")),
        why,
    };
    Ok(vec![
        Item {
            path: BINARY.into(),
            mode: 0o755,
            content: Content::CopyOf(wanted.binary.clone()),
            why: "the tool, writable by root alone",
        },
        text(super::hostfile::DEFAULT_HOST_FILE, 0o644, host_file, "what of this machine is ours to remove"),
        text(SYSUSERS, 0o644, sysusers(), "whom measured programs and builds run as"),
        text(
            "/etc/tmpfiles.d/assay-gates.conf",
            0o644,
            tmpfiles(),
            "folders of root's for state, results and builds",
        ),
        text(&format!("/etc/systemd/system/{UNIT}"), 0o644, unit(&wanted.runner_root), "recovery at boot"),
        text(
            "/etc/sudoers.d/assay-gates",
            0o440,
            sudoers(&wanted.user),
            "what the runner's user may do as root",
        ),
    ])
}

fn check_user(user: &str) -> Result<()> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    if user == "root" || !user.starts_with(first) || !user.chars().all(rest) || user.len() > 32 {
        return Err(Error::new(
            Code::Usage,
            format!("expected an unprivileged user of lower-case letters, digits, _ and -, found {user:?}"),
        )
        .hint("--user github-runner"));
    }
    Ok(())
}

/// Paths stand in sudoers and in unit files, each with a syntax of its own.
fn check_path(path: &Path) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match path.to_str() {
        Some(text) if path.is_absolute() && text.chars().all(plain) && !text.contains("..") => Ok(()),
        _ => Err(Error::new(
            Code::Usage,
            format!("expected an absolute path of letters, digits, /, ., _ and -, found {}", path.display()),
        )),
    }
}

fn tmpfiles() -> String {
    "\
d /run/assay-gates-state 0700 root root -
d /var/lib/assay-gates 0755 root root -
d /var/lib/assay-gates/spool 0700 root root -
d /var/lib/assay-gates/proof 0755 root root -
d /var/lib/assay-gates/builds 0755 root root -
d /var/lib/assay-gates/workshop 0755 root root -
z /var/lib/assay-gates/proof 0755 root root -
"
    .to_owned()
}

fn sysusers() -> String {
    format!(
        "u {SYSTEM_USER} - \"Whom measured programs run as\"\nu {BUILDER} - \"Builds what assay-gates runs as root\"\n"
    )
}

fn unit(runner_root: &Path) -> String {
    // The runner's own unit, when it is installed as a service: it must find the machine clean.
    // Its folder is the runner's, and so is what a file there links to.
    let service = Rights::over(runner_root).and_then(|owner| owner.read_text(&runner_root.join(".service")));
    let service = service.unwrap_or_default();
    let name = service.trim();
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c));
    let before = if plain && name.ends_with(".service") { format!("Before={name}\n") } else { String::new() };
    format!(
        "\
[Unit]
Description=Mark what measured runs did not finish before the machine went down, and remove what else they left
After=local-fs.target systemd-tmpfiles-setup.service
{before}
[Service]
Type=oneshot
ExecStart={BINARY} clean --phase after-run --apply
StandardOutput=journal

[Install]
WantedBy=multi-user.target
"
    )
}

/// Arguments stand as regular expressions from `^` to `$` (sudo 1.9.10): a `*` would take further options too. One binary
/// is granted, which root alone can write; what was built runs through it, when the store has it.
fn sudoers(user: &str) -> String {
    let built = "(built [0-9a-f]+ )?";
    format!(
        "\
Cmnd_Alias ASSAY_GATES = {BINARY} ^clean --phase (before-download|before-run|after-run) --apply( --format json)?$, \\
    {BINARY} ^host build --commit [0-9a-f]+$, \\
    {BINARY} ^{built}doctor( --gate [a-z0-9_-]+)?$, \\
    {BINARY} ^{built}run --gate [a-z0-9_-]+ --root /var/lib/assay-gates/proof/[0-9]+-[0-9]+ --no-pack --format github$
Defaults!ASSAY_GATES env_keep += \"ASSAY_GATES_SELECTION ASSAY_GATES_SLOW GITHUB_ACTIONS GITHUB_REF GITHUB_REPOSITORY GITHUB_RUN_ATTEMPT GITHUB_RUN_ID GITHUB_SERVER_URL GITHUB_SHA GITHUB_WORKFLOW GITHUB_WORKFLOW_SHA\"
{user} ALL=(root) NOPASSWD: ASSAY_GATES
"
    )
}

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Written, or replaced.
    Written,
    /// Stood there already, byte for byte.
    Unchanged,
    /// Somebody's own host file: left alone.
    Kept,
    /// Removed.
    Removed,
    /// Was not there.
    Absent,
}

/// Writes the plan below `root` (`/` in earnest). A host file that somebody wrote is kept.
///
/// # Errors
/// `Io`; `Usage` when visudo refuses the drop-in, and then nothing of it is in place.
pub fn install(root: &Path, plan: &[Item]) -> Result<Vec<Done>> {
    plan.iter().map(|item| write(root, item)).collect()
}

fn write(root: &Path, item: &Item) -> Result<Done> {
    let path = below(root, &item.path);
    let bytes = match &item.content {
        Content::Text(text) => text.clone().into_bytes(),
        Content::CopyOf(source) => {
            std::fs::read(source).map_err(|error| Error::io("cannot read the binary", source, error))?
        }
    };
    let there = std::fs::read(&path).ok();
    let mode = std::fs::metadata(&path).map(|found| found.permissions().mode() & 0o7777).ok();
    if there.as_ref() == Some(&bytes) && mode == Some(item.mode) {
        return Ok(Done::Unchanged);
    }
    let is_host_file = item.path == Path::new(super::hostfile::DEFAULT_HOST_FILE);
    if is_host_file && there.is_some_and(|there| !there.starts_with(MARK.as_bytes())) {
        return Ok(Done::Kept);
    }
    if item.path.starts_with("/etc/sudoers.d") {
        visudo(&bytes)?;
    }
    write_atomic(&path, &bytes)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(item.mode))
        .map_err(|error| Error::io("cannot set the mode", &path, error))?;
    Ok(Done::Written)
}

/// A drop-in that doesn't parse would lock sudo for everybody, so it is checked where it can do no harm.
fn visudo(bytes: &[u8]) -> Result<()> {
    let file = tempfile::NamedTempFile::new()
        .map_err(|error| Error::io("cannot make a file to check", &std::env::temp_dir(), error))?;
    std::fs::write(file.path(), bytes).map_err(|error| Error::io("cannot write", file.path(), error))?;
    match Rights::own().command("visudo").arg("-cqf").arg(file.path()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Error::new(Code::Usage, format!("visudo refuses the drop-in: {}", said.trim()))
                .at("/etc/sudoers.d/assay-gates")
                .hint("sudo 1.9.10 or newer is needed: sudo --version"))
        }
        // No sudo, nobody to read the drop-in either.
        Err(_) => Ok(()),
    }
}

/// Removes what [`install`] wrote below `root`. Files that don't bear our mark, and results, stay.
///
/// # Errors
/// `Io`, naming the file.
pub fn uninstall(root: &Path) -> Result<Vec<(PathBuf, Done)>> {
    // The right first, then what uses it.
    let paths = [
        "/etc/sudoers.d/assay-gates".to_owned(),
        format!("/etc/systemd/system/{UNIT}"),
        "/etc/tmpfiles.d/assay-gates.conf".to_owned(),
        SYSUSERS.to_owned(),
        super::hostfile::DEFAULT_HOST_FILE.to_owned(),
        BINARY.to_owned(),
    ];
    paths
        .into_iter()
        .map(|path| Ok((path.clone().into(), remove(&below(root, Path::new(&path)), path == BINARY)?)))
        .collect()
}

fn remove(path: &Path, unmarked: bool) -> Result<Done> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Done::Absent),
        Err(error) => return Err(Error::io("cannot read", path, error)),
    };
    if !unmarked && !bytes.starts_with(MARK.as_bytes()) {
        return Ok(Done::Kept);
    }
    std::fs::remove_file(path).map_err(|error| Error::io("cannot remove", path, error))?;
    Ok(Done::Removed)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            user: "github-runner".into(),
            runner_root: "/opt/actions-runner".into(),
            builds: None,
            retention: Retention::default(),
            binary: "/bin/true".into(),
        }
    }

    #[test]
    fn installing_twice_changes_nothing_and_uninstalling_takes_all_of_it_back() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(&wanted()).unwrap();
        assert_eq!(install(root.path(), &plan).unwrap(), [Done::Written; 6]);
        assert_eq!(install(root.path(), &plan).unwrap(), [Done::Unchanged; 6]);
        let host_file = HostFile::load(&root.path().join("etc/assay-gates/host.yaml")).unwrap();
        assert_eq!(host_file, HostFile::new("github-runner", "/opt/actions-runner"));
        let mode =
            std::fs::metadata(root.path().join("etc/sudoers.d/assay-gates")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o440);
        assert!(uninstall(root.path()).unwrap().iter().all(|(_, done)| *done == Done::Removed));
        assert!(uninstall(root.path()).unwrap().iter().all(|(_, done)| *done == Done::Absent));
    }

    #[test]
    fn a_host_file_that_somebody_wrote_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/assay-gates/host.yaml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "dedicated: false\n").unwrap();
        let done = install(root.path(), &plan(&wanted()).unwrap()).unwrap();
        assert_eq!(done[1], Done::Kept);
        uninstall(root.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "dedicated: false\n");
    }

    #[test]
    fn users_and_paths_that_could_smuggle_a_rule_are_refused() {
        for user in ["root", "", "a b", "a,root", "a\nroot ALL=(ALL) ALL", "%wheel", "-x", "ALL"] {
            let refused = plan(&Wanted { user: user.into(), ..wanted() }).unwrap_err();
            assert_eq!(refused.code(), Code::Usage, "{user:?}");
        }
        for path in ["relative", "/a b", "/a\nb", "/a,b", "/a/../b", "/a*"] {
            let refused = plan(&Wanted { runner_root: path.into(), ..wanted() }).unwrap_err();
            assert_eq!(refused.code(), Code::Usage, "{path:?}");
        }
    }

    #[test]
    fn the_drop_in_grants_whole_forms_of_one_binary_and_no_wildcard() {
        let text = sudoers("github-runner");
        for form in text.lines().filter(|line| line.contains(" ^")) {
            let form = form.trim_end_matches(", \\");
            assert!(
                form.contains(&format!("{BINARY} ^")) && form.ends_with('$') && !form.contains('*'),
                "{form}"
            );
        }
        visudo(text.as_bytes()).unwrap();
    }

    /// A workflow that asks for more than the drop-in grants would stop at its first privileged step.
    #[test]
    fn every_privileged_line_of_the_workflows_is_a_granted_form() {
        let text = sudoers("github-runner");
        let granted: Vec<regex::Regex> = text
            .split([',', '=', '\n'])
            .filter_map(|form| {
                let (binary, arguments) = form.trim().trim_end_matches('\\').trim().split_once(" ^")?;
                assert_eq!(binary, BINARY);
                Some(regex::Regex::new(&format!("^{arguments}")).unwrap())
            })
            .collect();
        assert_eq!(granted.len(), 4, "{text}");
        let workflows = [
            include_str!("../../.github/workflows/gates.yml"),
            include_str!("../../.github/workflows/gates-fleet.yml"),
        ];
        let mut lines = 0;
        for line in workflows.iter().flat_map(|text| text.lines()).filter(|line| line.contains("sudo -n ")) {
            let (_, command) = line.split_once("sudo -n ").unwrap();
            let command = command
                .replace("$BUILT ", "built 0123456789abcdef0123456789abcdef01234567 ")
                .replace("\"$GITHUB_SHA\"", "0123456789abcdef0123456789abcdef01234567")
                .replace("\"$GATES\"", "hidden_write")
                .replace("\"$GATE\"", "kernel-only")
                .replace("\"$PROOF_ROOT\"", "/var/lib/assay-gates/proof/7-1");
            let (binary, arguments) = command.split_once(' ').unwrap();
            assert_eq!(binary, "assay-gates", "{line}");
            let fits = granted.iter().any(|form| form.is_match(arguments));
            assert!(fits, "not granted: {arguments}");
            lines += 1;
        }
        assert!(lines >= 9, "only {lines} privileged lines were found");
        let root = "${{ vars.ASSAY_GATES_PROOF_DIR || '/var/lib/assay-gates/proof' }}/${{ github.run_id }}-${{ github.run_attempt }}\n";
        assert!(workflows.iter().all(|text| text.contains(&format!("PROOF_ROOT: {root}"))));
    }
}
