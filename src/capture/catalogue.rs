//! Every way in which a program can ask the kernel for something, and what becomes of it here: `catalogue.yaml`.

use super::Operation;
use crate::error::{Code, Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

const TEXT: &str = include_str!("catalogue.yaml");

/// The document. Its types are described in the file itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    schema: String,
    version: u32,
    kernel: String,
    reasons: Vec<Reason>,
    blind_spots: Vec<String>,
    syscalls: Vec<Syscall>,
    kernel_names: BTreeMap<String, String>,
    foreign: Vec<String>,
    io_uring: Vec<RingOperation>,
    ioctls: Vec<IoctlGroup>,
    families: Vec<SocketFamily>,
}

/// Why something has no effect outside of the process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// The name that entries use.
    pub name: String,
    /// In words.
    pub why: String,
    /// What a recording therefore can't see.
    #[serde(default)]
    pub blind_spot: Option<String>,
}

/// What becomes of one entry. Exactly one of `operation` and `without_effect` stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Treatment {
    /// Recorded as this.
    #[serde(default)]
    pub operation: Option<Operation>,
    /// By another hook than the exit of the syscall.
    #[serde(default)]
    pub hook: Option<String>,
    /// Refused in a gate.
    #[serde(default)]
    pub fenced: bool,
    /// Not recorded, for this reason.
    #[serde(default)]
    pub without_effect: Option<String>,
}

/// One syscall.
#[derive(Clone, Debug, Deserialize)]
pub struct Syscall {
    /// Name.
    pub name: String,
    /// Number on x86_64.
    #[serde(default)]
    pub x86_64: Option<i32>,
    /// Number in the generic table, which aarch64 uses.
    #[serde(default)]
    pub generic: Option<i32>,
    /// What becomes of it.
    #[serde(flatten)]
    pub treatment: Treatment,
}

impl Syscall {
    /// Number on the architecture that this is built for; none where that does not have it.
    #[must_use]
    pub fn number(&self) -> Option<i32> {
        if cfg!(target_arch = "x86_64") { self.x86_64 } else { self.generic }
    }
}

/// One operation of an `io_uring`.
#[derive(Clone, Debug, Deserialize)]
pub struct RingOperation {
    /// Name, as the kernel's constants have it.
    pub name: String,
    /// Number.
    pub opcode: i32,
    /// What becomes of it.
    #[serde(flatten)]
    pub treatment: Treatment,
}

/// The ioctls of one type.
#[derive(Clone, Debug, Deserialize)]
pub struct IoctlGroup {
    /// Name.
    pub name: String,
    /// Bits 8 to 15 of the command; the group of all others has none.
    #[serde(default, rename = "type")]
    pub kind: Option<u32>,
    /// Commands that are not treated as their group is.
    #[serde(default)]
    pub commands: Vec<IoctlCommand>,
    /// What becomes of those that write (bit 30), or of all when they say nothing of a direction.
    #[serde(flatten)]
    pub treatment: Treatment,
}

/// One command that is not treated as its group is.
#[derive(Clone, Debug, Deserialize)]
pub struct IoctlCommand {
    /// Name.
    pub name: String,
    /// The whole command.
    pub command: u32,
    /// What becomes of it.
    #[serde(flatten)]
    pub treatment: Treatment,
}

/// One family of sockets.
#[derive(Clone, Debug, Deserialize)]
pub struct SocketFamily {
    /// Name.
    pub name: String,
    /// Number.
    pub family: i32,
    /// What becomes of its sockets.
    #[serde(flatten)]
    pub treatment: Treatment,
}

/// Which catalogue a recording was made under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueRef {
    /// Raised with every change.
    pub version: u32,
    /// The newest kernel whose syscalls it names.
    pub kernel: String,
    /// Digest of the file.
    pub sha256: files::Sha256Digest,
}

struct Indexed {
    catalogue: Catalogue,
    by_number: BTreeMap<i32, usize>,
}

