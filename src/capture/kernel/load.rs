//! Loads the embedded object, attaches each program, and says of each whether that worked.

use super::btf::{self, Argument, Types};
use super::calls::Calls;
use super::capability::{CAPABILITIES, Capability, Place, choose};
use super::facts;
use super::recorder::Sabotage;
use super::refusal::refusal;
use crate::capture::object;
use crate::capture::raw::Counters;
use crate::error::{Code, Error, Result};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, CgroupAttachMode, CgroupSockAddr, loaded_links};
use aya::{Btf, Ebpf, EbpfLoader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a link may outlive us in a child that is about to exec.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// From this release on a program can be preempted by another task, in which the kernel then skips it. Nothing in a kernel's types says so;
/// where the number is wrong, a run in which a program was skipped is incomplete.
const PREEMPTIBLE: (u32, u32) = (6, 19);

/// Copies of programs that have counters of their own: the rows of the map `counts`.
const PROGRAMS: u32 = 17;

/// One capability and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// The capability.
    pub capability: &'static str,
    /// What nobody sees without it.
    pub without: &'static str,
    /// Its program, by its name in the object: the last candidate when none fits.
    pub program: &'static str,
    /// What it hangs on, or why it hangs on nothing.
    pub attached: std::result::Result<String, String>,
    /// The kernel's digest of its instructions.
    pub tag: Option<String>,
}

/// A program and the spare behind it: how often the kernel skipped each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub program: &'static str,
    pub first: Option<u64>,
    /// `None` when there is no spare.
    pub spare: Option<Option<u64>>,
}

impl Skipped {
    /// Calls that nobody may have seen: to lose one, the kernel must skip both. `None` when it would not say.
    pub(super) fn unseen(&self) -> Option<u64> {
        match self.spare {
            None => self.first,
            Some(spare) => Some(self.first?.min(spare?)),
        }
    }
}

