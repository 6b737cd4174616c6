//! The books of one run: every record is entered, and what the records say must agree with itself.
//!
//! The ledger knows nothing of the kernel's counters or of the ring; the recorder compares its totals with those.

use super::raw::{Record, kind, mark, segment, state};
use super::{Operation, PathState, PathValue, catalogue, text};
use std::collections::{BTreeMap, BTreeSet, HashMap};

const CORE_DUMPED: i64 = 0x80;
/// Witnesses kept for one reason; the count goes on.
const WITNESSES: usize = 3;

/// What the records say of one task.
#[derive(Clone, Debug, Default)]
struct Task {
    pid: u32,
    tid: u32,
    known: bool,
    first_is_birth: bool,
    last_seq: u32,
    gaps: u32,
    exit_only: u64,
    enter_twice: u64,
    death: Option<Death>,
    after_death: u32,
}

#[derive(Clone, Copy, Debug)]
struct Death {
    enters: u64,
    exits: u64,
    in_syscall: Option<i32>,
}

/// One named reason why a run is not complete, with the records that show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// How often.
    pub count: u64,
    /// The first few, in words.
    pub witnesses: Vec<String>,
}

impl Finding {
    fn add(&mut self, witness: String) {
        self.count += 1;
        if self.witnesses.len() < WITNESSES {
            self.witnesses.push(witness);
        }
    }
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    tasks: HashMap<u32, Task>,
    /// Records entered.
    pub records: u64,
    /// Bytes of the records entered.
    pub bytes: u64,
    /// Records that do not have the layout expected.
    pub malformed: u64,
    /// Records without task storage (and not of a kind that has none).
    pub without_storage: u64,
    /// Births whose parent is outside the session, by process id, in order.
    pub roots: Vec<u32>,
    /// Tasks that moved themselves in, on their way to what is measured.
    pub joined: u64,
    /// Everything that makes the run escape its observation, by reason.
    pub findings: BTreeMap<&'static str, Finding>,
    /// Records of each canary, by process id.
    pub canaries: BTreeMap<u32, Vec<String>>,
    /// Workers that the kernel started for the canaries' rings. How many there are is the kernel's to choose.
    pub canary_workers: u64,
    known_pids: BTreeSet<u32>,
    reached: Vec<(u32, String)>,
    /// One process changed another, or took hold of it.
    pub tampering: Finding,
    births: u64,
    parent: u32,
    canary_pids: Vec<u32>,
}

/// Whether two sets of books, or two sides of one, agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// They do.
    pub held: bool,
    /// What must be.
    pub expected: String,
    /// What is.
    pub seen: String,
}

impl Balance {
    fn of(held: bool, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { held, expected: expected.into(), seen: seen.into() }
    }
}

impl Ledger {
    /// Empty books. `parent` is the process whose children may move themselves in; `canaries` are the recorder's own processes.
    #[must_use]
    pub fn new(parent: u32, canaries: &[u32]) -> Self {
        Self { parent, canary_pids: canaries.to_vec(), ..Self::default() }
    }

