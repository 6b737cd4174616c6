//! Every expected failure: its code, its exit code, and how it reads.
//!
//! An [`Error`] says what was expected and found, where, and what to do. Its [`Code`] decides the exit
//! code in one exhaustive match, and names the runbook page that `assay-gates explain` prints.

use std::fmt;
use std::path::Path;

/// Exit codes of the command: a published contract.
///
/// Where several outcomes apply to one invocation, [`Exit::worst`] picks by this precedence, highest first:
/// `EvidenceInvalid` (14), `CaptureIncomplete` (12), `AcceptanceFailed` (10), `RunsDisagree` (11),
/// `Infrastructure` (13); then `CannotMeasure` (40), `ToolFailed` (1), `Usage` (2), `NothingSelected` (3), `Passed` (0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// 0: every selected gate passed and its runs agree.
    Passed,
    /// 1: the tool itself failed.
    ToolFailed,
    /// 2: usage, or a definition that doesn't validate.
    Usage,
    /// 3: nothing selected.
    NothingSelected,
    /// 10: a gate's acceptance failed.
    AcceptanceFailed,
    /// 11: runs disagree.
    RunsDisagree,
    /// 12: capture incomplete, or a scenario inconclusive.
    CaptureIncomplete,
    /// 13: infrastructure: cancelled, timed out, runner lost, upload failed.
    Infrastructure,
    /// 14: evidence invalid: digest, schema or structure.
    EvidenceInvalid,
    /// 40: this host can't measure.
    CannotMeasure,
}

impl Exit {
    /// All codes, worst first: the documented precedence.
    pub const BY_PRECEDENCE: [Exit; 10] = [
        Exit::EvidenceInvalid,
        Exit::CaptureIncomplete,
        Exit::AcceptanceFailed,
        Exit::RunsDisagree,
        Exit::Infrastructure,
        Exit::CannotMeasure,
        Exit::ToolFailed,
        Exit::Usage,
        Exit::NothingSelected,
        Exit::Passed,
    ];

    /// The process exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::ToolFailed => 1,
            Exit::Usage => 2,
            Exit::NothingSelected => 3,
            Exit::AcceptanceFailed => 10,
            Exit::RunsDisagree => 11,
            Exit::CaptureIncomplete => 12,
            Exit::Infrastructure => 13,
            Exit::EvidenceInvalid => 14,
            Exit::CannotMeasure => 40,
        }
    }

    /// The one that wins when all of `outcomes` apply; `Passed` when there are none.
    pub fn worst(outcomes: impl IntoIterator<Item = Exit>) -> Exit {
        let found: Vec<Exit> = outcomes.into_iter().collect();
        Self::BY_PRECEDENCE.into_iter().find(|exit| found.contains(exit)).unwrap_or(Exit::Passed)
    }
}

/// Declares [`Code`]: variant, number, exit code, title.
macro_rules! codes {
    ($($variant:ident = $number:literal, $exit:ident, $title:literal;)*) => {
        /// What failed. Numbers are stable; `assay-gates explain AG###` prints the page of each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }
        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
            /// The stable name, `AG###`.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Code::$variant => concat!("AG", $number),)* } }
            /// One line that says what the code means.
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $(Code::$variant => $title,)* } }
            /// The exit code that this failure ends the process with.
            #[must_use]
            pub const fn exit(self) -> Exit { match self { $(Code::$variant => Exit::$exit,)* } }
        }
    };
}