/// The programs in the kernel, at work. Dropping it detaches them.
pub(super) struct Programs {
    /// What holds each program on its hook; dropping it takes the program off.
    links: Vec<(&'static str, FdLink)>,
    verified: Verified,
    /// One row a capability.
    pub hooks: Vec<Hook>,
    /// Programs with their spares, if any, and what earlier sessions of the same programs had missed already.
    missed_before: Vec<(&'static str, Option<u64>)>,
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
    loaded: Vec<Loading>,
}

/// One capability, loaded or not.
struct Loading {
    capability: &'static Capability,
    program: &'static str,
    spare: Option<&'static str>,
    /// The tracepoint that it will hang on, none for a socket program, or why it can't be used.
    place: std::result::Result<Option<&'static str>, String>,
}

impl Verified {
    /// Has the kernel check and compile everything: most of what arming costs, and the same for every session.
    pub(super) fn load(ring_bytes: u32, sabotage: &Sabotage) -> Result<Self> {
        let object = object::embedded()
            .ok_or_else(|| Error::new(Code::CaptureUnavailable, "this binary carries no kernel programs"))?;
        // The loader reads the kernel's types for itself, whatever it is given: both at once takes half as long.
        let types = std::thread::spawn(|| (Btf::from_sys_fs(), tracepoints()));
        let mut loader = EbpfLoader::new();
        let (types, tracepoints) =
            types.join().map_err(|_| Error::new(Code::Internal, "reading the kernel's BTF panicked"))?;
        let btf = types.map_err(|error| {
            refused("cannot read the kernel's BTF", &error)
                .hint("boot a kernel with CONFIG_DEBUG_INFO_BTF=y (/sys/kernel/btf/vmlinux)")
        })?;
        let tracepoints = tracepoints?;
        let wake_bytes = u64::from(ring_bytes / 4);
        let mut ebpf = loader
            .allow_unsupported_maps()
            .override_global("wake_bytes", &wake_bytes, true)
            .map_max_entries("ring", ring_bytes)
            .load(object.bytes)
            .map_err(|error| refused("the kernel refused the capture programs' maps", &error))?;
        let spares = facts::version() >= PREEMPTIBLE;
        let mut loaded = Vec::new();
        for capability in CAPABILITIES {
            loaded.push(match &capability.place {
                Place::Tracepoint(candidates) => match choose(candidates, &tracepoints, sabotage.hidden) {
                    Ok(candidate) => {
                        let place = load_traced(&mut ebpf, candidate.program, candidate.tracepoint, &btf);
                        let spare = (spares && place.is_ok()).then_some(candidate.spare).filter(|spare| {
                            load_traced(&mut ebpf, spare, candidate.tracepoint, &btf).is_ok()
                        });
                        let place = place.map(|()| Some(candidate.tracepoint));
                        Loading { capability, program: candidate.program, spare, place }
                    }
                    Err(why) => {
                        let program = candidates.last().map_or("", |candidate| candidate.program);
                        Loading { capability, program, spare: None, place: Err(why) }
                    }
                },
                Place::Cgroup(program) => {
                    let place = match sabotage.hidden {
                        Some((hidden, _)) if hidden == *program => Err("not tried".to_owned()),
                        _ => address(&mut ebpf, program)?.load().map_err(|error| refusal(&error)),
                    };
                    Loading { capability, program, spare: None, place: place.map(|()| None) }
                }
            });
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
        for program in 0..PROGRAMS {
            let zero = PerCpuValues::try_from(vec![Counters::default(); cpus])
                .map_err(|error| refused("cannot write the counters", &error))?;
            counts.set(program, zero, 0).map_err(|error| refused("cannot write the counters", &error))?;
        }
        Ok(())
    }

    /// Times that the kernel ever skipped the program because it was running already.
    fn recursion_misses(&self, program: &str) -> Option<u64> {
        let fd = self.ebpf.program(program).and_then(|program| program.fd().ok())?;
        Some(program_info(fd.as_fd()).ok()?.recursion_misses)
    }
}

impl Programs {
    /// Points the programs at the session and attaches them, the socket programs to `cgroup`.
    pub(super) fn attach(mut verified: Verified, cgroup: BorrowedFd<'_>, session_id: u64) -> Result<Self> {
        verified.reset(session_id)?;
        let mut hooks: Vec<Hook> = Vec::new();
        let mut links: Vec<(&'static str, FdLink)> = Vec::new();
        let Verified { ebpf, loaded, .. } = &mut verified;
        for Loading { capability, program, spare, place } in loaded {
            let attached = place.clone().and_then(|tracepoint| match tracepoint {
                Some(tracepoint) => attach_traced(ebpf, program, tracepoint),
                None => attach_address(ebpf, program, cgroup),
            });
            let attached = attached.map(|(place, link)| {
                links.push((program, link));
                place
            });
            // Behind its program: what hangs on a tracepoint is called in the order in which it was attached.
            if let (Some(name), Ok(Some(tracepoint))) = (*spare, place.as_ref()) {
                match attach_traced(ebpf, name, tracepoint) {
                    Ok((_, link)) => links.push((name, link)),
                    Err(_) => *spare = None,
                }
            }
            let info = ebpf.program(program).and_then(|program| program.info().ok());
            let tag = info.map(|info| format!("{:016x}", info.tag()));
            let Capability { name, without, .. } = capability;
            hooks.push(Hook { capability: name, without, program, attached, tag });
        }
        let essential = verified.loaded.iter().zip(&hooks).filter(|(row, _)| row.capability.essential);
        for (_, hook) in essential {
            if let Err(why) = &hook.attached {
                return Err(Error::new(
                    Code::CaptureLoad,
                    format!("this kernel does not let us see {} ({}): {why}", hook.without, hook.capability),
                )
                .hint(if nix::unistd::geteuid().is_root() {
                    "measure on a kernel that `make kernels` names; RUST_LOG=verifier=debug shows the verifier's whole log"
                } else {
                    "run as root"
                }));
            }
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

    /// Everything counted so far, by CPU: the programs of each together.
    pub(super) fn counters_by_cpu(&self) -> Result<Vec<Counters>> {
        let map = self.verified.ebpf.map("counts").ok_or_else(|| missing("counts"))?;
        let array: PerCpuArray<_, Counters> =
            PerCpuArray::try_from(map).map_err(|error| refused("cannot read the counters", &error))?;
        let mut sums: Vec<Counters> = Vec::new();
        for program in 0..PROGRAMS {
            let values =
                array.get(&program, 0).map_err(|error| refused("cannot read the counters", &error))?;
            sums.resize(values.len(), Counters::default());
            for (sum, counters) in sums.iter_mut().zip(values.iter()) {
                sum.add(counters);
            }
        }
        Ok(sums)
    }

    /// Level of the session's cgroup, once a task has entered it.
    pub(super) fn session_level(&self) -> Result<Option<u32>> {
        let map = self.verified.ebpf.map(".data").ok_or_else(|| missing(".data"))?;
        let array: Array<_, Shared> =
            Array::try_from(map).map_err(|error| refused("cannot read .data", &error))?;
        let shared = array.get(&0, 0).map_err(|error| refused("cannot read .data", &error))?;
        Ok(u32::try_from(shared.level).ok())
    }

    /// Times that the kernel skipped each program and its spare in this session, because it was running already.
    pub(super) fn skipped(&self) -> Vec<Skipped> {
        let since = |program: &str| {
            let (_, before) = self.missed_before.iter().find(|(name, _)| *name == program)?;
            Some(self.verified.recursion_misses(program)?.saturating_sub((*before)?))
        };
        let row = |row: &Loading| Skipped {
            program: row.program,
            first: since(row.program),
            spare: row.spare.map(since),
        };
        let attached = self.verified.loaded.iter().zip(&self.hooks).filter(|(_, hook)| hook.attached.is_ok());
        attached.map(|(loading, _)| row(loading)).collect()
    }

    /// For tests: takes one program away while the run goes on.
    pub(super) fn sabotage_detach(&mut self, program: &str) -> Result<()> {
        let before = self.links.len();
        let spare = format!("{program}_spare");
        self.links.retain(|(name, _)| *name != program && *name != spare);
        if self.links.len() < before { Ok(()) } else { Err(missing("program")) }
    }
}

/// The tracepoints of all candidates, as this kernel has them.
fn tracepoints() -> Result<Vec<(&'static str, Vec<Argument>)>> {
    let names = CAPABILITIES.iter().flat_map(|capability| match &capability.place {
        Place::Tracepoint(candidates) => *candidates,
        Place::Cgroup(_) => &[],
    });
    let names: Vec<&str> = names.map(|candidate| candidate.tracepoint).collect();
    Ok(Types::read(Path::new(btf::KERNEL))?.tracepoints(&names))
}

fn load_traced(ebpf: &mut Ebpf, name: &str, tracepoint: &str, btf: &Btf) -> std::result::Result<(), String> {
    let program = ebpf.program_mut(name).ok_or("not in the object")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| chain(&error))?;
    program.load(tracepoint, btf).map_err(|error| refusal(&error))
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

/// An error and its causes in one line: the first line of each.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
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
