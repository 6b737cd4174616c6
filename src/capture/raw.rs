//! The records as the kernel programs write them: the same layout as `ebpf/record.h`.

/// A ring record begins with this; segments follow up to `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole record.
    pub size: u32,
    /// A [`kind`].
    pub kind: u16,
    /// Index into [`HOOKS`].
    pub hook: u16,
    /// Kernel monotonic time, nanoseconds.
    pub time_ns: u64,
    /// Cgroup of the task.
    pub cgroup_id: u64,
    /// Number of the tool call that the task's server was working on, as the driver gave it; 0 for none.
    pub call: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Number of the task, from 1, never reused within a session; 0 when unknown.
    pub serial: u32,
    /// Number of the record within its task, from 1.
    pub seq: u32,
    /// Syscall number, io_uring opcode or kind of address.
    pub nr: i32,
    /// [`mark`] bits.
    pub marks: u32,
    /// Return value.
    pub ret: i64,
    /// First argument kept.
    pub a: u64,
    /// Second argument kept.
    pub b: u64,
    /// Third argument kept.
    pub c: u64,
}

/// Kinds of records.
pub mod kind {
    #![allow(missing_docs, reason = "each is described in ebpf/record.h")]
    pub const SYSCALL: u16 = 1;
    pub const BIRTH: u16 = 2;
    pub const EXEC: u16 = 3;
    pub const EXIT: u16 = 4;
    pub const ATTACH: u16 = 5;
    pub const ADDRESS: u16 = 6;
    pub const URING_SUBMIT: u16 = 7;
    pub const URING_COMPLETE: u16 = 8;
    pub const EXIT_ONLY: u16 = 9;
    pub const ENTER_TWICE: u16 = 10;
    pub const FOREIGN: u16 = 11;
}

/// Bits of [`Header::marks`].
pub mod mark {
    #![allow(missing_docs, reason = "each is described in ebpf/record.h")]
    pub const TOCTOU: u32 = 1 << 0;
    pub const SHARED_FDS: u32 = 1 << 1;
    pub const FD_GONE: u32 = 1 << 2;
    pub const IN_SYSCALL: u32 = 1 << 3;
    pub const OUTSIDE: u32 = 1 << 4;
    pub const ROOT: u32 = 1 << 5;
    pub const IA32: u32 = 1 << 6;
    pub const X32: u32 = 1 << 7;
    pub const READ_FAULT: u32 = 1 << 8;
    pub const NO_STORAGE: u32 = 1 << 9;
    pub const SCRIPT: u32 = 1 << 10;
    pub const AARCH32: u32 = 1 << 12;
}

/// Kinds of segments.
pub mod segment {
    #![allow(missing_docs, reason = "each is described in ebpf/record.h")]
    pub const FILE: u8 = 1;
    pub const BASE: u8 = 2;
    pub const REQUESTED: u8 = 3;
    pub const BASE2: u8 = 4;
    pub const REQUESTED2: u8 = 5;
    pub const ADDRESS: u8 = 6;
    pub const INTERPRETER: u8 = 7;
}

/// Bits of [`Segment::state`].
pub mod state {
    #![allow(missing_docs, reason = "each is described in ebpf/record.h")]
    pub const DELETED: u8 = 1 << 0;
    pub const DETACHED: u8 = 1 << 1;
    pub const FOREIGN: u8 = 1 << 2;
    pub const TRUNCATED: u8 = 1 << 3;
    pub const ANONYMOUS: u8 = 1 << 4;
    pub const FAULT: u8 = 1 << 5;
}

/// Names of the counting hooks, in the order of `enum hook`.
pub const HOOKS: [&str; 16] = [
    "openat",
    "openat2",
    "connect",
    "sendto",
    "sendmsg",
    "path",
    "bind",
    "other_family",
    "exec",
    "birth",
    "exit",
    "attach",
    "address",
    "io_uring",
    "control",
    "anomaly",
];

/// `struct counters`: everything that can fail and everything that must add up.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records committed, by hook.
    pub emitted: [u64; HOOKS.len()],
    /// Records that the ring refused, by hook.
    pub dropped: [u64; HOOKS.len()],
    /// Bytes committed.
    pub bytes: u64,
    /// Syscalls begun in the session.
    pub enters: u64,
    /// Syscalls ended in the session.
    pub exits: u64,
    /// Tasks born.
    pub births: u64,
    /// Tasks ended.
    pub deaths: u64,
    /// Task storage that could not be had.
    pub storage_fail: u64,
    /// Per-CPU scratch, or entries of processes of servers, that could not be had.
    pub map_fail: u64,
    /// Strings or addresses that could not be read though the kernel could.
    pub read_fault: u64,
    /// Paths cut at 4096 bytes.
    pub truncated: u64,
    /// Paths that ended outside the task's mount namespace or could not be walked.
    pub unknown_state: u64,
    /// sendto without a peer.
    pub sendto_no_peer: u64,
    /// sendmsg without a peer.
    pub sendmsg_no_peer: u64,
    /// sendto to another family than IP.
    pub sendto_non_ip: u64,
    /// sendmsg to another family than IP.
    pub sendmsg_non_ip: u64,
}

