//! Effects to kernel events: the subset of a recording that the v0 contract names, in its words.
//!
//! A kernel event says what the kernel did, so its path is the kernel's own for an open that succeeded and the
//! requested one, made absolute, for an open that failed. A path that is not known whole becomes null, never a part
//! that reads like a whole.

use super::contract::{KernelEvent, schema};
use super::filter::{Filter, Sieve, Tally};
use crate::capture::{Effect, Operation, PathState, PathValue};
use crate::error::{Code, Error, Result};
use std::net::SocketAddr;

/// Records of one archive; more is a named refusal.
pub const MAX_RECORDS: usize = 10_000;
/// Bytes of `layers/kernel.ndjson`, newlines counted; more is a named refusal.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Largest integer that every JSON reader keeps exactly.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

const O_TMPFILE: u64 = 0o20_000_000; // the bit of its own; the one of O_DIRECTORY beside it differs between architectures

/// Which table of labels kernel events are written by. The fields are the same, and `flags` decides in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelVersion {
    /// `exclusive` stands at O_NOCTTY, as v0 froze it; older readers know no other.
    #[default]
    V0,
    /// `exclusive` stands at O_EXCL.
    V1,
}

impl KernelVersion {
    /// By schema id.
    #[must_use]
    pub fn of(id: &str) -> Option<Self> {
        match id {
            schema::KERNEL_EVENT => Some(Self::V0),
            schema::KERNEL_EVENT_V1 => Some(Self::V1),
            _ => None,
        }
    }

    /// That of a whole layer, which has one; v0 of an empty one.
    #[must_use]
    pub fn of_layer(events: &[KernelEvent]) -> Self {
        events.first().and_then(|event| Self::of(&event.schema)).unwrap_or_default()
    }

    /// Schema id.
    #[must_use]
    pub const fn schema(self) -> &'static str {
        match self {
            Self::V0 => schema::KERNEL_EVENT,
            Self::V1 => schema::KERNEL_EVENT_V1,
        }
    }

    const fn exclusive(self) -> u64 {
        match self {
            Self::V0 => O_NOCTTY,
            Self::V1 => O_EXCL,
        }
    }
}

/// Kinds of kernel event that this producer writes, with their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Openat,
    Connect,
    Exec,
    Sendto,
    Sendmsg,
}

impl Kind {
    fn of(effect: &Effect) -> Option<Self> {
        match effect.operation {
            Operation::Open => Some(Self::Openat),
            Operation::Exec => Some(Self::Exec),
            Operation::Connect => Some(Self::Connect),
            Operation::Sendto => Some(Self::Sendto),
            Operation::Sendmsg => Some(Self::Sendmsg),
            // Peers of a ring's connects and sends come as effects of their own, from the socket programs.
            Operation::IoUring => ring_open(effect).then_some(Self::Openat),
            _ => None,
        }
    }

    const fn name_and_id(self) -> (&'static str, u32) {
        match self {
            Self::Openat => ("openat", 1),
            Self::Connect => ("connect", 2),
            Self::Exec => ("exec", 4),
            Self::Sendto => ("sendto", 6),
            Self::Sendmsg => ("sendmsg", 7),
        }
    }
}

/// Whether the effect is an open that was submitted to an `io_uring`.
fn ring_open(effect: &Effect) -> bool {
    effect.operation == Operation::IoUring
        && ["openat", "openat2"].iter().any(|name| name.eq_ignore_ascii_case(&effect.syscall))
}

/// Endpoints seen by kind; decides what health says of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Connects to an IP address.
    pub connect: u64,
    /// Sends with an IP peer.
    pub send: u64,
}

/// What an effect is to the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sorted {
    /// A kernel event was appended.
    Evidence,
    /// An open that a rule calls telemetry.
    Telemetry,
    /// Nothing that v0 names; it stands in `effects.ndjson`.
    Other,
}

