//! Kernel records to effects, in ring order.

use super::raw::{Record, kind, mark, segment, state};
use super::text::{self, Peer};
use super::{CallWindow, Effect, Operation, PathValue, catalogue};
use std::collections::{HashMap, VecDeque};

const CLONE_THREAD: u64 = 0x0001_0000;
const AT_REMOVEDIR: u64 = 0x200;
const CREAT_FLAGS: u64 = 0o1101; // O_CREAT | O_WRONLY | O_TRUNC
const EFAULT: i64 = -14;
const EPERM: i64 = -1;
const ENOSYS: i64 = -38;
const EAFNOSUPPORT: i64 = -97;
/// Mark of a call that the sandbox's fence refused.
pub const REFUSED: &str = "refused";

/// Turns records into effects. Give it every record in order; effects come out of [`Decoder::next`].
#[derive(Debug, Default)]
pub struct Decoder {
    seq: u64,
    ready: VecDeque<Effect>,
    processes: HashMap<u32, u32>,
    next_process: u32,
    calls: HashMap<u64, Call>,
    /// Processes of the recorder itself, whose records are verified elsewhere and are no effects.
    canaries: Vec<u32>,
    active_canary: Option<u32>,
    addresses: HashMap<u32, VecDeque<Address>>,
    requests: HashMap<u64, Effect>,
}

/// Mark of an effect that belongs to several calls at once.
pub const CONCURRENT: &str = "calls_concurrent";

#[derive(Debug)]
struct Call {
    id: String,
    ambiguous: bool,
    concurrent: bool,
}

#[derive(Debug)]
struct Address {
    kind: i32,
    peer: Peer,
    effect: Effect,
}

const ADDRESS_KINDS: [(Operation, &str); 3] =
    [(Operation::Connect, "connect"), (Operation::Bind, "bind"), (Operation::Sendmsg, "sendmsg")];

impl Decoder {
    /// A decoder that leaves out the processes in `canaries` (in order of birth) and names the calls by their numbers.
    #[must_use]
    pub fn new(calls: &[CallWindow], canaries: &[u32]) -> Self {
        let calls = calls
            .iter()
            .map(|call| {
                (
                    call.number,
                    Call {
                        id: call.tool_call_id.clone(),
                        ambiguous: call.ambiguous,
                        concurrent: call.group.is_some(),
                    },
                )
            })
            .collect();
        let mut canaries = canaries.to_vec();
        canaries.reverse();
        Self { calls, canaries, ..Self::default() }
    }

    /// The next effect that is complete.
    pub fn next(&mut self) -> Option<Effect> {
        let mut effect = self.ready.pop_front()?;
        effect.seq = self.seq;
        self.seq += 1;
        Some(effect)
    }