codes! {
    // 0xx tool
    Io = "001", ToolFailed, "a file or folder could not be read or written";
    Internal = "002", ToolFailed, "the tool broke one of its own rules";
    Usage = "003", Usage, "the command line does not fit";
    NothingSelected = "004", NothingSelected, "nothing was selected";
    Interrupted = "005", Infrastructure, "interrupted before the end";
    DiskFull = "006", CannotMeasure, "a disk has no space or no inodes left";
    // end of tool
    // 1xx gate
    DefinitionInvalid = "101", Usage, "a gate definition does not validate";
    GateUnknown = "102", Usage, "no gate has that name";
    RootTaken = "103", Usage, "the proof root has other content";
    RootBroken = "104", EvidenceInvalid, "a file of the proof root is not what was written";
    ResumeMismatch = "105", Usage, "the proof root is of another invocation";
    RunIncomplete = "106", CaptureIncomplete, "a run did not leave what a run leaves";
    AgentFailed = "107", AcceptanceFailed, "the agent that a gate is to be made of failed";
    DependencyMissing = "120", CannotMeasure, "a fixture's packages are not installed";
    DependencyDiffers = "121", CannotMeasure, "what is installed is not what the lockfile pins";
    DependencyVersion = "122", AcceptanceFailed, "an installed package is not the version that the gate expects";
    InterpreterMissing = "123", CannotMeasure, "no interpreter that the gate asks for and the measured user could execute";
    InstallFailed = "124", Infrastructure, "a fixture's packages could not be installed";
    LockfileInvalid = "125", Usage, "a lockfile pins less than all that is installed, by exact versions and digests";
    LanesInvalid = "140", Usage, "the lane contract does not validate";
    LaneGit = "141", ToolFailed, "git could not say what changed";
    LaneUnproven = "142", AcceptanceFailed, "no proof that the required gate passed on this head";
    LaneStatus = "143", Infrastructure, "the commit status could not be posted";
    // end of gate
    // 2xx host
    CannotMeasure = "201", CannotMeasure, "this host can't measure";
    NotRoot = "202", CannotMeasure, "measuring needs root";
    CgroupUnusable = "203", CannotMeasure, "cgroup v2 can't hold a measured session";
    HostBusy = "204", CannotMeasure, "another measured run holds the host";
    SandboxFailed = "205", CannotMeasure, "the sandbox of the measured program could not be built";
    MeasuredUser = "206", Usage, "the measured program can't run as that user";
    ProgramUnusable = "207", Usage, "the measured user can't execute the program";
    LogUnusable = "208", Usage, "a log of the measured program can't be taken over";
    OutputLost = "209", Infrastructure, "the measured program's output could not be kept";
    TreeSurvives = "210", Infrastructure, "the measured tree could not be ended";
    CallsUnavailable = "211", CannotMeasure, "tool calls can't be told apart on this host";
    HostFile = "270", Usage, "the host file is missing or does not validate";
    NotDedicated = "271", CannotMeasure, "the host is not dedicated to measured runs, so nothing may be removed";
    CleanupBusy = "272", Infrastructure, "a measured run is in progress, so nothing may be removed";
    CleanupIncomplete = "273", Infrastructure, "something stayed after the cleanup";
    BuildRefused = "274", Usage, "a commit may not be built to run as root here";
    BuildFailed = "275", Infrastructure, "the build of a commit failed";
    // end of host
    // 3xx capture
    CaptureUnavailable = "301", CannotMeasure, "this binary or this host can't capture";
    CaptureLoad = "302", CannotMeasure, "the kernel refused the capture programs";
    CaptureCgroup = "303", CannotMeasure, "the session's cgroup can't be captured";
    CaptureConsumer = "304", CaptureIncomplete, "kernel records could not be drained or read back";
    CaptureCanary = "305", CannotMeasure, "the capture did not see its own canary";
    CaptureRecord = "306", EvidenceInvalid, "a kernel record has not the layout expected";
    // end of capture
    // 4xx evidence
    EvidenceInvalid = "401", EvidenceInvalid, "evidence does not verify";
    LogInvalid = "402", EvidenceInvalid, "a policy or SDK log breaks its contract";
    LogMissing = "403", CaptureIncomplete, "a log that was asked for is missing or empty";
    BudgetExceeded = "404", CaptureIncomplete, "a run holds more than an archive may";
    RedactionKey = "405", Usage, "the redaction key can't be used";
    RedactionIncomplete = "406", EvidenceInvalid, "something like a secret survived redaction";
    RunIdInvalid = "407", Usage, "a run id holds other characters than letters, digits, _ and -";
    NotRepresentable = "408", CaptureIncomplete, "what happened has no form in the contract";
    NotComparable = "410", CaptureIncomplete, "two pieces of evidence can't be compared";
    BaselineInvalid = "411", Usage, "a baseline does not validate";
    // end of evidence
    // 5xx policy
    PolicyInvalid = "501", Usage, "a tool policy does not validate";
    DecisionLogUnavailable = "502", ToolFailed, "the decision log can't be written";
    ServerNotStarted = "503", ToolFailed, "the MCP server could not be started";
    ProxyBroken = "504", ToolFailed, "the MCP proxy could not go on";
    PolicyRefused = "505", AcceptanceFailed, "a tool server was to be wrapped in another policy than its run's";
    // end of policy
    // 6xx judge
    EvidenceRefInvalid = "620", EvidenceInvalid, "a reference does not name a record of the pack";
    // end of judge
    // 7xx pack
    PackRootInvalid = "701", EvidenceInvalid, "a proof root can't be packed";
    PackOutExists = "702", Usage, "the place for a pack is taken";
    PackTooLarge = "703", ToolFailed, "a pack holds more than its readers take";
    PackChanged = "704", EvidenceInvalid, "a pack changed while it was read";
    ShardsDiffer = "705", EvidenceInvalid, "shards are not of one run";
    PackInvalid = "710", EvidenceInvalid, "a proof pack is not what it says";
    AttestationInvalid = "720", EvidenceInvalid, "an attestation does not cover the pack";
    AttestationUnsupported = "721", Usage, "this build can't check attestations";
    // end of pack
    // 8xx github
    ArtifactEnvironment = "801", Infrastructure, "the artifact service is not reachable from here";
    ArtifactName = "802", Usage, "the artifact service takes no artifact of that name";
    ArtifactExists = "803", Infrastructure, "an artifact of that name exists already";
    ArtifactRefused = "804", Infrastructure, "the artifact service refused";
    ArtifactGaveUp = "805", Infrastructure, "the artifact service did not answer as it must, several times";
    ArtifactReadBack = "806", EvidenceInvalid, "the stored artifact is not the pack";
    GithubUnreachable = "850", Infrastructure, "GitHub's API could not be reached";
    GithubRefused = "851", ToolFailed, "GitHub's API refused the request";
    GithubNotFound = "852", ToolFailed, "GitHub's API does not know it, or does not show it to this token";
    GithubRateLimited = "853", Infrastructure, "GitHub's API limits the rate";
    GithubAnswer = "854", ToolFailed, "GitHub's API gave an answer that does not fit its description";
    GithubToken = "855", Usage, "no token for GitHub's API";
    GithubRepository = "856", Usage, "no repository is named, and none follows from the git remote";
    NoRunner = "860", Infrastructure, "no online runner has the labels";
    DispatchRefused = "861", ToolFailed, "GitHub refused the dispatch";
    DispatchUnclear = "862", Infrastructure, "whether the dispatch was taken is not known";
    ArtifactGone = "863", Infrastructure, "the run's artifact is missing or expired";
    // end of github
    // 9xx triage
    RulesInvalid = "901", Usage, "the triage rules do not validate";
    ClassUnknown = "902", Usage, "no failure class or error code has that name";
    LogUnreadable = "903", ToolFailed, "a log could not be read";
    TriageInput = "904", Usage, "neither a run, a pack, a log nor a proof root";
    // end of triage
}

