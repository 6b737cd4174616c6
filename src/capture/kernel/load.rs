//! Loads the embedded object, attaches each program, and says of each whether that worked.

use super::calls::Calls;
use super::recorder::Sabotage;
use crate::capture::object;
use crate::capture::raw::Counters;
use crate::error::{Code, Error, Result};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, loaded_links};
use aya::{Btf, Ebpf, EbpfLoader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A traced program and the names that its tracepoint has had, newest first.
struct Traced {
    program: &'static str,
    tracepoints: &'static [&'static str],
    /// Stands in for the program before it when that one does not fit this kernel.
    fallback: bool,
}

const fn traced(program: &'static str, tracepoints: &'static [&'static str]) -> Traced {
    Traced { program, tracepoints, fallback: false }
}

/// Order matters: deaths and exits before births and entries, so that nothing begins unseen that is then seen to end.
const TRACED: &[Traced] = &[
    traced("on_attach", &["cgroup_attach_task"]),
    traced("on_death", &["sched_process_exit"]),
    traced("on_exec", &["sched_process_exec"]),
    traced("on_exit", &["sys_exit"]),
    traced("on_enter", &["sys_enter"]),
    traced("on_submit", &["io_uring_submit_req", "io_uring_submit_sqe"]),
    traced("on_complete", &["io_uring_complete"]),
    Traced { program: "on_complete_scalars", tracepoints: &["io_uring_complete"], fallback: true },
    traced("on_birth", &["task_newtask"]),
];

const ADDRESSES: &[&str] =
    &["on_connect4", "on_connect6", "on_bind4", "on_bind6", "on_sendmsg4", "on_sendmsg6"];

/// Without these there is nothing to measure with.
const ESSENTIAL: &[&str] = &["on_birth", "on_death", "on_enter", "on_exit"];

/// How long a link may outlive us in a child that is about to exec.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// One program and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// Name in the object.
    pub program: &'static str,
    /// What it hangs on, or why it hangs on nothing.
    pub attached: std::result::Result<String, String>,
    /// The kernel's digest of its instructions.
    pub tag: Option<String>,
}