    /// Takes one record.
    pub fn take(&mut self, record: &Record<'_>) {
        let header = &record.header;
        if self.of_canary(record) {
            return;
        }
        if header.kind == kind::ADDRESS {
            return self.address(record);
        }
        let mut effect = self.effect(record);
        match header.kind {
            kind::SYSCALL => {
                if !self.syscall(record, &mut effect) {
                    return;
                }
            }
            kind::BIRTH => self.birth(record, &mut effect),
            kind::EXEC => executed(record, &mut effect),
            kind::EXIT => {
                effect.operation = Operation::Exit;
                effect.syscall = "sched_process_exit".into();
                effect.return_value = Some(header.ret);
            }
            kind::ATTACH => {
                effect.operation = Operation::CgroupAttach;
                effect.syscall = "cgroup_attach_task".into();
                let by = self
                    .processes
                    .get(&((header.a >> 32) as u32))
                    .map_or("driver".into(), ToString::to_string);
                effect.detail = Some(format!("by={by}"));
            }
            kind::URING_SUBMIT => {
                self.flush_addresses(header.tid);
                return self.submit(record, effect);
            }
            kind::URING_COMPLETE => {
                if let Some(mut request) = self.requests.remove(&header.a) {
                    // The address that a worker thread used for this request belongs before its result.
                    self.flush_addresses_of(request.pid);
                    request.return_value = Some(header.ret);
                    self.ready.push_back(request);
                }
                return;
            }
            kind::EXIT_ONLY if header.nr == catalogue::CLONE3 && header.ret == ENOSYS => return,
            kind::EXIT_ONLY => {
                effect.operation = Operation::ExitWithoutEnter;
                effect.syscall = catalogue::syscall_name(header.nr);
                effect.return_value = Some(header.ret);
                if catalogue::fenced(header.nr).is_some() && [EPERM, EAFNOSUPPORT].contains(&header.ret) {
                    effect.operation = Operation::Escape;
                    effect.marks.push(REFUSED.into());
                    arguments(record, &mut effect);
                }
            }
            kind::FOREIGN => {
                effect.operation = Operation::ForeignAbi;
                effect.syscall = format!("nr_{}", header.nr);
            }
            _ => {
                effect.operation = Operation::ExitWithoutEnter;
                effect.syscall = catalogue::syscall_name(header.nr);
                effect.marks.push("enter_twice".into());
            }
        }
        // One sendmmsg has several addresses: they wait for their own records.
        if !ADDRESS_KINDS.iter().any(|(operation, _)| joins(*operation, effect.operation)) {
            self.flush_addresses(header.tid);
        }
        self.ready.push_back(effect);
    }

    /// The last records are in: what still waits for its other half comes out as it is.
    pub fn finish(&mut self) {
        let tids: Vec<u32> = self.addresses.keys().copied().collect();
        for tid in tids {
            self.flush_addresses(tid);
        }
        let mut open: Vec<Effect> = self.requests.drain().map(|(_, effect)| effect).collect();
        open.sort_by_key(|effect| effect.time_ns);
        self.ready.extend(open);
    }

    fn of_canary(&mut self, record: &Record<'_>) -> bool {
        let header = &record.header;
        if header.kind == kind::BIRTH && self.canaries.last() == Some(&header.pid) {
            self.active_canary = self.canaries.pop();
        }
        let ours = self.active_canary == Some(header.pid);
        // The kernel's workers of its ring end before it.
        if ours && header.kind == kind::EXIT && header.tid == header.pid {
            self.active_canary = None;
        }
        ours
    }

    fn process(&mut self, pid: u32) -> u32 {
        let next = &mut self.next_process;
        *self.processes.entry(pid).or_insert_with(|| {
            *next += 1;
            *next - 1
        })
    }

    /// What every effect has; the operation is filled in by who knows it.
    fn effect(&mut self, record: &Record<'_>) -> Effect {
        let header = &record.header;
        if header.kind == kind::BIRTH && header.a & CLONE_THREAD == 0 {
            self.processes.remove(&header.pid); // the number of an earlier process, used again
        }
        let call = self.calls.get(&header.call);
        let overlapped = call.is_some_and(|call| call.ambiguous);
        let concurrent = call.is_some_and(|call| call.concurrent && !call.ambiguous);
        let call = call.map(|call| call.id.clone());
        let marks = [
            (mark::TOCTOU, "toctou_suspect"),
            (mark::FD_GONE, "fd_gone"),
            (mark::OUTSIDE, "outside_session"),
            (mark::IA32, "ia32"),
            (mark::X32, "x32"),
            (mark::AARCH32, "aarch32"),
            // What the kernel could not read either is no doubt of ours.
            (if header.ret == EFAULT { 0 } else { mark::READ_FAULT }, "read_fault"),
            (mark::NO_STORAGE, "no_task_storage"),
            (mark::SCRIPT, "script"),
        ];
        Effect {
            seq: 0,
            time_ns: header.time_ns,
            pid: header.pid,
            tid: header.tid,
            process: self.process(header.pid),
            cgroup_id: header.cgroup_id,
            call,
            server: None,
            operation: Operation::Escape,
            syscall: String::new(),
            path: None,
            object: None,
            argv: Vec::new(),
            target: None,
            endpoint: None,
            flags: None,
            mode: None,
            resolve: None,
            return_value: None,
            detail: None,
            marks: marks
                .iter()
                .filter(|(bit, _)| header.marks & bit != 0)
                .map(|(_, name)| (*name).to_owned())
                .chain(overlapped.then(|| "calls_overlapped".to_owned()))
                .chain(concurrent.then(|| CONCURRENT.to_owned()))
                .collect(),
        }
    }