/// An expected failure.
///
/// Reads as `message`, with its place in front and its hint apart; it never shows a Debug dump.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    code: Code,
    message: String,
    place: Option<String>,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What this crate's functions give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure: `message` says what was expected and what was found, in a lowercase fragment.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, hint: None, source: None }
    }

    /// An I/O failure at `path`.
    ///
    /// Where a measurement must write and this process sees a read-only filesystem, its unit closes it: that host can't measure.
    /// A disk without space, inodes or quota is [`Code::DiskFull`], whatever was being written.
    pub fn io(doing: &str, path: &Path, source: std::io::Error) -> Self {
        if is_full(&source, path) {
            let quoted = crate::files::quoted(&path.display().to_string());
            return Self::new(Code::DiskFull, format!("{doing}: {source}"))
                .at(path.display())
                .hint(format!("make room on its file system: df -h {quoted}; df -i {quoted}"))
                .because(source);
        }
        let closed = source.kind() == std::io::ErrorKind::ReadOnlyFilesystem
            && ["/var/lib", "/run"].iter().any(|top| path.starts_with(top));
        let code = if closed { Code::CannotMeasure } else { Code::Io };
        let error = Self::new(code, format!("{doing}: {source}")).at(path.display()).because(source);
        if closed {
            return error.hint(
                "in the systemd unit, beside ProtectSystem=strict: ReadWritePaths=/run, StateDirectory=assay-gates assay",
            );
        }
        error
    }

    /// An I/O failure at `path` that means `code`, unless the disk is full.
    pub fn io_as(code: Code, doing: &str, path: &Path, source: std::io::Error) -> Self {
        if is_full(&source, path) {
            return Self::io(doing, path, source);
        }
        Self::new(code, format!("{doing}: {source}")).at(path.display()).because(source)
    }

    /// Names the place: a file, `file:line:column`, or a member of an archive.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(place.to_string());
        self
    }

    /// Says what to do, as a line to paste where there is one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the underlying error for the chain.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What failed.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// Where, if known.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// What to do, if known.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message without place and hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Whether writing at `path` failed for want of space, inodes or quota. The kernel's own file systems say the same of other