static INDEXED: LazyLock<Indexed> = LazyLock::new(|| {
    // A test parses it, so this falls back to a catalogue that knows nothing, under which nothing is decoded.
    let catalogue = Catalogue::parse(TEXT, "catalogue.yaml").unwrap_or_else(|_| Catalogue {
        schema: String::new(),
        version: 0,
        kernel: String::new(),
        reasons: Vec::new(),
        blind_spots: Vec::new(),
        syscalls: Vec::new(),
        kernel_names: BTreeMap::new(),
        foreign: Vec::new(),
        io_uring: Vec::new(),
        ioctls: Vec::new(),
        families: Vec::new(),
    });
    let numbered = catalogue.syscalls.iter().enumerate();
    let by_number = numbered.filter_map(|(at, row)| Some((row.number()?, at))).collect();
    Indexed { catalogue, by_number }
});

/// The catalogue of this build.
#[must_use]
pub fn embedded() -> &'static Catalogue {
    &INDEXED.catalogue
}

impl Catalogue {
    /// Reads a catalogue; `place` names the file in errors.
    ///
    /// # Errors
    /// `DefinitionInvalid`: unknown key, another schema, an entry that is neither recorded nor without effect, or both,
    /// a reason that is not there, a name or number twice.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let catalogue: Self = files::parse_yaml(text, place, Code::DefinitionInvalid)?;
        let wrong = |message: String| Err(Error::new(Code::DefinitionInvalid, message).at(place));
        if catalogue.schema != "assay.gates.catalogue.v0" {
            return wrong(format!("expected schema assay.gates.catalogue.v0, found {}", catalogue.schema));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (kind, name, number, treatment) in catalogue.entries() {
            let reason_known = treatment
                .without_effect
                .as_ref()
                .is_none_or(|reason| catalogue.reasons.iter().any(|known| known.name == *reason));
            if treatment.operation.is_some() == treatment.without_effect.is_some() || !reason_known {
                return wrong(format!(
                    "expected of {kind} {name} either an operation, or without_effect with a reason of the list"
                ));
            }
            if !seen.insert((kind, name.to_owned()))
                || number.is_some_and(|number| !seen.insert((kind, format!("number {number}"))))
            {
                return wrong(format!("{kind} {name} stands twice, or its number does"));
            }
        }
        for row in &catalogue.syscalls {
            if row.generic.is_some_and(|number| !seen.insert(("syscall", format!("generic number {number}"))))
            {
                return wrong(format!("syscall {} stands twice, or its number does", row.name));
            }
        }
        Ok(catalogue)
    }