    fn birth(&mut self, record: &Record<'_>, effect: &mut Effect) {
        let header = &record.header;
        effect.operation = Operation::Fork;
        effect.syscall = "task_newtask".into();
        effect.flags = Some(header.a);
        let thread = if header.a & CLONE_THREAD == 0 { "process" } else { "thread" };
        let parent =
            self.processes.get(&((header.b >> 32) as u32)).filter(|_| header.marks & mark::ROOT == 0);
        effect.detail = Some(format!("{thread} of {}", parent.map_or("driver".into(), ToString::to_string)));
    }

    /// False when the call, by its arguments, does nothing outside of its process.
    fn syscall(&mut self, record: &Record<'_>, effect: &mut Effect) -> bool {
        let header = &record.header;
        effect.syscall = catalogue::syscall_name(header.nr);
        effect.return_value = Some(header.ret);
        let Some(operation) = self.operation(record) else { return false };
        effect.operation = operation;
        arguments(record, effect);
        if operation == Operation::Signal {
            effect.detail = Some(format!("signal={} to {}", signal(record).1, self.recipient(record)));
        }
        if let Some(address) = record.segment(segment::ADDRESS) {
            self.peer(address.bytes, effect);
            return true;
        }
        (effect.path, effect.target) = paths(record);
        names(record, effect);
        true
    }

    fn operation(&self, record: &Record<'_>) -> Option<Operation> {
        const NULL: u64 = 0;
        let header = &record.header;
        let Some(row) = catalogue::syscall(header.nr) else { return Some(Operation::Escape) };
        match row.treatment.operation? {
            Operation::DeviceControl => catalogue::embedded().ioctl(header.a as u32),
            // A signal 0 asks whether a process is there.
            Operation::Signal if signal(record).1 == 0 => None,
            Operation::Signal if self.recipient(record) == "itself" => None,
            // Limits that are only asked for.
            Operation::ProcessControl if row.name == "prlimit64" && header.c == NULL => None,
            Operation::Socket => {
                let family = (header.a as u32).cast_signed();
                let families = catalogue::embedded().families();
                match families.iter().find(|known| known.family == family) {
                    Some(known) => {
                        (known.treatment.operation == Some(Operation::Socket)).then_some(Operation::Socket)
                    }
                    None => Some(Operation::Socket),
                }
            }
            operation => Some(operation),
        }
    }

    /// To whom a signal goes, without a number that differs between runs.
    fn recipient(&self, record: &Record<'_>) -> String {
        let header = &record.header;
        let to = signal(record).0;
        if catalogue::syscall_name(header.nr) == "pidfd_send_signal" {
            return "a process by its descriptor".to_owned();
        }
        match to {
            0 => "its group".to_owned(),
            -1 => "all".to_owned(),
            ..-1 => "a group".to_owned(),
            _ if to == i64::from(header.pid) || to == i64::from(header.tid) => "itself".to_owned(),
            _ => match u32::try_from(to).ok().and_then(|to| self.processes.get(&to)) {
                Some(process) => format!("process {process}"),
                None => "another process".to_owned(),
            },
        }
    }

