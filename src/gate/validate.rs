//! What types alone can't say of a definition.

use super::{Definition, Group, Presence};
use crate::capture::catalogue::FENCED;
use crate::error::{Code, Error, Result};
use crate::files::parse_yaml;
use std::fmt::Display;
use std::path::{Component, Path};

/// Reads and checks a `gate.yaml`; `place` names the file in errors.
///
/// # Errors
/// `DefinitionInvalid`, with `file:line:column` for syntax and keys, `file: field` for rules between fields.
pub fn parse(text: &str, place: impl Display) -> Result<Definition> {
    let definition: Definition = parse_yaml(text, &place, Code::DefinitionInvalid)?;
    check(&definition).map_err(|(field, message)| {
        let line = line_of(text, field);
        Error::new(Code::DefinitionInvalid, format!("{field}: {message}")).at(format!("{place}:{line}"))
    })?;
    Ok(definition)
}

/// Line of the first top-level key of a dotted field name, for the reader's eye; 1 when it isn't there.
fn line_of(text: &str, field: &str) -> usize {
    let key = field.split(['.', '[']).next().unwrap_or(field);
    text.lines()
        .position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
        .map_or(1, |at| at + 1)
}

type Broken = (&'static str, String);

fn check(gate: &Definition) -> Result<(), Broken> {
    let broken = |field, message: &str| Err((field, message.to_owned()));
    if gate.schema != "assay.gates.gate.v0" {
        return broken("schema", "expected assay.gates.gate.v0");
    }
    if gate.id.is_empty()
        || !gate.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return broken("id", "expected lowercase letters, digits and hyphens");
    }
    if gate.run_id.is_empty()
        || !gate.run_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        return broken("run_id", "expected ASCII letters, digits, _ and -");
    }
    if !gate.archive.starts_with("runner-")
        || !gate.archive.ends_with(".tar.gz")
        || gate.archive.contains('/')
    {
        return broken("archive", "expected a file name of the form runner-*.tar.gz");
    }
    if gate.command.is_empty() {
        return broken("command", "expected at least the program");
    }
    if gate.timeout_seconds == 0 || gate.timeout_seconds > 3600 {
        return broken("timeout_seconds", "expected 1 to 3600");
    }
    if !(1..=gate.timeout_seconds).contains(&gate.server_timeout()) {
        return broken("server_timeout_seconds", "expected 1 to timeout_seconds");
    }
    if let Some((field, expected)) = gate.limits.broken() {
        return broken(field, expected);
    }
    if let Some(name) =
        gate.expect.refused.iter().find(|name| !FENCED.iter().any(|(_, fenced)| fenced == *name))
    {
        return Err(("expect.refused", format!("{name} is no call that the fence refuses")));
    }
    for name in gate.seed.keys() {
        if !is_plain_relative(name) {
            return Err(("seed", format!("{name:?} must be a relative path without .. or .")));
        }
    }
    for path in gate.expect.work_paths.iter().chain(&gate.expect.absent_work_paths) {
        if !is_plain_relative(path) {
            return Err(("expect", format!("{path:?} must be relative to the work folder, without .. or .")));
        }
    }
    if gate.env.keys().any(|key| key.starts_with("LD_") || key.starts_with("ASSAY_RUNNER_")) {
        return broken(
            "env",
            "loader variables and the driver's own (ASSAY_RUNNER_*) can't be set by a gate",
        );
    }
    let policy = gate.layers.policy == Presence::Required;
    if policy != gate.policy.is_some() {
        return broken("policy", "must be given exactly when layers.policy is required");
    }
    if policy == gate.expect.decisions.is_empty() {
        return broken("expect", "expect.decisions must be given exactly when layers.policy is required");
    }
    if (gate.layers.sdk == Presence::Required) != gate.expect.sdk.is_some() {
        return broken("expect", "expect.sdk must be given exactly when layers.sdk is required");
    }
    if gate.group == Group::Scenario && gate.scenario.is_none() {
        return broken("scenario", "must be given for a gate of group scenario");
    }
    if let Some(scenario) = &gate.scenario {
        if scenario.non_claims.is_empty() {
            return broken("scenario", "non_claims must name at least one");
        }
        if let Some(path) = scenario.gap_path.as_ref().filter(|path| !is_plain_relative(path)) {
            return Err(("scenario", format!("gap_path {path:?} must be relative to the work folder")));
        }
    }
    Ok(())
}

fn is_plain_relative(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL_ONLY: &str = include_str!("../../gates/kernel-only/gate.yaml");

    fn broken(from: &str, to: &str) -> Error {
        assert!(KERNEL_ONLY.contains(from), "{from:?} is not in the definition");
        parse(&KERNEL_ONLY.replacen(from, to, 1), "gate.yaml").unwrap_err()
    }

    #[test]
    fn the_shipped_definition_validates() {
        parse(KERNEL_ONLY, "gate.yaml").unwrap();
    }

    #[test]
    fn each_rule_between_fields_refuses_its_violation() {
        for (from, to, field) in [
            ("assay.gates.gate.v0", "assay.gates.gate.v1", "schema"),
            ("id: kernel-only", "id: Kernel_Only", "id"),
            ("run_kernel_only_determinism", "run kernel", "run_id"),
            ("runner-kernel-only.tar.gz", "../runner-x.tar.gz", "archive"),
            ("[/bin/sh, /run/assay-gates/fixture/agent.sh]", "[]", "command"),
            ("timeout_seconds: 60", "timeout_seconds: 0", "timeout_seconds"),
            (
                "timeout_seconds: 60",
                "timeout_seconds: 60\nserver_timeout_seconds: 0",
                "server_timeout_seconds",
            ),
            (
                "timeout_seconds: 60",
                "timeout_seconds: 60\nserver_timeout_seconds: 61",
                "server_timeout_seconds",
            ),
            ("timeout_seconds: 60", "seed: {../x: y}", "seed"),
            ("timeout_seconds: 60", "env: {LD_PRELOAD: x}", "env"),
            ("timeout_seconds: 60", "limits: {memory_mib: 1}", "limits.memory_mib"),
            ("timeout_seconds: 60", "limits: {processes: 0}", "limits.processes"),
            ("  exit_code: 0", "  refused: [read]", "expect.refused"),
            ("policy: absent", "policy: required", "policy"),
            ("sdk: absent", "sdk: required", "expect"),
            ("group: all", "group: scenario", "scenario"),
            ("[input.txt, output.txt]", "[/etc/passwd]", "expect"),
        ] {
            let error = broken(from, to);
            assert_eq!(error.code(), Code::DefinitionInvalid);
            assert!(error.message().starts_with(&format!("{field}: ")), "{from} -> {to}: {error}");
        }
    }

    #[test]
    fn a_broken_rule_names_the_line_of_its_field() {
        assert_eq!(broken("timeout_seconds: 60", "timeout_seconds: 0").place(), Some("gate.yaml:15"));
    }

    #[test]
    fn a_server_has_no_longer_than_the_gate() {
        for (seconds, expected) in [(1, 1), (4, 4), (5, 5), (6, 5), (3600, 5)] {
            let text = KERNEL_ONLY.replace("timeout_seconds: 60", &format!("timeout_seconds: {seconds}"));
            assert_eq!(parse(&text, "gate.yaml").unwrap().server_timeout(), expected, "{seconds}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        assert_eq!(
            broken("timeout_seconds: 60", "timeout_secs: 60").advice(),
            Some("did you mean `timeout_seconds`?")
        );
    }
}