/// Takes effects in order and keeps the kernel events.
pub struct Normaliser<'a> {
    run_id: &'a str,
    sieve: Sieve<'a>,
    events: Vec<KernelEvent>,
    processes: Vec<u32>,
    tally: Tally,
    endpoints: Endpoints,
    version: KernelVersion,
}

/// What [`Normaliser`] gives at the end.
pub struct Normalised {
    /// The kernel events, in order.
    pub events: Vec<KernelEvent>,
    /// The stable process ordinal of each event.
    pub processes: Vec<u32>,
    /// What was filtered.
    pub tally: Tally,
    /// IP endpoints seen.
    pub endpoints: Endpoints,
}

impl<'a> Normaliser<'a> {
    /// For one run; `work` is its work folder as the measured program sees it.
    #[must_use]
    pub fn new(run_id: &'a str, filter: &'a Filter, work: Option<&str>) -> Self {
        Self {
            run_id,
            sieve: Sieve::new(filter, work),
            events: Vec::new(),
            processes: Vec::new(),
            tally: Tally::default(),
            endpoints: Endpoints::default(),
            version: KernelVersion::default(),
        }
    }

    /// Writes events of this version.
    #[must_use]
    pub const fn version(mut self, version: KernelVersion) -> Self {
        self.version = version;
        self
    }

    /// Takes the next effect.
    ///
    /// # Errors
    /// `BudgetExceeded` past a budget; `NotRepresentable` when v0 has no way to write what happened.
    pub fn take(&mut self, effect: &Effect) -> Result<Sorted> {
        let telemetry = self.sieve.telemetry(effect);
        let Some(kind) = Kind::of(effect) else { return Ok(Sorted::Other) };
        let mut event = self.blank(kind, effect.pid);
        match kind {
            Kind::Openat => {
                if let Some((rule, path)) = telemetry {
                    self.tally.count(rule, path)?;
                    return Ok(Sorted::Telemetry);
                }
                open(&mut event, effect, self.version)?;
            }
            Kind::Exec if effect.return_value.is_some_and(|value| value < 0) => return Ok(Sorted::Other),
            Kind::Exec => event.value = effect.path.as_ref().and_then(whole_path),
            Kind::Connect | Kind::Sendto | Kind::Sendmsg => match endpoint(effect) {
                Endpoint::Ip(value) => {
                    match kind {
                        Kind::Connect => self.endpoints.connect += 1,
                        _ => self.endpoints.send += 1,
                    }
                    event.value = Some(value);
                }
                Endpoint::Undecodable => event.value = None,
                Endpoint::Other => return Ok(Sorted::Other),
            },
        }
        if self.events.len() == MAX_RECORDS {
            return Err(Error::new(
                Code::BudgetExceeded,
                format!("expected at most {MAX_RECORDS} kernel events after filtering, found more"),
            )
            .hint("measure a smaller step; effects.ndjson keeps every effect without this limit"));
        }
        self.events.push(event);
        self.processes.push(effect.process);
        Ok(Sorted::Evidence)
    }

    /// Ends the run.
    #[must_use]
    pub fn finish(self) -> Normalised {
        Normalised {
            events: self.events,
            processes: self.processes,
            tally: self.tally,
            endpoints: self.endpoints,
        }
    }

    fn blank(&self, kind: Kind, pid: u32) -> KernelEvent {
        let (name, event_type) = kind.name_and_id();
        KernelEvent {
            schema: self.version.schema().to_owned(),
            run_id: self.run_id.to_owned(),
            seq: self.events.len() as u64,
            pid,
            event_type,
            kind: name.to_owned(),
            value: None,
            cgroup_id: None,
            network_destination: None,
            network_port: None,
            rule_id: None,
            flags: None,
            mode: None,
            resolve: None,
            return_value: None,
            access_mode: None,
            operation_flags: Vec::new(),
            status: None,
        }
    }
}