    /// Enters what stands in the spool as one record.
    pub fn enter(&mut self, bytes: &[u8]) {
        self.records += 1;
        self.bytes += bytes.len() as u64;
        match Record::parse(bytes) {
            Some(record) => self.record(&record),
            None => self.malformed += 1,
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        let header = &record.header;
        self.follow_task(record);
        if self.canary_pids.contains(&header.pid) {
            self.canaries.entry(header.pid).or_default().extend(canary_line(record));
            if header.kind == kind::BIRTH {
                self.births += 1;
                self.canary_workers += u64::from(header.tid != header.pid);
            }
            return;
        }
        match header.kind {
            kind::BIRTH => self.birth(record),
            kind::ATTACH => self.attach(record),
            kind::EXIT if header.ret & CORE_DUMPED != 0 => {
                self.find("core_dumped", format!("process {} ended with {:#x}", header.pid, header.ret));
            }
            kind::FOREIGN => self
                .find("foreign_abi_syscall", format!("process {} called number {}", header.pid, header.nr)),
            kind::URING_SUBMIT => {
                let (name, decoded) = catalogue::uring(header.nr);
                if !decoded {
                    self.find(
                        "io_uring_opcode_not_decoded",
                        format!("process {} submitted {name}", header.pid),
                    );
                }
            }
            kind::SYSCALL => {
                self.escape(record);
                self.memory(record);
            }
            _ => {}
        }
        self.path_states(record);
    }

    fn follow_task(&mut self, record: &Record<'_>) {
        let header = &record.header;
        if header.serial == 0 {
            // Socket programs have no task storage, and a child born outside is none of ours: both are known cases.
            let expected = header.kind == kind::ADDRESS
                || (header.kind == kind::BIRTH && header.marks & mark::OUTSIDE != 0);
            self.without_storage += u64::from(!expected);
            return;
        }
        let task = self.tasks.entry(header.serial).or_default();
        if !task.known {
            task.known = true;
            task.first_is_birth = matches!(header.kind, kind::BIRTH | kind::ATTACH);
        }
        (task.pid, task.tid) = (header.pid, header.tid);
        task.gaps += u32::from(header.seq != task.last_seq + 1);
        task.last_seq = header.seq;
        task.after_death += u32::from(task.death.is_some());
        match header.kind {
            kind::EXIT_ONLY => task.exit_only += 1,
            kind::ENTER_TWICE => task.enter_twice += 1,
            kind::EXIT => {
                let in_syscall = (header.marks & mark::IN_SYSCALL != 0).then_some(header.nr);
                task.death = Some(Death { enters: header.a, exits: header.b, in_syscall });
            }
            _ => {}
        }
    }

    fn birth(&mut self, record: &Record<'_>) {
        let header = &record.header;
        self.births += 1;
        self.known_pids.extend([header.pid, header.tid]);
        if header.marks & mark::OUTSIDE != 0 {
            self.find(
                "task_born_outside",
                format!("process {} was born into cgroup {}", header.pid, header.cgroup_id),
            );
        }
        if header.marks & mark::ROOT != 0 {
            self.roots.push(header.pid);
        }
    }

    fn attach(&mut self, record: &Record<'_>) {
        let header = &record.header;
        self.known_pids.extend([header.pid, header.tid]);
        let mover = (header.a >> 32) as u32;
        let movers_parent = (header.b >> 32) as u32;
        let joined = header.c != 0;
        // A child of the driver's, or of the init it started, that moves itself in, before it runs anything else.
        let joins_itself = joined && mover == header.pid && movers_parent == self.parent;
        if header.marks & mark::OUTSIDE == 0 && joins_itself {
            self.joined += 1;
            return;
        }
        self.find(
            "task_moved",
            format!("process {mover} moved process {} to cgroup {}", header.pid, header.cgroup_id),
        );
    }

    fn escape(&mut self, record: &Record<'_>) {
        let header = &record.header;
        let escape = |row: &&catalogue::Syscall| row.treatment.operation == Some(Operation::Escape);
        let Some(row) = catalogue::syscall(header.nr).filter(escape) else {
            return;
        };
        if header.ret < 0 {
            return;
        }
        let said = format!("process {}: {}", header.pid, row.name);
        if matches!(row.name.as_str(), "ptrace" | "process_vm_writev" | "pidfd_getfd") {
            self.tampering.add(said.clone());
        }
        match row.name.as_str() {
            "bpf" => self.find("bpf_call_succeeded", said),
            "perf_event_open" => self.find("perf_event_opened", said),
            "init_module" | "finit_module" => self.find("kernel_module_loaded", said),
            "kexec_load" | "kexec_file_load" => self.find("kernel_replaced", said),
            "pidfd_getfd" => self.find("descriptor_taken", said),
            "ptrace" if header.a != 0 => self.reached.push((header.b as u32, said)),
            "process_vm_readv" | "process_vm_writev" => self.reached.push((header.a as u32, said)),
            _ => {}
        }
    }

    /// The memory of a process was opened to be written.
    fn memory(&mut self, record: &Record<'_>) {
        let header = &record.header;
        let written = header.a & 3 != 0 || catalogue::syscall_name(header.nr) == "creat";
        if header.ret < 0 || !written {
            return;
        }
        let Some(file) = record.segment(segment::FILE) else { return };
        let path = text::resolved(file, None).value;
        if path.starts_with("/proc/") && path.ends_with("/mem") {
            self.tampering.add(format!("process {}: opened {path} to write", header.pid));
        }
    }

    /// A call that succeeded on a path which could not be established leaves a hole in the evidence.
    fn path_states(&mut self, record: &Record<'_>) {
        let header = &record.header;
        if header.ret < 0 || !matches!(header.kind, kind::SYSCALL | kind::EXEC | kind::URING_SUBMIT) {
            return;
        }
        if header.marks & mark::FD_GONE != 0 {
            self.find(
                "opened_file_unknown",
                format!("process {}: descriptor {} was gone", header.pid, header.ret),
            );
        }
        let file = record.segment(segment::FILE);
        for part in record.segments() {
            let unknown = match part.kind {
                segment::FILE => unestablished(&text::resolved(part, None)),
                // The string tells nothing more when the kernel gave the file.
                segment::REQUESTED | segment::REQUESTED2 if file.is_none() => {
                    unestablished(&text::link_text(part))
                }
                segment::BASE | segment::BASE2
                    if part.state & (state::DETACHED | state::FOREIGN | state::FAULT) != 0 =>
                {
                    (file.is_none() && !is_absolute_elsewhere(record, part.kind)).then_some("path_detached")
                }
                _ => None,
            };
            if let Some(reason) = unknown {
                let name = catalogue::syscall_name(header.nr);
                self.find(reason, format!("process {}: {name} on {}", header.pid, text::escape(part.bytes)));
            }
        }
    }

    fn find(&mut self, reason: &'static str, witness: String) {
        self.findings.entry(reason).or_default().add(witness);
    }

    /// Closes the books: what can only be said when everything is in.
    pub fn close(&mut self) {
        for (pid, said) in std::mem::take(&mut self.reached) {
            // In a process namespace of its own a session can name no process outside, and names its own otherwise.
            let namespaced = self.parent != std::process::id();
            if !namespaced && !self.known_pids.contains(&pid) {
                self.find("process_outside_reached", format!("{said} on process {pid}"));
            }
        }
    }

    /// Every task's records are numbered 1 to n, begin with its birth and end with its death.
    #[must_use]
    pub fn sequences(&self) -> Balance {
        let broken: Vec<String> = self.broken(|task| {
            (task.gaps > 0 || !task.first_is_birth || task.death.is_none() || task.after_death > 0).then(
                || {
                    let death = if task.death.is_some() { "" } else { ", no end" };
                    let birth = if task.first_is_birth { "" } else { ", no birth" };
                    format!("{} gaps{birth}{death}", task.gaps)
                },
            )
        });
        let count = self.tasks.len();
        Balance::of(broken.is_empty(), format!("{count} of {count} tasks whole"), self.said(&broken))
    }

    /// In every task, each syscall that began ended, but for exit and those that seccomp or ptrace cut short.
    #[must_use]
    pub fn automaton(&self) -> Balance {
        let broken = self.broken(|task| {
            let death = task.death?;
            let ended_inside = u64::from(death.in_syscall.is_some());
            let returned_from_birth =
                (death.exits + ended_inside).wrapping_sub(death.enters + task.exit_only);
            let last_is_exit = death.in_syscall.is_none_or(|nr| nr == -1 || ends_its_task(nr));
            let whole = returned_from_birth <= 1 && last_is_exit && task.enter_twice == 0;
            (!whole).then(|| {
                format!(
                    "{} begun, {} ended, {} ended only, {} begun twice, last {:?}",
                    death.enters, death.exits, task.exit_only, task.enter_twice, death.in_syscall
                )
            })
        });
        Balance::of(
            broken.is_empty(),
            "every syscall that began ended, or was the task's last",
            self.said(&broken),
        )
    }

    /// Everything that was born died.
    #[must_use]
    pub fn lives(&self) -> Balance {
        let dead = self.tasks.values().filter(|task| task.death.is_some()).count();
        let born = self.births + self.joined;
        let outside = self.findings.get("task_born_outside").map_or(0, |finding| finding.count);
        Balance::of(
            dead as u64 == born - outside && outside == 0,
            format!("{born} born or joined, all of them ended in the session"),
            format!("{dead} ended, {outside} born outside"),
        )
    }

    /// Syscalls begun and ended, by what the tasks said at their end.
    #[must_use]
    pub fn syscalls(&self) -> (u64, u64) {
        let deaths = self.tasks.values().filter_map(|task| task.death);
        deaths.fold((0, 0), |(enters, exits), death| (enters + death.enters, exits + death.exits))
    }

    /// Births and deaths recorded.
    #[must_use]
    pub fn births_and_deaths(&self) -> (u64, u64) {
        (self.births, self.tasks.values().filter(|task| task.death.is_some()).count() as u64)
    }

    fn broken(&self, wrong: impl Fn(&Task) -> Option<String>) -> Vec<String> {
        let mut all: Vec<(u32, String)> = self
            .tasks
            .iter()
            .filter_map(|(serial, task)| {
                Some((*serial, format!("process {} thread {}: {}", task.pid, task.tid, wrong(task)?)))
            })
            .collect();
        all.sort();
        all.into_iter().map(|(_, text)| text).collect()
    }

    fn said(&self, broken: &[String]) -> String {
        match broken {
            [] => format!("{} tasks, all whole", self.tasks.len()),
            [first, ..] => format!("{} tasks broken; {first}", broken.len()),
        }
    }
}

fn ends_its_task(nr: i32) -> bool {
    catalogue::syscall(nr).is_some_and(|row| matches!(row.name.as_str(), "exit" | "exit_group"))
}

/// An absolute string does not depend on a base that could not be walked, unless the process is in a chroot, where it does.
fn is_absolute_elsewhere(record: &Record<'_>, base: u8) -> bool {
    let text = if base == segment::BASE { segment::REQUESTED } else { segment::REQUESTED2 };
    record
        .segment(text)
        .is_some_and(|text| text.bytes.first() == Some(&b'/') && text.state & state::FAULT == 0)
        && record.segment(base).is_some_and(|base| base.state & state::DETACHED == 0 && base.bytes.is_empty())
}

/// One record of a canary in the words in which its script is written, with all that it could have read wrongly. None for the kernel's own
/// workers of its ring: how many there are is theirs to choose.
fn canary_line(record: &Record<'_>) -> Option<String> {
    let header = &record.header;
    let path =
        |kind| record.segment(kind).map_or(String::new(), |part| format!(" {}", text::escape(part.bytes)));
    let worker = header.tid != header.pid;
    Some(match header.kind {
        kind::BIRTH | kind::EXIT if worker => return None,
        kind::BIRTH => "birth".into(),
        kind::EXIT => format!("exit {}", header.ret),
        kind::EXEC => format!("exec{}", path(segment::FILE)),
        kind::ATTACH => "attach".into(),
        kind::ADDRESS => {
            let peer = text::Peer::of_kernel(header.a, header.b, header.c, header.ret as u16);
            format!("address {} {}", header.nr, peer.map_or_else(String::new, |peer| peer.to_string()))
        }
        kind::URING_SUBMIT => {
            let (first, second) = (path(segment::REQUESTED), path(segment::REQUESTED2));
            format!("submit {}{first}{second} [{:x}]", header.nr, header.c)
        }
        kind::URING_COMPLETE => format!("complete {}", header.ret),
        kind::SYSCALL => {
            let name = catalogue::syscall_name(header.nr);
            let endpoint = record.segment(segment::ADDRESS).and_then(|part| text::endpoint(part.bytes));
            let endpoint = endpoint.map_or(String::new(), |endpoint| format!(" {endpoint}"));
            let what = if record.segment(segment::FILE).is_some() {
                path(segment::FILE)
            } else {
                path(segment::REQUESTED)
            };
            // An address of the child's own memory tells nothing.
            let (b, c) = if name == "io_uring_setup" { (0, 0) } else { (header.b, header.c) };
            let second = path(segment::REQUESTED2);
            format!("{name}{what}{second}{endpoint} = {} [{:x} {b:x} {c:x}]", header.ret, header.a)
        }
        other => format!("kind {other}"),
    })
}

/// A call that succeeded on a path which the capture could not establish: what was done is known, where is not.
fn unestablished(path: &PathValue) -> Option<&'static str> {
    match path.state {
        PathState::Detached => Some("path_detached"),
        PathState::Truncated => Some("path_truncated"),
        PathState::Unreadable => Some("path_unreadable"),
        PathState::Resolved | PathState::Requested | PathState::Deleted | PathState::Anonymous => None,
    }
}