impl Counters {
    /// Adds another CPU's.
    pub fn add(&mut self, other: &Counters) {
        for (sum, value) in self.emitted.iter_mut().zip(other.emitted) {
            *sum += value;
        }
        for (sum, value) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += value;
        }
        self.bytes += other.bytes;
        self.enters += other.enters;
        self.exits += other.exits;
        self.births += other.births;
        self.deaths += other.deaths;
        self.storage_fail += other.storage_fail;
        self.map_fail += other.map_fail;
        self.read_fault += other.read_fault;
        self.truncated += other.truncated;
        self.unknown_state += other.unknown_state;
        self.sendto_no_peer += other.sendto_no_peer;
        self.sendmsg_no_peer += other.sendmsg_no_peer;
        self.sendto_non_ip += other.sendto_non_ip;
        self.sendmsg_non_ip += other.sendmsg_non_ip;
    }

    /// Records committed by all hooks.
    #[must_use]
    pub fn total_emitted(&self) -> u64 {
        self.emitted.iter().sum()
    }

    /// Records refused by the ring, of all hooks.
    #[must_use]
    pub fn total_dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

/// One string of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// A [`segment`] kind.
    pub kind: u8,
    /// [`state`] bits.
    pub state: u8,
    /// The bytes, without an ending NUL.
    pub bytes: &'a [u8],
}

/// One record, borrowed from the buffer it was read into.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The fixed part.
    pub header: Header,
    tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses one record that must fill `bytes` exactly; `None` when it has not the layout expected.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = Header::parse(bytes)?;
        let tail = bytes.get(size_of::<Header>()..)?;
        let known = header.size as usize == bytes.len() && usize::from(header.hook) < HOOKS.len();
        let record = Self { header, tail };
        (known && (kind::SYSCALL..=kind::FOREIGN).contains(&header.kind) && record.well_formed())
            .then_some(record)
    }

    fn well_formed(&self) -> bool {
        let whole: usize = self.segments().map(|segment| 4 + segment.bytes.len()).sum();
        whole == self.tail.len()
    }

    /// The strings, in the order written.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'a>> + use<'a> {
        let mut rest = self.tail;
        std::iter::from_fn(move || {
            let (&[kind, state, low, high], after) = rest.split_first_chunk::<4>()?;
            let (bytes, after) = after.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
            rest = after;
            Some(Segment { kind, state, bytes })
        })
    }

    /// The first string of that kind.
    #[must_use]
    pub fn segment(&self, kind: u8) -> Option<Segment<'a>> {
        self.segments().find(|segment| segment.kind == kind)
    }
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        use std::mem::offset_of;
        Some(Self {
            size: u32_at(offset_of!(Self, size))?,
            kind: u16_at(offset_of!(Self, kind))?,
            hook: u16_at(offset_of!(Self, hook))?,
            time_ns: u64_at(offset_of!(Self, time_ns))?,
            cgroup_id: u64_at(offset_of!(Self, cgroup_id))?,
            call: u64_at(offset_of!(Self, call))?,
            pid: u32_at(offset_of!(Self, pid))?,
            tid: u32_at(offset_of!(Self, tid))?,
            serial: u32_at(offset_of!(Self, serial))?,
            seq: u32_at(offset_of!(Self, seq))?,
            nr: u32_at(offset_of!(Self, nr))?.cast_signed(),
            marks: u32_at(offset_of!(Self, marks))?,
            ret: u64_at(offset_of!(Self, ret))?.cast_signed(),
            a: u64_at(offset_of!(Self, a))?,
            b: u64_at(offset_of!(Self, b))?,
            c: u64_at(offset_of!(Self, c))?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The bytes of a record, for tests of what reads them.
    pub(crate) fn bytes(mut header: Header, segments: &[(u8, u8, &[u8])]) -> Vec<u8> {
        let tail: Vec<u8> = segments
            .iter()
            .flat_map(|(kind, state, text)| {
                let mut out = vec![*kind, *state];
                out.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
                out.extend(*text);
                out
            })
            .collect();
        header.size = u32::try_from(size_of::<Header>() + tail.len()).unwrap();
        let mut out = Vec::new();
        out.extend(header.size.to_le_bytes());
        out.extend(header.kind.to_le_bytes());
        out.extend(header.hook.to_le_bytes());
        out.extend(header.time_ns.to_le_bytes());
        out.extend(header.cgroup_id.to_le_bytes());
        out.extend(header.call.to_le_bytes());
        for value in
            [header.pid, header.tid, header.serial, header.seq, header.nr.cast_unsigned(), header.marks]
        {
            out.extend(value.to_le_bytes());
        }
        for value in [header.ret.cast_unsigned(), header.a, header.b, header.c] {
            out.extend(value.to_le_bytes());
        }
        out.extend(tail);
        out
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let header =
            Header { kind: kind::SYSCALL, pid: 7, nr: -1, ret: -2, c: u64::MAX, ..Header::default() };
        let bytes = bytes(header, &[(segment::BASE, 0, b"/a"), (segment::REQUESTED, state::FAULT, b"")]);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(Header { size: record.header.size, ..header }, record.header);
        assert_eq!(record.segment(segment::BASE).unwrap().bytes, b"/a");
        assert_eq!(record.segment(segment::REQUESTED).unwrap().state, state::FAULT);
        assert!(record.segment(segment::FILE).is_none());
    }

    #[test]
    fn a_record_that_is_cut_or_padded_is_refused() {
        let whole = bytes(Header { kind: kind::EXIT, ..Header::default() }, &[(segment::FILE, 0, b"/x")]);
        assert!(Record::parse(&whole).is_some());
        for end in 0..whole.len() {
            assert!(Record::parse(&whole[..end]).is_none(), "{end}");
        }
        let mut padded = whole.clone();
        padded.push(0);
        assert!(Record::parse(&padded).is_none());
        let mut wrong_length = whole;
        let at = size_of::<Header>() + 2;
        wrong_length[at] = 1;
        assert!(Record::parse(&wrong_length).is_none());
    }
}