    /// Everything in it: kind, name, number, what becomes of it.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &str, Option<i64>, &Treatment)> {
        let syscalls = self
            .syscalls
            .iter()
            .map(|row| ("syscall", row.name.as_str(), row.x86_64.map(i64::from), &row.treatment));
        let rings = self
            .io_uring
            .iter()
            .map(|row| ("io_uring", row.name.as_str(), Some(i64::from(row.opcode)), &row.treatment));
        let groups = self
            .ioctls
            .iter()
            .map(|row| ("ioctl group", row.name.as_str(), row.kind.map(i64::from), &row.treatment));
        let commands = self
            .ioctls
            .iter()
            .flat_map(|group| &group.commands)
            .map(|row| ("ioctl", row.name.as_str(), Some(i64::from(row.command)), &row.treatment));
        let families = self
            .families
            .iter()
            .map(|row| ("family", row.name.as_str(), Some(i64::from(row.family)), &row.treatment));
        syscalls.chain(rings).chain(groups).chain(commands).chain(families)
    }

    /// Every syscall, those of x86_64 by their number there.
    #[must_use]
    pub fn syscalls(&self) -> &[Syscall] {
        &self.syscalls
    }

    /// Whether a function of the kernel (`__x64_sys_` or `__arm64_sys_`, and this name) carries out a syscall that the catalogue names.
    #[must_use]
    pub fn knows(&self, function: &str) -> bool {
        let name = self.kernel_names.get(function).map_or(function, String::as_str);
        self.foreign.iter().any(|known| known == name) || self.syscalls.iter().any(|row| row.name == name)
    }

    /// Every operation of an `io_uring`, by its number.
    #[must_use]
    pub fn io_uring(&self) -> &[RingOperation] {
        &self.io_uring
    }

    /// Every family of sockets.
    #[must_use]
    pub fn families(&self) -> &[SocketFamily] {
        &self.families
    }

    /// Every group of ioctls.
    #[must_use]
    pub fn ioctls(&self) -> &[IoctlGroup] {
        &self.ioctls
    }

    /// What a proof says of it.
    #[must_use]
    pub fn reference(&self) -> CatalogueRef {
        CatalogueRef {
            version: self.version,
            kernel: self.kernel.clone(),
            sha256: files::sha256(TEXT.as_bytes()),
        }
    }

    /// What a recording under this catalogue can't see, in fixed words.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<String> {
        let by_reason = self.reasons.iter().filter_map(|reason| reason.blind_spot.clone());
        let unaddressed: Vec<&str> = self
            .families
            .iter()
            .filter(|family| family.treatment.operation == Some(Operation::Socket))
            .map(|family| family.name.as_str())
            .collect();
        let families = format!(
            "traffic of sockets of these families is recorded only as their creation and calls with an address: {}",
            unaddressed.join(", ")
        );
        by_reason.chain([families]).chain(self.blind_spots.iter().cloned()).collect()
    }

    /// What becomes of an ioctl: its operation, or `None` when it has no effect outside of the process.
    #[must_use]
    pub fn ioctl(&self, command: u32) -> Option<Operation> {
        let kind = command >> 8 & 0xff;
        let group = self.ioctls.iter().find(|group| group.kind == Some(kind));
        let group = group.or_else(|| self.ioctls.iter().find(|group| group.kind.is_none()))?;
        if let Some(named) = group.commands.iter().find(|named| named.command == command) {
            return named.treatment.operation;
        }
        let (reads, writes) = (command >> 31 & 1 == 1, command >> 30 & 1 == 1);
        group.treatment.operation.filter(|_| writes || !reads)
    }
}

/// The syscall of that number on the architecture that this is built for.
#[must_use]
pub fn syscall(nr: i32) -> Option<&'static Syscall> {
    INDEXED.by_number.get(&nr).and_then(|at| INDEXED.catalogue.syscalls.get(*at))
}

/// Name of any syscall for a record that carries only its number.
#[must_use]
pub fn syscall_name(nr: i32) -> String {
    syscall(nr).map_or_else(|| format!("syscall_{nr}"), |row| row.name.clone())
}

/// Name of an `io_uring` opcode, and whether its whole effect is recorded. `URING_CMD` hands bytes to a driver, and an
/// opcode newer than the catalogue may do anything: neither is.
#[must_use]
pub fn uring(opcode: i32) -> (String, bool) {
    match INDEXED.catalogue.io_uring.iter().find(|row| row.opcode == opcode) {
        Some(row) => (row.name.clone(), row.treatment.operation != Some(Operation::DeviceControl)),
        None => (format!("opcode_{opcode}"), false),
    }
}

/// Calls that the sandbox's fence can refuse, in order of their numbers. They end without having begun.
pub static FENCED: LazyLock<Vec<(i32, &'static str)>> = LazyLock::new(|| {
    let rows = INDEXED.by_number.iter().map(|(nr, at)| (*nr, &INDEXED.catalogue.syscalls[*at]));
    rows.filter(|(_, row)| row.treatment.fenced).map(|(nr, row)| (nr, row.name.as_str())).collect()
});

/// The fence answers this one as a kernel without it does, and libc calls `clone` instead: no effect.
pub const CLONE3: i32 = 435;