    /// The endpoint of a call: what the kernel copied wins over what stood in the program's memory afterwards.
    fn peer(&mut self, sockaddr: &[u8], effect: &mut Effect) {
        effect.endpoint = text::endpoint(sockaddr);
        let Some(waiting) = self.addresses.get_mut(&effect.tid) else { return };
        let same = |kind: i32| {
            ADDRESS_KINDS
                .get((kind - 1) as usize)
                .is_some_and(|(operation, _)| joins(*operation, effect.operation))
        };
        if !waiting.front().is_some_and(|address| same(address.kind)) {
            return;
        }
        if let Some(truth) = waiting.pop_front()
            && Peer::of_sockaddr(sockaddr) != Some(truth.peer)
        {
            effect.endpoint = Some(truth.peer.to_string());
            effect.marks.push("toctou_suspect".into());
        }
        if waiting.is_empty() {
            self.addresses.remove(&effect.tid);
        }
    }

    fn address(&mut self, record: &Record<'_>) {
        let header = &record.header;
        let mut effect = self.effect(record);
        let known = usize::try_from(header.nr - 1).ok().and_then(|at| ADDRESS_KINDS.get(at));
        let (Some((operation, name)), Some(peer)) =
            (known, Peer::of_kernel(header.a, header.b, header.c, header.ret as u16))
        else {
            return;
        };
        effect.operation = *operation;
        effect.syscall = format!("cgroup/{name}{}", header.a);
        effect.endpoint = Some(peer.to_string());
        self.addresses.entry(header.tid).or_default().push_back(Address { kind: header.nr, peer, effect });
    }

    /// Addresses that no syscall of the same thread accounts for: `io_uring` workers.
    fn flush_addresses(&mut self, tid: u32) {
        if let Some(waiting) = self.addresses.remove(&tid) {
            self.ready.extend(waiting.into_iter().map(|address| address.effect));
        }
    }

    fn flush_addresses_of(&mut self, pid: u32) {
        let waits =
            |waiting: &VecDeque<Address>| waiting.front().is_some_and(|address| address.effect.pid == pid);
        let mut tids: Vec<u32> =
            self.addresses.iter().filter(|(_, waiting)| waits(waiting)).map(|(tid, _)| *tid).collect();
        tids.sort_unstable();
        for tid in tids {
            self.flush_addresses(tid);
        }
    }

    fn submit(&mut self, record: &Record<'_>, mut effect: Effect) {
        let header = &record.header;
        effect.operation = Operation::IoUring;
        effect.syscall = catalogue::uring(header.nr).0;
        (effect.path, effect.target) = paths(record);
        effect.flags = (header.b != 0).then_some(header.b);
        effect.mode = (header.c != 0).then_some(header.c);
        if let Some(earlier) = self.requests.insert(header.a, effect) {
            self.ready.push_back(earlier);
        }
    }
}

fn joins(seen: Operation, called: Operation) -> bool {
    seen == called || (seen == Operation::Sendmsg && called == Operation::Sendto)
}

fn executed(record: &Record<'_>, effect: &mut Effect) {
    effect.operation = Operation::Exec;
    effect.syscall = "execve".into();
    effect.return_value = Some(0);
    let asked = record.segment(segment::REQUESTED);
    effect.path = record.segment(segment::FILE).map(|file| text::resolved(file, asked));
    if record.header.marks & mark::SCRIPT != 0 {
        effect.target = asked.map(|asked| text::requested(asked, record.segment(segment::BASE)));
    }
}

fn paths(record: &Record<'_>) -> (Option<PathValue>, Option<PathValue>) {
    let asked = record.segment(segment::REQUESTED);
    let path = match record.segment(segment::FILE) {
        Some(file) if file.state & state::FAULT != 0 && asked.is_none() && record.header.ret < 0 => None,
        Some(file) => Some(text::resolved(file, asked)),
        None => asked.map(|asked| text::requested(asked, record.segment(segment::BASE))),
    };
    let target = record.segment(segment::REQUESTED2).map(|asked| match record.segment(segment::BASE2) {
        Some(base) => text::requested(asked, Some(base)),
        None => text::link_text(asked),
    });
    (path, target)
}

