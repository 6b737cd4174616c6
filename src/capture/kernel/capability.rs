//! What can be seen on a kernel, and by which program: chosen by the types of the kernel's tracepoints before anything is loaded.

use super::btf::Argument;

/// One thing that a capture sees, by the name that `doctor`, the proof and its blind spots give it.
#[derive(Debug)]
pub(super) struct Capability {
    pub name: &'static str,
    /// What nobody sees without it.
    pub without: &'static str,
    /// Without it there is nothing to measure with.
    pub essential: bool,
    pub place: Place,
}

/// Where its program hangs.
#[derive(Debug)]
pub(super) enum Place {
    /// On the first of these that the kernel has in this form.
    Tracepoint(&'static [Candidate]),
    /// On the session's cgroup.
    Cgroup(&'static str),
}

/// A program, the tracepoint for it, and the arguments that it relies on; what follows them it does not read.
#[derive(Debug)]
pub(super) struct Candidate {
    pub program: &'static str,
    /// The program that takes over what the kernel makes the first one skip.
    pub spare: &'static str,
    pub tracepoint: &'static str,
    pub arguments: &'static [Wanted],
}

/// What an argument must be.
#[derive(Debug)]
pub(super) enum Wanted {
    /// A pointer to that struct.
    To(&'static str),
    /// Any pointer; the program does not follow it.
    Pointer,
    Number,
}

impl Wanted {
    fn is(&self, found: &Argument) -> bool {
        match self {
            Self::To(name) => matches!(found, Argument::To(found) if found == name),
            Self::Pointer => matches!(found, Argument::Pointer | Argument::To(_)),
            Self::Number => *found == Argument::Number,
        }
    }
}

use Wanted::{Number, Pointer, To};

macro_rules! candidate {
    ($program:literal, $tracepoint:literal, $arguments:expr) => {
        Candidate {
            program: $program,
            spare: concat!($program, "_spare"),
            tracepoint: $tracepoint,
            arguments: $arguments,
        }
    };
}

const fn traced(
    name: &'static str,
    essential: bool,
    without: &'static str,
    candidates: &'static [Candidate],
) -> Capability {
    Capability { name, without, essential, place: Place::Tracepoint(candidates) }
}

const fn address(name: &'static str, without: &'static str, program: &'static str) -> Capability {
    Capability { name, without, essential: false, place: Place::Cgroup(program) }
}

/// Everything. Order matters: deaths and exits before births and entries, so that nothing begins unseen that is then seen to end.
pub(super) const CAPABILITIES: &[Capability] = &[
    traced(
        "task_moves",
        false,
        "tasks that are moved to another cgroup",
        &[candidate!("on_attach", "cgroup_attach_task", &[To("cgroup"), Pointer, To("task_struct"), Number])],
    ),
    traced(
        "task_ends",
        true,
        "ends of tasks",
        &[candidate!("on_death", "sched_process_exit", &[To("task_struct")])],
    ),
    traced(
        "program_images",
        false,
        "program images that are executed",
        &[candidate!("on_exec", "sched_process_exec", &[To("task_struct"), Number, To("linux_binprm")])],
    ),
    traced(
        "syscall_results",
        true,
        "results of syscalls",
        &[candidate!("on_exit", "sys_exit", &[To("pt_regs"), Number])],
    ),
    traced(
        "syscall_arguments",
        true,
        "arguments of syscalls",
        &[candidate!("on_enter", "sys_enter", &[To("pt_regs"), Number])],
    ),
    traced(
        "io_uring_requests",
        false,
        "requests that are submitted through io_uring",
        &[
            candidate!("on_submit", "io_uring_submit_req", &[To("io_kiocb")]),
            candidate!("on_submit", "io_uring_submit_sqe", &[To("io_kiocb")]),
        ],
    ),
    traced(
        "io_uring_results",
        false,
        "results of requests that are submitted through io_uring",
        &[
            candidate!("on_complete", "io_uring_complete", &[Pointer, Pointer, To("io_uring_cqe")]),
            candidate!("on_complete_scalars", "io_uring_complete", &[Pointer, Pointer, Number, Number]),
        ],
    ),
    traced(
        "task_births",
        true,
        "births of tasks",
        &[candidate!("on_birth", "task_newtask", &[To("task_struct"), Number])],
    ),
    address("connect_addresses_v4", "IPv4 addresses as the kernel connects to them", "on_connect4"),
    address("connect_addresses_v6", "IPv6 addresses as the kernel connects to them", "on_connect6"),
    address("bind_addresses_v4", "IPv4 addresses as the kernel binds them", "on_bind4"),
    address("bind_addresses_v6", "IPv6 addresses as the kernel binds them", "on_bind6"),
    address("send_addresses_v4", "IPv4 addresses as the kernel sends to them", "on_sendmsg4"),
    address("send_addresses_v6", "IPv6 addresses as the kernel sends to them", "on_sendmsg6"),
];

/// The first candidate that fits the tracepoints that this kernel has, or what each of them lacks. A candidate that is `hidden` (program
/// and tracepoint) is passed over as if the kernel did not have it.
pub(super) fn choose<'c>(
    candidates: &'c [Candidate],
    kernel: &[(&str, Vec<Argument>)],
    hidden: Option<(&str, &str)>,
) -> std::result::Result<&'c Candidate, String> {
    let mut why = Vec::new();
    for candidate in candidates {
        let tracepoint = candidate.tracepoint;
        let found = kernel.iter().find(|(name, _)| *name == tracepoint);
        match found.filter(|_| hidden != Some((candidate.program, tracepoint))) {
            None => why.push(format!("this kernel has no tracepoint {tracepoint}")),
            Some((_, arguments)) if fits(candidate.arguments, arguments) => return Ok(candidate),
            Some((_, arguments)) => {
                let said: Vec<String> = arguments.iter().map(ToString::to_string).collect();
                let other = format!("{tracepoint}({}) has other arguments", said.join(", "));
                why.push(format!("{other} than {} reads", candidate.program));
            }
        }
    }
    why.dedup();
    Err(why.join("; "))
}

fn fits(wanted: &[Wanted], found: &[Argument]) -> bool {
    wanted.len() <= found.len() && wanted.iter().zip(found).all(|(wanted, found)| wanted.is(found))
}

/// The program and tracepoint of each candidate, by the name of its capability: what tests take away in turn.
#[must_use]
pub fn candidates() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut all = Vec::new();
    for capability in CAPABILITIES {
        match &capability.place {
            Place::Tracepoint(candidates) => {
                all.extend(candidates.iter().map(|one| (capability.name, one.program, one.tracepoint)))
            }
            Place::Cgroup(program) => all.push((capability.name, program, "")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> &'static [Candidate] {
        let found = CAPABILITIES.iter().find(|capability| capability.name == "io_uring_results").unwrap();
        let Place::Tracepoint(candidates) = &found.place else { unreachable!() };
        candidates
    }

    fn kernel(arguments: Vec<Argument>) -> Vec<(&'static str, Vec<Argument>)> {
        vec![("io_uring_complete", arguments)]
    }

    #[test]
    fn the_program_is_the_one_whose_arguments_the_kernel_gives() {
        let to = |name: &str| Argument::To(name.into());
        let (old, new) = (
            kernel(vec![Argument::Pointer, Argument::Pointer, Argument::Number, Argument::Number]),
            kernel(vec![to("io_ring_ctx"), Argument::Pointer, to("io_uring_cqe")]),
        );
        assert_eq!(choose(results(), &old, None).unwrap().program, "on_complete_scalars");
        assert_eq!(choose(results(), &new, None).unwrap().program, "on_complete");
    }

    #[test]
    fn a_form_that_no_program_knows_is_missing_with_its_form_named() {
        let odd = kernel(vec![Argument::Pointer, Argument::Number, Argument::Other]);
        let why = choose(results(), &odd, None).unwrap_err();
        assert!(why.contains("io_uring_complete(pointer, number, other)"), "{why}");
        assert!(choose(results(), &[], None).unwrap_err().contains("no tracepoint io_uring_complete"));
    }
}