/// limits (cgroups, namespaces), and there is no disk to make room on.
#[must_use]
pub fn is_full(error: &std::io::Error, path: &Path) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
        && !["/sys", "/proc"].iter().any(|kernel| path.starts_with(kernel))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_14_12_10_11_13() {
        use Exit::*;
        let all = [Infrastructure, RunsDisagree, AcceptanceFailed, CaptureIncomplete, EvidenceInvalid];
        for (n, expected) in [(5, 14), (4, 12), (3, 10), (2, 11), (1, 13)] {
            assert_eq!(Exit::worst(all[..n].iter().copied()).code(), expected);
        }
        assert_eq!(Exit::worst([]).code(), 0);
        assert_eq!(Exit::worst([Passed, CannotMeasure]).code(), 40);
    }

    #[test]
    fn a_unit_that_closes_the_file_system_is_a_host_that_cannot_measure() {
        let closed = || std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        let error =
            Error::io("cannot create the folder", Path::new("/var/lib/assay-gates/proof/x"), closed());
        assert_eq!(error.exit().code(), 40);
        assert!(error.advice().unwrap().contains("ProtectSystem=strict"), "{error}");
        assert_eq!(Error::io("cannot write", Path::new("/mnt/x"), closed()).exit().code(), 1);
    }

    #[test]
    fn no_space_no_inodes_and_no_quota_are_a_full_disk_but_not_where_there_is_no_disk() {
        for errno in [28, 122] {
            let full = || std::io::Error::from_raw_os_error(errno);
            for error in [
                Error::io("cannot write", Path::new("/srv/it's/x"), full()),
                Error::io_as(Code::OutputLost, "cannot write", Path::new("/srv/it's/x"), full()),
            ] {
                assert_eq!((error.code(), error.exit().code()), (Code::DiskFull, 40));
                assert!(error.advice().unwrap().contains("df -i '/srv/it'\\''s/x'"), "{:?}", error.advice());
            }
            let cgroup = Path::new("/sys/fs/cgroup/x");
            assert_eq!(Error::io("cannot make", cgroup, full()).code(), Code::Io);
            assert_eq!(Error::io_as(Code::CgroupUnusable, "x", cgroup, full()).code(), Code::CgroupUnusable);
        }
    }

    #[test]
    fn code_names_are_unique_and_ordered() {
        let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    }
}