/// The programs in the kernel, at work. Dropping it detaches them.
pub(super) struct Programs {
    /// What holds each program on its hook; dropping it takes the program off.
    links: Vec<(&'static str, FdLink)>,
    verified: Verified,
    /// One row a program.
    pub hooks: Vec<Hook>,
    /// What earlier sessions of the same programs had missed already.
    missed_before: Vec<(&'static str, Result<u64>)>,
}

/// `struct shared` of the object: the session's level in the hierarchy (-1 until a task has entered it), the last task
/// number, and the session's id.
#[derive(Clone, Copy)]
#[repr(C)]
struct Shared {
    level: i32,
    serial: u32,
    session_id: u64,
}

// SAFETY: plain integers without padding; any bit pattern is a value.
unsafe impl aya::Pod for Shared {}
// SAFETY: an array of u64 in all but name.
unsafe impl aya::Pod for Counters {}

/// The programs, verified by the kernel and attached to nothing. They cost nothing until they are attached, and serve
/// one session after the other.
pub(super) struct Verified {
    ebpf: Ebpf,
    /// `None` while a consumer has it.
    ring: Option<RingBuf<MapData>>,
    calls: Arc<Calls>,
    /// One row a program: the tracepoint that it will hang on, none for a socket program, or why it can't be used.
    loaded: Vec<(&'static str, std::result::Result<Option<&'static str>, String>)>,
}

impl Verified {
    /// Has the kernel check and compile everything: most of what arming costs, and the same for every session.
    pub(super) fn load(ring_bytes: u32, sabotage: &Sabotage) -> Result<Self> {
        let object = object::embedded()
            .ok_or_else(|| Error::new(Code::CaptureUnavailable, "this binary carries no kernel programs"))?;
        // The loader reads the kernel's types for itself, whatever it is given: both at once takes half as long.
        let types = std::thread::spawn(Btf::from_sys_fs);
        let mut loader = EbpfLoader::new();
        let types =
            types.join().map_err(|_| Error::new(Code::Internal, "reading the kernel's BTF panicked"))?;
        let btf = types.map_err(|error| {
            refused("cannot read the kernel's BTF", &error)
                .hint("boot a kernel with CONFIG_DEBUG_INFO_BTF=y (/sys/kernel/btf/vmlinux)")
        })?;
        let wake_bytes = u64::from(ring_bytes / 4);
        let mut ebpf = loader
            .allow_unsupported_maps()
            .override_global("wake_bytes", &wake_bytes, true)
            .map_max_entries("ring", ring_bytes)
            .load(object.bytes)
            .map_err(|error| refused("the kernel refused the capture programs' maps", &error))?;
        let mut loaded: Vec<(&'static str, std::result::Result<Option<&'static str>, String>)> = Vec::new();
        for row in TRACED {
            if row.fallback && loaded.last().is_some_and(|(_, before)| before.is_ok()) {
                continue;
            }
            let tracepoints = if sabotage.missing_hook == Some(row.program) {
                &["no_such_tracepoint"]
            } else {
                row.tracepoints
            };
            let tracepoint = load_traced(&mut ebpf, row.program, tracepoints, &btf);
            if row.fallback {
                loaded.pop(); // one of the two is enough; this one speaks for both
            }
            loaded.push((row.program, tracepoint.map(Some)));
        }
        for program in ADDRESSES {
            let verified = address(&mut ebpf, program)?.load().map_err(|error| chain(&error));
            loaded.push((program, verified.map(|()| None)));
        }
        let ring = ebpf.take_map("ring").ok_or_else(|| missing("ring"))?;
        let ring = RingBuf::try_from(ring).map_err(|error| refused("cannot map the ring", &error))?;
        let calls = Arc::new(Calls::take(&mut ebpf)?);
        Ok(Self { ebpf, ring: Some(ring), calls, loaded })
    }

    /// Forgets the session before: its id, its counts, its calls.
    fn reset(&mut self, session_id: u64) -> Result<()> {
        self.calls.reset()?;
        let map = self.ebpf.map_mut(".data").ok_or_else(|| missing(".data"))?;
        let mut shared: Array<_, Shared> =
            Array::try_from(map).map_err(|error| refused("cannot write .data", &error))?;
        shared
            .set(0, Shared { level: -1, serial: 0, session_id }, 0)
            .map_err(|error| refused("cannot write .data", &error))?;
        let map = self.ebpf.map_mut("counts").ok_or_else(|| missing("counts"))?;
        let mut counts: PerCpuArray<_, Counters> =
            PerCpuArray::try_from(map).map_err(|error| refused("cannot write the counters", &error))?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| refused("cannot count the CPUs", &error))?;
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
            .map_err(|error| refused("cannot write the counters", &error))?;
        counts.set(0, zero, 0).map_err(|error| refused("cannot write the counters", &error))
    }

    /// Times that the kernel ever skipped the program because it was running already.
    fn recursion_misses(&self, program: &str) -> Result<u64> {
        let fd = self.ebpf.program(program).and_then(|program| program.fd().ok());
        let fd = fd.ok_or_else(|| missing("program"))?;
        Ok(program_info(fd.as_fd())?.recursion_misses)
    }
}

impl Programs {
    /// Points the programs at the session and attaches them, the socket programs to `cgroup`.
    pub(super) fn attach(mut verified: Verified, cgroup: BorrowedFd<'_>, session_id: u64) -> Result<Self> {
        verified.reset(session_id)?;
        let mut hooks: Vec<Hook> = Vec::new();
        let mut links: Vec<(&'static str, FdLink)> = Vec::new();
        let Verified { ebpf, loaded, .. } = &mut verified;
        for (program, loaded) in loaded {
            let attached = loaded.clone().and_then(|tracepoint| match tracepoint {
                Some(tracepoint) => attach_traced(ebpf, program, tracepoint),
                None => attach_address(ebpf, program, cgroup),
            });
            let attached = attached.map(|(place, link)| {
                links.push((*program, link));
                place
            });
            let info = ebpf.program(program).and_then(|program| program.info().ok());
            let tag = info.map(|info| format!("{:016x}", info.tag()));
            hooks.push(Hook { program, attached, tag });
        }
        let missing = hooks.iter().find(|hook| ESSENTIAL.contains(&hook.program) && hook.attached.is_err());
        if let Some((hook, Err(why))) = missing.map(|hook| (hook, &hook.attached)) {
            return Err(Error::new(
                Code::CaptureLoad,
                format!("the kernel refused the program {}: {why}", hook.program),
            )
            .hint("run as root, on Linux 6.1 or newer; `assay-gates doctor` tries each step"));
        }
        let missed_before =
            links.iter().map(|(program, _)| (*program, verified.recursion_misses(program))).collect();
        Ok(Self { links, verified, hooks, missed_before })
    }

    /// Detaches, and gives the programs back for another session, with the ring that the consumer gave back. None when
    /// a link stays: a child of ours that has not come to its exec holds a copy. Attached twice, a program would
    /// record everything twice.
    pub(super) fn detach(self, ring: RingBuf<MapData>) -> Option<Verified> {
        let ids: Option<Vec<u32>> = self.links.iter().map(|(_, link)| Some(link.info().ok()?.id())).collect();
        let ids = ids?;
        drop(self.links);
        let deadline = Instant::now() + LINK_PATIENCE;
        while loaded_links().any(|link| link.is_err() || link.is_ok_and(|link| ids.contains(&link.id()))) {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Some(Verified { ring: Some(ring), ..self.verified })
    }

    /// Where tool calls are marked.
    pub(super) fn calls(&self) -> &Arc<Calls> {
        &self.verified.calls
    }

    /// Takes the ring out, for the consumer.
    pub(super) fn take_ring(&mut self) -> Result<RingBuf<MapData>> {
        self.verified.ring.take().ok_or_else(|| missing("ring"))
    }

    /// Everything counted so far, of all CPUs together.
    pub(super) fn counters(&self) -> Result<Counters> {
        let mut sum = Counters::default();
        for counters in self.counters_by_cpu()? {
            sum.add(&counters);
        }
        Ok(sum)
    }

    /// Everything counted so far, by CPU.
    pub(super) fn counters_by_cpu(&self) -> Result<Vec<Counters>> {
        let map = self.verified.ebpf.map("counts").ok_or_else(|| missing("counts"))?;
        let array: PerCpuArray<_, Counters> =
            PerCpuArray::try_from(map).map_err(|error| refused("cannot read the counters", &error))?;
        let values = array.get(&0, 0).map_err(|error| refused("cannot read the counters", &error))?;
        Ok(values.to_vec())
    }

    /// Level of the session's cgroup, once a task has entered it.
    pub(super) fn session_level(&self) -> Result<Option<u32>> {
        let map = self.verified.ebpf.map(".data").ok_or_else(|| missing(".data"))?;
        let array: Array<_, Shared> =
            Array::try_from(map).map_err(|error| refused("cannot read .data", &error))?;
        let shared = array.get(&0, 0).map_err(|error| refused("cannot read .data", &error))?;
        Ok(u32::try_from(shared.level).ok())
    }

    /// Times that the kernel skipped each program because it was running already, in this session.
    pub(super) fn recursion_misses(&self) -> Vec<(String, Result<u64>)> {
        let since = |program, before: &Result<u64>| match before {
            Ok(before) => Ok(self.verified.recursion_misses(program)?.saturating_sub(*before)),
            Err(error) => Err(Error::new(error.code(), error.to_string())),
        };
        self.missed_before
            .iter()
            .map(|(program, before)| ((*program).to_owned(), since(program, before)))
            .collect()
    }

    /// For tests: takes one program away while the run goes on.
    pub(super) fn sabotage_detach(&mut self, program: &str) -> Result<()> {
        let before = self.links.len();
        self.links.retain(|(name, _)| *name != program);
        if self.links.len() < before { Ok(()) } else { Err(missing("program")) }
    }
}

fn load_traced(
    ebpf: &mut Ebpf,
    name: &str,
    tracepoints: &[&'static str],
    btf: &Btf,
) -> std::result::Result<&'static str, String> {
    let program = ebpf.program_mut(name).ok_or("not in the object")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| chain(&error))?;
    let mut why = String::new();
    for tracepoint in tracepoints {
        match program.load(tracepoint, btf) {
            Ok(()) => return Ok(tracepoint),
            Err(error) => why = chain(&error),
        }
    }
    Err(why)
}

fn attach_traced(
    ebpf: &mut Ebpf,
    name: &str,
    tracepoint: &str,
) -> std::result::Result<(String, FdLink), String> {
    let program = ebpf.program_mut(name).ok_or("not in the object")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| chain(&error))?;
    let id = program.attach().map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    Ok((format!("tp_btf/{tracepoint}"), link.into()))
}

fn attach_address(
    ebpf: &mut Ebpf,
    name: &str,
    cgroup: BorrowedFd<'_>,
) -> std::result::Result<(String, FdLink), String> {
    let program = address(ebpf, name).map_err(|error| chain(&error))?;
    // A link takes no flags: it always stands beside what others attach.
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    Ok((name.replacen("on_", "cgroup/", 1), link.try_into().map_err(|error| chain(&error))?))
}

fn address<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing("socket program"))?;
    program.try_into().map_err(|error| refused("a socket program is of another type", &error))
}

