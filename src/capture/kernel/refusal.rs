//! Why a program was refused, from all that the kernel said.

use super::facts;
use crate::capture::object;
use aya::programs::ProgramError;

/// What the verifier's log says of the refusal: its last words, the instruction they are about, and the line of C that it came from.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    reason: String,
    instruction: Option<String>,
    line: Option<String>,
}

fn verdict(log: &str) -> Option<Verdict> {
    let lines: Vec<&str> = log.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    // `123: (85) call bpf_probe_read_kernel#113`, after it what is wrong, after that statistics.
    let instruction = |line: &str| {
        line.split_once(": (")
            .is_some_and(|(number, _)| number.trim().bytes().all(|byte| byte.is_ascii_digit()))
    };
    let statistics = |line: &str| {
        ["processed ", "verification time", "stack depth"].iter().any(|start| line.starts_with(start))
    };
    let last = lines.iter().rposition(|line| instruction(line));
    let words: Vec<&str> = lines[last.map_or(0, |at| at + 1)..]
        .iter()
        .filter(|line| !statistics(line) && !line.starts_with(';'))
        .copied()
        .collect();
    let upto = &lines[..last.map_or(0, |at| at + 1)];
    let line = upto.iter().rev().find_map(|line| line.trim_start().strip_prefix("; "));
    let reason = words.last().or(lines.iter().rev().find(|line| !statistics(line)))?;
    Some(Verdict {
        reason: (*reason).to_owned(),
        instruction: last.map(|at| lines[at].to_owned()),
        line: line.map(str::to_owned),
    })
}

/// A refusal in one line: the kernel's error, the verifier's reason, instruction and line, and which kernel and compiler these are. The
/// whole log goes to the debug log.
pub(super) fn refusal(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return super::load::chain(error);
    };
    let log = verifier_log.to_string();
    let mut said = format!("BPF_PROG_LOAD: {io_error}");
    if let Some(verdict) = verdict(&log) {
        tracing::debug!(target: "verifier", "{log}");
        said.push_str(&format!("; verifier: {}", verdict.reason));
        if let Some(instruction) = verdict.instruction {
            said.push_str(&format!("; at instruction {instruction}"));
        }
        if let Some(line) = verdict.line {
            said.push_str(&format!("; of line `{line}`"));
        }
    }
    let compiler = object::embedded().map_or("unknown", |object| object.compiler);
    said.push_str(&format!("; kernel {}; object by {compiler}", facts::release()));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "func#0 @0\n0: R1=ctx(off=0,imm=0) R10=fp0\n; if (length > 0 && length < PREFIX_BYTES) {\n\
        510: (25) if r1 > 0xfe goto pc+20\n; bpf_probe_read_kernel(now, length, state->prefix[which]);\n\
        512: (bf) r2 = r6\n513: (85) call bpf_probe_read_kernel#113\n\
        R2 unbounded memory access, use 'var &= const' or 'if (var < const)'\n\
        processed 1913 insns (limit 1000000) max_states_per_insn 4 total_states 62 peak_states 62 mark_read 6\n";

    #[test]
    fn the_reason_is_the_end_of_the_log_with_its_instruction_and_line() {
        let found = verdict(LOG).unwrap();
        assert_eq!(found.reason, "R2 unbounded memory access, use 'var &= const' or 'if (var < const)'");
        assert_eq!(found.instruction.as_deref(), Some("513: (85) call bpf_probe_read_kernel#113"));
        assert_eq!(found.line.as_deref(), Some("bpf_probe_read_kernel(now, length, state->prefix[which]);"));
    }

    #[test]
    fn a_log_without_instructions_gives_its_last_words() {
        let found = verdict("arg#0 type PTR is not supported yet\nprocessed 0 insns\n").unwrap();
        assert_eq!((found.reason.as_str(), found.instruction), ("arg#0 type PTR is not supported yet", None));
        assert_eq!(verdict(""), None);
    }
}
