//! What the measured program finds in its environment.
//!
//! A gate gets only what its definition lists. `record` passes the caller's environment on, minus what changes
//! how programs are loaded and minus everything that smells of a secret: a measured program holds no token.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Variables of a measured program.
pub type Environment = BTreeMap<OsString, OsString>;

/// Set for every measured program, whatever the caller has.
pub const FIXED: [(&str, &str); 3] = [("LC_ALL", "C"), ("LANG", "C"), ("TZ", "UTC")];

/// PATH of a gate.
pub const GATE_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Change which code a program loads, or make it load code that nobody measured.
const LOADER: [&str; 13] = [
    "LOCPATH",
    "GCONV_PATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PERL5LIB",
    "PERL5OPT",
    "RUBYOPT",
    "BASH_ENV",
    "ENV",
];

/// Whole families of which each may carry a credential or a handle to the workflow.
const FAMILIES: [&str; 19] = [
    "LD_",
    "ASSAY_",
    "ACTIONS_",
    "GITHUB_",
    "RUNNER_",
    "INPUT_",
    "STATE_",
    "AWS_",
    "AZURE_",
    "ARM_",
    "GOOGLE_",
    "GCP_",
    "GCLOUD_",
    "CLOUDSDK_",
    "DOCKER_",
    "KUBE",
    "VAULT_",
    "NPM_CONFIG_",
    "SUDO_",
];

/// Single handles to agents and buses of the caller's session.
const HANDLES: [&str; 8] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "XAUTHORITY",
    "NETRC",
    "MAIL",
];

/// Words that name a secret, wherever they stand in a name.
const SECRETS: [&str; 14] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "APIKEY",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "SIGNING_KEY",
    "AUTH",
    "COOKIE",
    "SESSION",
];

/// Why a variable of the caller is not passed on; `None` when it is.
#[must_use]
pub fn withheld(name: &OsStr, value: &OsStr) -> Option<&'static str> {
    let Some(name) = name.to_str() else { return Some("its name is not UTF-8") };
    let upper = name.to_ascii_uppercase();
    if LOADER.contains(&upper.as_str()) || upper.starts_with("LD_") || upper.starts_with("DYLD_") {
        return Some("changes how programs are loaded");
    }
    if FAMILIES.iter().any(|family| upper.starts_with(family)) || HANDLES.contains(&upper.as_str()) {
        return Some("a handle of the caller's session, workflow or cloud");
    }
    if SECRETS.iter().any(|word| upper.contains(word)) || upper.ends_with("_KEY") || upper.ends_with("_PAT") {
        return Some("named like a secret");
    }
    // `https://user:password@host` hides a password under any name.
    if value.to_str().is_some_and(carries_userinfo) {
        return Some("its value holds a password");
    }
    None
}

fn carries_userinfo(value: &str) -> bool {
    value.split_once("://").is_some_and(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// The caller's environment as `record` passes it on, and the names of what was withheld.
pub fn inherited(caller: impl IntoIterator<Item = (OsString, OsString)>) -> (Environment, Vec<String>) {
    let mut kept = Environment::new();
    let mut withheld_names = Vec::new();
    for (name, value) in caller {
        match withheld(&name, &value) {
            Some(_) => withheld_names.push(name.to_string_lossy().into_owned()),
            None => {
                kept.insert(name, value);
            }
        }
    }
    withheld_names.sort();
    (fixed(kept), withheld_names)
}

/// The environment of a gate: a plain PATH and what its definition lists.
#[must_use]
pub fn of_gate(listed: &BTreeMap<String, String>) -> Environment {
    let mut variables = Environment::from([(OsString::from("PATH"), OsString::from(GATE_PATH))]);
    variables.extend(listed.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    fixed(variables)
}

fn fixed(mut variables: Environment) -> Environment {
    variables.extend(FIXED.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &str, value: &str) -> bool {
        withheld(OsStr::new(name), OsStr::new(value)).is_none()
    }

    #[test]
    fn secrets_loader_variables_and_workflow_handles_are_withheld() {
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "BASH_ENV",
            "GITHUB_TOKEN",
            "GITHUB_ENV",
            "GITHUB_STEP_SUMMARY",
            "ACTIONS_RUNTIME_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            "GH_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_CLIENT_ID",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "OPENAI_API_KEY",
            "npm_token",
            "NPM_CONFIG__AUTH",
            "DB_PASSWORD",
            "MY_PAT",
            "SSH_AUTH_SOCK",
            "KUBECONFIG",
            "SUDO_COMMAND",
            "STRIPE_KEY",
        ] {
            assert!(!passes(name, "x"), "{name}");
        }
        assert!(!passes("HTTPS_PROXY", "http://me:hunter2@proxy:3128/"));
    }

    #[test]
    fn ordinary_variables_are_passed_on() {
        for (name, value) in [
            ("PATH", "/bin"),
            ("HOME", "/home/me"),
            ("EDITOR", "vi"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("CI", "true"),
            ("HOMEPAGE", "https://host/a:b@c"),
        ] {
            assert!(passes(name, value), "{name}");
        }
    }

    #[test]
    fn locale_and_time_zone_are_the_same_on_every_host() {
        let (kept, withheld) = inherited([("LANG".into(), "de_DE".into()), ("GH_TOKEN".into(), "t".into())]);
        assert_eq!(kept.get(OsStr::new("LANG")), Some(&"C".into()));
        assert_eq!(kept.get(OsStr::new("TZ")), Some(&"UTC".into()));
        assert_eq!(withheld, ["GH_TOKEN"]);
        let gate = of_gate(&BTreeMap::from([("A".into(), "b".into())]));
        assert_eq!(gate.len(), 5);
    }
}
