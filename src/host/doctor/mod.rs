//! `doctor`: tries for real what measuring needs, and says for each thing that is wrong what to paste.
//!
//! It is also the preflight of every run: nothing is measured on a host that isn't fit. Each check is one small
//! function in [`CHECKS`]; none of them changes the host, but for the trials, which clear away after themselves.

mod kernel;
mod leftovers;
mod resources;
mod runner;
mod tools;
mod trial;

use super::hostfile::{DEFAULT_HOST_FILE, HostFile};
use super::session::Host;
use super::state;
use super::user::MeasuredUser;
use crate::capture::Loaded;
use crate::error::{Code, Error, Exit, Result};
use crate::gate::dependencies::{Inspection, Inspector};
use crate::gate::{Catalog, Entry};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// As it must be.
    Pass,
    /// Measuring works, but something should be looked at.
    Warn,
    /// Nothing can be measured, or nothing that could be believed.
    Fail,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found, one line.
    pub found: String,
    /// A line to paste, or what to do, when it did not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn pass(found: impl Into<String>) -> Self {
        Self { name: "", status: Status::Pass, found: found.into(), fix: None }
    }

    fn warn(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: "", status: Status::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: "", status: Status::Fail, found: found.into(), fix: Some(fix.into()) }
    }

    fn error(error: &Error) -> Self {
        Self {
            name: "",
            status: Status::Fail,
            found: format!("{error} [{}]", error.code().name()),
            fix: error.advice().map(str::to_owned),
        }
    }
}

/// `doctor --format json` (`assay.gates.doctor.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `assay.gates.doctor.v0`.
    pub schema: &'static str,
    /// Nothing failed.
    pub fit: bool,
    /// Every check, in the order in which they build on each other.
    pub checks: Vec<Check>,
}

impl Report {
    fn of(checks: Vec<Check>) -> Self {
        let fit = checks.iter().all(|check| check.status != Status::Fail);
        Self { schema: "assay.gates.doctor.v0", fit, checks }
    }

    /// 0 when fit, else 40.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.fit { Exit::Passed } else { Exit::CannotMeasure }
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.status == Status::Fail)
    }
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The measured user, by name or id.
    pub user: Option<&'a str>,
    /// The gates whose packages must be there.
    pub catalog: Option<&'a Catalog>,
    /// The host file.
    pub host_file: &'a Path,
    /// Ask the network too.
    pub online: bool,
    /// What the trials' time limits are multiplied by.
    pub slow: u32,
    /// Try for real too: takes the host, a second or so, and root.
    pub trials: bool,
    /// Ask what only matters for building, and takes as long as everything else.
    pub building: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            user: None,
            catalog: None,
            host_file: Path::new(DEFAULT_HOST_FILE),
            online: true,
            slow: 1,
            trials: true,
            building: true,
        }
    }
}

/// What the checks look at.
struct Context<'a> {
    options: Options<'a>,
    user: Result<MeasuredUser>,
    /// `None` when there is no such file.
    host_file: Option<Result<HostFile>>,
    /// What the gates' fixtures need, looked at when the first check asks.
    inspections: OnceLock<Vec<(String, Result<Inspection>)>>,
    state: PathBuf,
    /// Taken by whoever calls, or for the trials of this very examination; `None` before it comes to them.
    host: Option<Result<&'a Host, &'a Error>>,
    /// For the measured trial, which leaves them for what comes after it.
    programs: Mutex<&'a mut Option<Loaded>>,
}

impl Context<'_> {
    /// Of each gate, what it needs and what is there.
    fn inspections(&self) -> &[(String, Result<Inspection>)] {
        self.inspections.get_or_init(|| {
            let Some(catalog) = self.options.catalog else { return Vec::new() };
            let inspector = Inspector::new(self.user.as_ref().ok().map(|user| (user.uid, user.gid)));
            let look = |entry: &Entry| (entry.definition.id.clone(), inspector.inspect(entry));
            catalog.entries().iter().map(look).collect()
        })
    }
}