/// What `BPF_OBJ_GET_INFO_BY_FD` says of a program; aya's own wrapper leaves `recursion_misses` out.
fn program_info(program: BorrowedFd<'_>) -> Result<aya_obj::generated::bpf_prog_info> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    #[repr(C)]
    struct Attributes {
        fd: u32,
        length: u32,
        info: u64,
    }
    // SAFETY: bpf_prog_info is integers, byte arrays and bit fields; zero is a value of each.
    let mut info: aya_obj::generated::bpf_prog_info = unsafe { std::mem::zeroed() };
    let attributes = Attributes {
        fd: program.as_raw_fd().cast_unsigned(),
        length: size_of_val(&info) as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel reads `attributes` and writes at most `length` bytes to `info`; both live until it returns.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attributes, size_of_val(&attributes))
    };
    if result == 0 {
        Ok(info)
    } else {
        Err(refused("cannot ask for program facts", &std::io::Error::last_os_error()))
    }
}

pub(super) fn missing(what: &str) -> Error {
    Error::new(Code::Internal, format!("the kernel object has no {what}"))
}

pub(super) fn refused(doing: &str, error: &dyn std::error::Error) -> Error {
    Error::new(Code::CaptureLoad, format!("{doing}: {}", chain(error)))
}

/// An error and its causes in one line: the first line of each is what matters; a verifier log would follow.
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().to_owned();
        if !parts.iter().any(|part| part.contains(&line)) {
            parts.push(line);
        }
        next = error.source();
    }
    parts.join(": ")
}
