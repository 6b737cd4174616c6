//! Which policy decides for which server. Named by the gate's definition or by whoever called `record`, never by the
//! measured program.

use crate::files::sha256;
use crate::policy::Policy;
use crate::policy::control::{Cause, Opening, Refusal};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The policies of a run.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// For every server without one of its own. Without any policy at all, the measured program's own are taken, and
    /// its decisions are no more than its word.
    pub default: Option<Arc<Policy>>,
    /// By the server's name, `--label` of `mcp-wrap`.
    pub servers: BTreeMap<String, ServerPolicy>,
}

/// The policy of one server.
#[derive(Clone, Debug)]
pub struct ServerPolicy {
    /// Decides on its calls.
    pub policy: Arc<Policy>,
    /// What a server of that name must be started with, argument by argument; anything when none.
    pub command: Option<Vec<Vec<u8>>>,
}

/// The policy that decides for one server.
pub(super) struct Chosen {
    pub(super) policy: Arc<Policy>,
    /// The measured program chose it.
    pub(super) by_agent: bool,
}

impl Policies {
    /// One policy for every server.
    #[must_use]
    pub fn one(policy: Policy) -> Self {
        Self { default: Some(Arc::new(policy)), servers: BTreeMap::new() }
    }

    pub(super) fn choose(&self, opening: &Opening) -> Result<Chosen, Refusal> {
        let refused = |message: String| Refusal {
            cause: Cause::Policy,
            message: format!("server {}: {message}", opening.label),
        };
        let own = self.servers.get(&opening.label);
        if let Some(command) = own.and_then(|own| own.command.as_ref())
            && *command != opening.argv
        {
            let shown = |argv: &[Vec<u8>]| {
                let words: Vec<_> = argv.iter().map(|word| String::from_utf8_lossy(word)).collect();
                words.join(" ")
            };
            return Err(refused(format!(
                "expected the command `{}`, found `{}`",
                shown(command),
                shown(&opening.argv)
            )));
        }
        let Some(policy) = own.map(|own| &own.policy).or(self.default.as_ref()) else {
            if !self.servers.is_empty() {
                let names: Vec<&str> = self.servers.keys().map(String::as_str).collect();
                return Err(refused(format!("expected one of the servers {}, as --label", names.join(", "))));
            }
            let text = opening.policy.as_deref().ok_or_else(|| {
                refused("expected --policy, since this run was started without one".to_owned())
            })?;
            let policy = Policy::parse(text, "--policy").map_err(|error| refused(error.to_string()))?;
            return Ok(Chosen { policy: Arc::new(policy), by_agent: true });
        };
        if let Some(text) = &opening.policy {
            let digest = sha256(text.as_bytes());
            if digest != policy.digest() {
                return Err(refused(format!(
                    "expected the run's own policy (sha256 {}), found another (sha256 {digest})",
                    policy.digest()
                )));
            }
        }
        Ok(Chosen { policy: Arc::clone(policy), by_agent: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "schema: assay.gates.policy.v0\ndefault: deny\n";
    const ALLOW: &str = "schema: assay.gates.policy.v0\ndefault: allow\n";

    fn opening(label: &str, policy: Option<&str>) -> Opening {
        Opening {
            argv: vec![b"server".to_vec()],
            environment: Vec::new(),
            cwd: "/".into(),
            label: label.into(),
            source: "s".into(),
            policy: policy.map(str::to_owned),
        }
    }

    fn parsed(text: &str) -> Arc<Policy> {
        Arc::new(Policy::parse(text, "p").unwrap())
    }

    #[test]
    fn the_runs_policy_decides_whatever_the_program_names() {
        let policies = Policies { default: Some(parsed(DENY)), servers: BTreeMap::new() };
        let chosen = |policy| policies.choose(&opening("x", policy));
        assert!(!chosen(None).unwrap().by_agent);
        assert_eq!(chosen(Some(DENY)).unwrap().policy.digest(), parsed(DENY).digest());
        let refusal = chosen(Some(ALLOW)).err().unwrap();
        assert_eq!(refusal.cause, Cause::Policy);
        assert!(refusal.message.contains("found another"), "{}", refusal.message);
        // The same rules in other bytes are another policy.
        assert!(chosen(Some(&format!("{DENY}\n"))).is_err());
    }

    #[test]
    fn a_server_of_a_name_has_its_own_policy_and_command() {
        let own = |command: Option<&[u8]>| ServerPolicy {
            policy: parsed(ALLOW),
            command: command.map(|word| vec![word.to_vec()]),
        };
        let servers = BTreeMap::from([("a".to_owned(), own(None)), ("b".to_owned(), own(Some(b"other")))]);
        let policies = Policies { default: Some(parsed(DENY)), servers: servers.clone() };
        assert_eq!(policies.choose(&opening("a", None)).unwrap().policy.digest(), parsed(ALLOW).digest());
        assert_eq!(policies.choose(&opening("c", None)).unwrap().policy.digest(), parsed(DENY).digest());
        assert!(
            policies.choose(&opening("b", None)).err().unwrap().message.contains("`other`, found `server`")
        );
        let closed = Policies { default: None, servers };
        assert!(closed.choose(&opening("c", Some(ALLOW))).err().unwrap().message.contains("a, b"));
    }

    #[test]
    fn without_a_policy_of_the_run_the_programs_own_is_taken_and_said_to_be_so() {
        let none = Policies::default();
        assert!(none.choose(&opening("x", Some(ALLOW))).unwrap().by_agent);
        assert!(none.choose(&opening("x", None)).err().unwrap().message.contains("expected --policy"));
        assert!(none.choose(&opening("x", Some("schema: 1"))).is_err());
    }
}