/// The kernel events of effects, as [`super::effects::read`] gives them.
///
/// # Errors
/// As [`Normaliser::take`]; what the effects give.
pub fn normalise(
    run_id: &str,
    work: Option<&str>,
    version: KernelVersion,
    effects: impl IntoIterator<Item = Result<Effect>>,
) -> Result<Normalised> {
    let mut normaliser = Normaliser::new(run_id, Filter::embedded()?, work).version(version);
    for effect in effects {
        normaliser.take(&effect?)?;
    }
    Ok(normaliser.finish())
}

fn open(event: &mut KernelEvent, effect: &Effect, version: KernelVersion) -> Result<()> {
    let missing = |what: &str| {
        Error::new(Code::NotRepresentable, format!("expected {what} of an open, found none"))
            .at(format!("effect {}", effect.seq))
    };
    // A ring's request leaves out what is zero.
    let mut flags = match effect.flags {
        None if effect.operation == Operation::IoUring => 0,
        flags => flags.ok_or_else(|| missing("the flags"))?,
    };
    let mut mode = effect.mode.unwrap_or(0);
    let result = effect.return_value.ok_or_else(|| missing("the result"))?;
    if !effect.syscall.eq_ignore_ascii_case("openat2") {
        // Only openat2 takes 64 bits; of the others the kernel reads an int, whatever the register's upper half held.
        flags &= u64::from(u32::MAX);
        mode &= u64::from(u32::MAX);
    }
    for (name, value) in [("flags", flags), ("mode", mode), ("resolve", effect.resolve.unwrap_or(0))] {
        if value > MAX_SAFE_INTEGER {
            return Err(Error::new(
                Code::NotRepresentable,
                format!("expected {name} of at most {MAX_SAFE_INTEGER}, found {value}"),
            )
            .at(format!("effect {}", effect.seq)));
        }
    }
    event.value = effect.path.as_ref().and_then(whole_path);
    if flags & O_TMPFILE == O_TMPFILE {
        // The name is an inode number that the kernel made up; the folder is what the program named.
        event.value = event.value.take().and_then(|path| parent(&path));
    }
    event.flags = Some(flags);
    event.mode = Some(mode);
    event.resolve = effect.resolve.filter(|resolve| *resolve != 0);
    event.return_value = Some(result);
    event.access_mode = Some(access_mode(flags).to_owned());
    event.operation_flags = operation_flags(flags, version.exclusive());
    event.status = Some(status(result).to_owned());
    Ok(())
}

fn parent(path: &str) -> Option<String> {
    let (folder, _name) = path.rsplit_once('/')?;
    Some(if folder.is_empty() { "/".to_owned() } else { folder.to_owned() })
}

/// The path, when it is known whole.
fn whole_path(path: &PathValue) -> Option<String> {
    match path.state {
        PathState::Resolved | PathState::Requested | PathState::Deleted => {
            Some(path.value.clone()).filter(|value| !value.is_empty())
        }
        PathState::Detached | PathState::Truncated | PathState::Anonymous | PathState::Unreadable => None,
    }
}

enum Endpoint {
    Ip(String),
    Other,
    Undecodable,
}

fn endpoint(effect: &Effect) -> Endpoint {
    match &effect.endpoint {
        Some(text) if text.parse::<SocketAddr>().is_ok() => Endpoint::Ip(text.clone()),
        Some(_) => Endpoint::Other,
        None if effect.marks.iter().any(|mark| mark == "no_peer") => Endpoint::Other,
        None => Endpoint::Undecodable,
    }
}

/// `exclusive` stands at O_NOCTTY in v0's frozen table, at O_EXCL in v1's.
const O_NOCTTY: u64 = 0o400;
const O_EXCL: u64 = 0o200;

/// The access mode of an open's flags.
#[must_use]
pub fn access_mode(flags: u64) -> &'static str {
    match flags & 3 {
        0 => "read",
        1 => "write",
        2 => "read_write",
        _ => "unknown",
    }
}

