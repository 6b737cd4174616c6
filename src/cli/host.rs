//! `host install`, `host uninstall`: makes a machine a dedicated runner of measured gates, and takes that back.

use crate::error::{Exit, Result};
use crate::host::hostfile::Retention;
use clap::Subcommand;
use std::path::PathBuf;

/// Make this machine a dedicated runner of measured gates, or take that back.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  sudo assay-gates host install --user github-runner --dry-run     show what would be written
  sudo assay-gates host install --user github-runner --runner-root /opt/actions-runner
  sudo assay-gates host uninstall")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Put the binary, the host file, the sudoers drop-in, the recovery unit and the tmpfiles rules in place.
    #[command(after_help = "Example:\n  sudo assay-gates host install --user github-runner --dry-run")]
    Install(Install),
    /// Build the tool from a commit of an approved branch, as a user of its own, into a store that is root's.
    #[command(after_help = "\
The host file says what is approved (builds: repository, branches). What is built runs through `assay-gates built`.

Example:
  sudo -n assay-gates host build --commit 0123456789abcdef0123456789abcdef01234567")]
    Build(Build),
    /// Remove what install wrote; results and a host file of your own stay.
    #[command(after_help = "Example:\n  sudo assay-gates host uninstall --dry-run")]
    Uninstall(Place),
}

#[derive(clap::Args)]
struct Install {
    /// User that the Actions runner runs as.
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Where the Actions runner is installed.
    #[arg(long, value_name = "DIR", default_value = "/opt/actions-runner")]
    runner_root: PathBuf,
    /// Let jobs build the tool from this repository to run as root: whoever may push to an approved branch is root here.
    #[arg(long, value_name = "URL")]
    builds_from: Option<String>,
    /// An approved branch; repeatable.
    #[arg(long, value_name = "NAME", default_value = "main", requires = "builds_from")]
    builds_branch: Vec<String>,
    /// A folder in which the builder finds cargo and clang, before the system's; repeatable.
    #[arg(long, value_name = "DIR", requires = "builds_from")]
    builds_path: Vec<PathBuf>,
    /// RUSTUP_HOME of a toolchain that rustup manages for everybody.
    #[arg(long, value_name = "DIR", requires = "builds_from")]
    builds_rustup_home: Option<PathBuf>,
    /// Days that results are kept; what is older goes in the cleanup before a run.
    #[arg(long, value_name = "DAYS", default_value_t = Retention::default().days, value_parser = clap::value_parser!(u32).range(1..))]
    keep_days: u32,
    /// How many results are kept at most.
    #[arg(long, value_name = "COUNT", default_value_t = Retention::default().newest, value_parser = clap::value_parser!(u32).range(1..))]
    keep_newest: u32,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Build {
    /// The commit, 40 hexadecimal digits.
    #[arg(long, value_name = "SHA")]
    commit: String,
}

#[derive(clap::Args)]
struct Place {
    /// Work below this folder instead of /, and start nothing.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Show what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[cfg(not(all(feature = "capture", target_os = "linux")))]
pub(super) fn run(_: &Args) -> Result<Exit> {
    Err(super::built_without_capture())
}

#[cfg(all(feature = "capture", target_os = "linux"))]
pub(super) fn run(args: &Args) -> Result<Exit> {
    match &args.action {
        Action::Install(install) => imp::install(install),
        Action::Build(build) => imp::build(&build.commit),
        Action::Uninstall(place) => imp::uninstall(place),
    }
}

#[cfg(all(feature = "capture", target_os = "linux"))]
mod imp {
    use super::{Install, Place};
    use crate::error::{Code, Error, Exit, Result};
    use crate::host::builds;
    use crate::host::hostfile::{Builds, DEFAULT_HOST_FILE, HostFile, Retention};
    use crate::host::install::{
        Content, Done, SYSUSERS, UNIT, Wanted, install as write, plan, uninstall as remove,
    };
    use crate::host::rights::Rights;
    use crate::host::session::own_binary;
    use crate::report;
    use std::path::Path;