type Examine = fn(&Context<'_>) -> Check;

/// Every check but those below, in the order in which they build on each other.
const CHECKS: [(&str, Examine); 19] = [
    ("root", kernel::root),
    ("kernel", kernel::release),
    ("btf", kernel::btf),
    ("lockdown", kernel::lockdown),
    ("kernel-programs", kernel::object),
    ("cgroup", kernel::cgroup),
    ("memlock", resources::memlock),
    ("disk", resources::disk),
    ("inodes", resources::inodes),
    ("clock", resources::clock),
    ("measured-user", trial::user),
    ("node", tools::node),
    ("python", tools::python),
    ("npm", tools::npm),
    ("pip", tools::pip),
    ("clang", tools::clang),
    ("packages", tools::packages),
    ("host-file", runner::host_file),
    ("runner", runner::registration),
];

/// What an earlier run left.
const LEFT: [(&str, Examine); 2] = [("leftovers", leftovers::leftovers), ("lock", leftovers::lock)];

/// What needs the host.
const TRIALS: [(&str, Examine); 2] = [("sandbox", trial::sandbox), ("measurement", trial::measurement)];

/// What keeps this host from measuring, one line each; empty when it is fit.
#[must_use]
pub fn unfit(options: Options<'_>) -> Vec<String> {
    examine(options).failures().map(|check| format!("{}: {}", check.name, check.found)).collect()
}

/// Goes on only on a host that is fit. `programs` serve the measured trial and are there for the first run afterwards.
///
/// # Errors
/// `CannotMeasure`, with the first check that failed and its line to paste.
pub fn preflight(options: Options<'_>, host: &Host, programs: &mut Option<Loaded>) -> Result<Report> {
    let report = look(options, Some(host), programs);
    let mut failures = report.failures();
    let Some(first) = failures.next() else {
        drop(failures);
        return Ok(report);
    };
    let more = match failures.count() {
        0 => String::new(),
        count => format!(" (and {count} more: assay-gates doctor)"),
    };
    let code = if matches!(first.name, "disk" | "inodes") { Code::DiskFull } else { Code::CannotMeasure };
    let error = Error::new(code, format!("{}: {}{more}", first.name, first.found));
    Err(match &first.fix {
        Some(fix) => error.hint(fix.clone()),
        None => error,
    })
}

/// Looks at everything; the host is taken for the trials.
#[must_use]
pub fn examine(options: Options<'_>) -> Report {
    look(options, None, &mut None)
}

fn look(options: Options<'_>, host: Option<&Host>, programs: &mut Option<Loaded>) -> Report {
    let state = host.map_or_else(state::folder, |host| host.state().to_owned());
    let mut context = Context {
        user: MeasuredUser::alone(options.user),
        inspections: OnceLock::new(),
        host_file: options.host_file.exists().then(|| HostFile::load(options.host_file)),
        state: state.clone(),
        options,
        host: None,
        programs: Mutex::new(programs),
    };
    // What a killed run left is looked at before the host is taken: taking it would tidy the lock.
    let named = |checks: &[(&'static str, Examine)], context: &Context<'_>| {
        checks.iter().map(|(name, check)| Check { name, ..check(context) }).collect::<Vec<_>>()
    };
    let left = named(&LEFT, &context);
    let taken;
    context.host = match host {
        _ if !options.trials => None,
        Some(host) => Some(Ok(host)),
        None => {
            taken = Host::visit(&state, "doctor");
            Some(taken.as_ref())
        }
    };
    // Side by side with the trials, since most of them wait for some program to say its version.
    let context = &context;
    let (mut checks, tried) = std::thread::scope(|scope| {
        let looking: Vec<_> = CHECKS.iter().map(|(_, check)| scope.spawn(|| check(context))).collect();
        let tried = if options.trials { named(&TRIALS, context) } else { Vec::new() };
        let found = looking.into_iter().map(|check| {
            check.join().unwrap_or_else(|_| Check::fail("the check panicked", "report this as a defect"))
        });
        let checks: Vec<Check> =
            CHECKS.iter().zip(found).map(|((name, _), check)| Check { name, ..check }).collect();
        (checks, tried)
    });
    checks.extend(left);
    checks.extend(tried);
    Report::of(checks)
}