fn status(return_value: i64) -> &'static str {
    if return_value < 0 { "error" } else { "success" }
}

fn operation_flags(flags: u64, exclusive: u64) -> Vec<String> {
    [("create", 0o100), ("truncate", 0o1000), ("append", 0o2000), ("exclusive", exclusive)]
        .into_iter()
        .filter(|(_, bit)| flags & bit != 0)
        .map(|(label, _)| label.to_owned())
        .collect()
}

/// What is wrong with `event` as a line that a producer may emit: what was expected, and what was found.
/// Accepts v0 and v1, each against its own table of labels.
#[must_use]
pub fn first_fault(event: &KernelEvent) -> Option<(String, String)> {
    let fault = |expected: &str, found: String| Some((expected.to_owned(), found));
    let Some(version) = KernelVersion::of(&event.schema) else {
        return fault("schema assay.runner.kernel_event.v0 or v1", event.schema.clone());
    };
    let kinds = [
        ("openat", 1),
        ("connect", 2),
        ("exec", 4),
        ("sendto", 6),
        ("sendmsg", 7),
        ("file_blocked", 10),
        ("connect_blocked", 20),
    ];
    match kinds.iter().find(|(name, _)| *name == event.kind) {
        None => return fault("a known kind", event.kind.clone()),
        Some((_, id)) if *id != event.event_type => {
            return fault(&format!("event_type {id} for {}", event.kind), event.event_type.to_string());
        }
        Some(_) => {}
    }
    if event.value.as_deref() == Some("") {
        return fault("a value or null", "an empty value".to_owned());
    }
    let opens = event.flags.is_some()
        || event.mode.is_some()
        || event.resolve.is_some()
        || event.return_value.is_some()
        || event.access_mode.is_some()
        || !event.operation_flags.is_empty()
        || event.status.is_some();
    let blocked = [
        event.cgroup_id.is_some(),
        event.network_destination.is_some(),
        event.network_port.is_some(),
        event.rule_id.is_some(),
    ];
    if event.kind != "connect_blocked" && blocked.contains(&true) {
        return fault("fields of connect_blocked only there", format!("them in {}", event.kind));
    }
    if blocked.contains(&true) && (blocked.contains(&false) || event.value.is_none()) {
        return fault("all fields of connect_blocked or none", "some".to_owned());
    }
    if event.kind != "openat" {
        return if opens {
            fault("fields of openat only there", format!("them in {}", event.kind))
        } else {
            None
        };
    }
    let (Some(flags), Some(mode), Some(result)) = (event.flags, event.mode, event.return_value) else {
        return fault("flags, mode and return_value of an openat", "one of them missing".to_owned());
    };
    if flags.max(mode).max(event.resolve.unwrap_or(0)).max(result.unsigned_abs()) > MAX_SAFE_INTEGER {
        return fault("numbers of at most 2^53-1", "a larger one".to_owned());
    }
    if event.resolve == Some(0) {
        return fault("resolve omitted when zero", "resolve 0".to_owned());
    }
    let expected = access_mode(flags);
    if event.access_mode.as_deref() != Some(expected) {
        return fault(
            &format!("access_mode {expected} for flags {flags:#o}"),
            event.access_mode.clone().unwrap_or_else(|| "none".to_owned()),
        );
    }
    let labels = operation_flags(flags, version.exclusive());
    if event.operation_flags != labels {
        return fault(
            &format!("operation_flags [{}] for flags {flags:#o}", labels.join(",")),
            format!("[{}]", event.operation_flags.join(",")),
        );
    }
    let expected = status(result);
    if event.status.as_deref() != Some(expected) {
        return fault(
            &format!("status {expected} for return_value {result}"),
            event.status.clone().unwrap_or_else(|| "none".to_owned()),
        );
    }
    None
}