/// The name of a call that the fence can refuse.
#[must_use]
pub fn fenced(nr: i32) -> Option<&'static str> {
    FENCED.iter().find(|(fenced, _)| *fenced == nr).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_of_this_build_is_whole() {
        Catalogue::parse(TEXT, "catalogue.yaml").unwrap();
        for row in embedded().syscalls() {
            let native = if cfg!(target_arch = "x86_64") { row.x86_64 } else { row.generic };
            assert_eq!(row.number(), native);
            assert!(native.is_none_or(|nr| syscall_name(nr) == row.name), "{}", row.name);
        }
        assert_eq!((syscall_name(9999), syscall(9999).is_none()), ("syscall_9999".into(), true));
        assert_eq!(uring(18), ("OPENAT".into(), true));
        assert!(!uring(46).1 && !uring(64).1);
        assert_eq!(uring(200), ("opcode_200".into(), false));
        assert!(embedded().blind_spots().len() > 5);
    }

    #[test]
    fn an_entry_that_is_neither_recorded_nor_without_effect_is_refused_and_so_is_one_that_is_both() {
        for (entry, what) in [
            ("{name: x, x86_64: 1}", "either an operation"),
            ("{name: x, operation: open, without_effect: r}", "either an operation"),
            ("{name: x, without_effect: elsewhere}", "either an operation"),
            ("{name: y, x86_64: 7, operation: open}", "stands twice"),
            ("{name: z, generic: 8, operation: open}", "stands twice"),
        ] {
            let text = format!(
                "schema: assay.gates.catalogue.v0\nversion: 1\nkernel: '1'\nreasons: [{{name: r, why: w}}]\nblind_spots: []\n\
                 kernel_names: {{}}\nforeign: []\nsyscalls: [{entry}, {{name: y, operation: open, x86_64: 7, generic: 8}}]\nio_uring: []\nioctls: []\nfamilies: []\n"
            );
            let error = Catalogue::parse(&text, "c").unwrap_err();
            assert!(error.message().contains(what), "{entry}: {error}");
        }
    }

    #[test]
    fn an_ioctl_is_what_its_group_says_unless_it_is_named_or_only_reads() {
        let of = |command| embedded().ioctl(command);
        assert_eq!(of(0x4008_6602), Some(Operation::SetAttributes)); // FS_IOC_SETFLAGS
        assert_eq!(of(0x401c_5820), Some(Operation::SetAttributes)); // FS_IOC_FSSETXATTR
        assert_eq!(of(0x5412), Some(Operation::DeviceControl)); // TIOCSTI
        assert_eq!(of(0x8921), Some(Operation::DeviceControl)); // SIOCGIFMTU: says nothing of its direction
        for reads in [0x8008_6601, 0x801c_581f, 0xc020_660b, 0x5401, 0x541b, 0x5451, 0x4004_9409] {
            assert_eq!(of(reads), None, "{reads:#x}");
        }
    }

    #[test]
    fn the_kernel_programs_record_exactly_what_the_catalogue_says_the_exit_of_a_syscall_shows() {
        let table = include_str!("../../ebpf/syscalls.h");
        let body = &table[table.find("descriptors[SYSCALLS] = {").unwrap()..];
        let mut legacy = false;
        let mut found: Vec<(&str, bool)> = Vec::new();
        for line in body.lines().skip(1).take_while(|line| *line != "};") {
            match line.split_whitespace().next() {
                Some("#ifdef") => legacy = line == "#ifdef __TARGET_ARCH_x86",
                Some("#endif") => legacy = false,
                _ => {
                    let (name, _) = line.trim_start().strip_prefix("[NR_").unwrap().split_once(']').unwrap();
                    found.push((name, legacy));
                }
            }
        }
        found.sort_unstable();
        let mut recorded: Vec<(&str, bool)> = embedded()
            .syscalls()
            .iter()
            .filter(|row| row.treatment.operation.is_some() && row.treatment.hook.is_none())
            .map(|row| (row.name.as_str(), row.generic.is_none()))
            .collect();
        recorded.sort_unstable();
        assert_eq!(found, recorded, "name, and whether only x86_64 has it");
    }
}