/// What the kept arguments mean depends on the syscall.
fn arguments(record: &Record<'_>, effect: &mut Effect) {
    let header = &record.header;
    let (a, b, c) = (header.a, header.b, header.c);
    match effect.operation {
        Operation::Open => {
            effect.flags = Some(if effect.syscall == "creat" { CREAT_FLAGS } else { a });
            effect.mode = Some(b);
            effect.resolve = (c != 0).then_some(c);
        }
        Operation::Unlink if effect.syscall == "unlinkat" => {
            effect.flags = Some(a);
            if a & AT_REMOVEDIR != 0 {
                effect.operation = Operation::Rmdir;
            }
        }
        Operation::Rename | Operation::Link | Operation::Exec => effect.flags = (a != 0).then_some(a),
        Operation::Mkdir | Operation::Chmod => effect.mode = Some(a),
        Operation::Mknod => {
            effect.mode = Some(a);
            effect.detail = Some(format!("device={b}"));
        }
        Operation::Chown => effect.detail = Some(format!("uid={} gid={}", owner(a), owner(b))),
        Operation::Truncate => effect.detail = Some(format!("length={}", a.cast_signed())),
        Operation::Sendto | Operation::Sendmsg => effect.flags = Some(a),
        Operation::SetAttributes | Operation::DeviceControl if effect.syscall == "ioctl" => {
            effect.detail = Some(format!("command={:#x}", a as u32));
        }
        Operation::Socket => effect.detail = Some(format!("family={} type={} protocol={}", a, b & 0xf, c)),
        Operation::Ipc if effect.syscall.ends_with("get") => {
            let flags = if effect.syscall == "msgget" { b } else { c };
            effect.detail = Some(format!("key={:#x} flags={flags:#o}", a as u32));
        }
        Operation::Ipc if effect.syscall.ends_with("ctl") => {
            let command = if effect.syscall == "semctl" { c } else { b };
            effect.detail = Some(format!("command={command}"));
        }
        Operation::Key if effect.syscall == "keyctl" => effect.detail = Some(format!("command={a}")),
        Operation::Mount => effect.flags = (a != 0 && record.segments().next().is_some()).then_some(a),
        Operation::Namespace => {
            effect.detail = Some(format!("flags={:#x}", if effect.syscall == "unshare" { a } else { b }));
        }
        Operation::Escape => {
            let argument = |value: u64| value.cast_signed();
            effect.detail = Some(match effect.syscall.as_str() {
                "ptrace" => format!("request={} pid={}", argument(a), argument(b)),
                "unshare" | "setns" => {
                    format!("flags={:#x}", if effect.syscall == "unshare" { a } else { b })
                }
                "clone" => format!("flags={a:#x}"),
                "socket" | "socketpair" => format!("family={a} type={b} protocol={c}"),
                "keyctl" => format!("operation={a}"),
                "bpf" => format!("command={a}"),
                "process_vm_readv" | "process_vm_writev" => format!("pid={}", argument(a)),
                "io_uring_setup" => format!("entries={a}"),
                _ => return,
            });
        }
        _ => {}
    }
}

/// What stands beside a path as a second string, or instead of one, and is none itself.
fn names(record: &Record<'_>, effect: &mut Effect) {
    match effect.operation {
        Operation::Setxattr | Operation::Removexattr => {
            effect.detail = effect.target.take().map(|name| format!("name={}", name.value));
        }
        Operation::MessageQueue | Operation::Key => {
            effect.path = None;
            if let Some(name) = record.segment(segment::REQUESTED) {
                effect.detail = Some(format!("name={}", text::escape(name.bytes)));
            }
        }
        _ => {}
    }
}

/// Whom a call that signals means, and which signal.
fn signal(record: &Record<'_>) -> (i64, u64) {
    let header = &record.header;
    let to = i64::from((header.a as u32).cast_signed());
    let third = matches!(catalogue::syscall_name(header.nr).as_str(), "tgkill" | "rt_tgsigqueueinfo");
    (to, u64::from(if third { header.c } else { header.b } as u32))
}

/// A user or group id argument; -1 means "leave as it is".
fn owner(argument: u64) -> i64 {
    i64::from((argument as u32).cast_signed())
}