    pub(super) fn install(args: &Install) -> Result<Exit> {
        let retention = Retention { days: args.keep_days, newest: args.keep_newest };
        let plan = plan(&Wanted {
            user: args.user.clone(),
            runner_root: args.runner_root.clone(),
            builds: args.builds_from.as_ref().map(|repository| Builds {
                repository: repository.clone(),
                branches: args.builds_branch.clone(),
                path: args.builds_path.clone(),
                rustup_home: args.builds_rustup_home.clone(),
            }),
            retention,
            binary: own_binary(),
        })?;
        let root = &args.place.root;
        if args.place.dry_run {
            for item in &plan {
                report::data(&format!("{:04o} {}  {}\n", item.mode, item.path.display(), item.why));
                if let Content::Text(text) = &item.content {
                    text.lines().for_each(|line| report::data(&format!("     | {line}\n")));
                }
            }
            return Ok(Exit::Passed);
        }
        needs_root(root)?;
        if root == Path::new("/") && !matches!(nix::unistd::User::from_name(&args.user), Ok(Some(_))) {
            return Err(Error::new(Code::Usage, format!("this host has no user {:?}", args.user))
                .hint(format!("useradd --system --create-home {}", args.user)));
        }
        let done = write(root, &plan)?;
        for (item, done) in plan.iter().zip(done) {
            report::data(&format!("{:9}  {}\n", said(done), item.path.display()));
        }
        if root == Path::new("/") {
            carry_out("systemd-sysusers", &[SYSUSERS]);
            carry_out("systemd-tmpfiles", &["--create", "/etc/tmpfiles.d/assay-gates.conf"]);
            carry_out("systemctl", &["daemon-reload"]);
            carry_out("systemctl", &["enable", UNIT]);
            report::diagnostic(&format!("{retention} (retention in {DEFAULT_HOST_FILE})"));
            report::diagnostic("next: sudo assay-gates doctor");
        }
        Ok(Exit::Passed)
    }

    pub(super) fn build(commit: &str) -> Result<Exit> {
        needs_root(Path::new("/"))?;
        let built = builds::build(&HostFile::load(Path::new(DEFAULT_HOST_FILE))?, commit)?;
        report::data(&crate::files::pretty_sorted(&built)?);
        Ok(Exit::Passed)
    }

    pub(super) fn uninstall(place: &Place) -> Result<Exit> {
        if place.dry_run {
            report::data("would remove what `host install` wrote; results below /var/lib/assay-gates stay\n");
            return Ok(Exit::Passed);
        }
        needs_root(&place.root)?;
        if place.root == Path::new("/") {
            carry_out("systemctl", &["disable", UNIT]);
        }
        for (path, done) in remove(&place.root)? {
            report::data(&format!("{:9}  {}\n", said(done), path.display()));
        }
        if place.root == Path::new("/") {
            carry_out("systemctl", &["daemon-reload"]);
        }
        Ok(Exit::Passed)
    }

    fn needs_root(root: &Path) -> Result<()> {
        if root != Path::new("/") || nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        Err(Error::new(
            Code::NotRoot,
            format!("expected to run as root, found uid {}", nix::unistd::geteuid()),
        )
        .hint("sudo assay-gates host …"))
    }

    /// What couldn't be carried out is said with the line to paste; the files stand all the same.
    fn carry_out(program: &str, arguments: &[&str]) {
        let line = format!("{program} {}", arguments.join(" "));
        match Rights::own().command(program).args(arguments).output() {
            Ok(output) if output.status.success() => report::diagnostic(&format!("done: {line}")),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                report::diagnostic(&format!("not done: {line}: {why}"));
            }
            Err(error) => report::diagnostic(&format!("not done: {line}: {error}")),
        }
    }

    fn said(done: Done) -> &'static str {
        match done {
            Done::Written => "written",
            Done::Unchanged => "unchanged",
            Done::Kept => "kept",
            Done::Removed => "removed",
            Done::Absent => "absent",
        }
    }
}
