//! The Actions runner of this machine, when there is one.

use super::{Check, Context};
use crate::host::hostfile::HostFile;
use crate::host::rights::Rights;
use serde::Deserialize;
use std::path::Path;

pub(super) fn host_file(context: &Context<'_>) -> Check {
    let path = context.options.host_file.display();
    match &context.host_file {
        None => Check::warn(
            format!("no {path}: nothing will ever be cleaned up on this host"),
            "on a dedicated runner: sudo assay-gates host install --user github-runner",
        ),
        Some(Err(error)) => Check::error(error),
        Some(Ok(file)) if file.dedicated => Check::pass(format!("{path}, dedicated; {}", file.retention)),
        Some(Ok(_)) => Check::warn(
            format!("{path} does not say that this host is dedicated, so nothing is cleaned up"),
            "dedicated: true, once nothing else uses the host",
        ),
    }
}

/// What the runner's own `config.sh` writes; the server may know more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registration {
    agent_name: String,
    #[serde(default)]
    git_hub_url: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
}

pub(super) fn registration(context: &Context<'_>) -> Check {
    let Some(Ok(file)) = &context.host_file else {
        return Check::pass("no runner is named in the host file");
    };
    look(file)
}

fn look(file: &HostFile) -> Check {
    let path = file.runner.root.join(".runner");
    let bytes = match Rights::over(&file.runner.root).and_then(|owner| owner.read(&path)) {
        Ok(bytes) => bytes,
        Err(error) => {
            return Check::warn(
                error.to_string(),
                format!("register it: {}/config.sh --labels assay-bpf-runner …", file.runner.root.display()),
            );
        }
    };
    // .NET writes a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let registration: Registration = match serde_json::from_slice(text) {
        Ok(registration) => registration,
        Err(error) => {
            return Check::warn(
                format!("{} is not a registration: {error}", path.display()),
                format!("{}/config.sh remove, and register again", file.runner.root.display()),
            );
        }
    };
    let version =
        version(&file.runner.root).map(|version| format!(", version {version}")).unwrap_or_default();
    let at = registration.git_hub_url.map(|url| format!(" at {url}")).unwrap_or_default();
    let found = format!("{}{at}{version}", registration.agent_name);
    if registration.labels.is_empty() {
        return Check::pass(format!("{found}; labels are known to the server alone"));
    }
    if registration.labels.iter().any(|label| label == "assay-bpf-runner") {
        return Check::pass(format!("{found}; labels {}", registration.labels.join(", ")));
    }
    Check::warn(
        format!("{found}; labels {} lack assay-bpf-runner", registration.labels.join(", ")),
        "add the label in the repository's settings, Actions, Runners",
    )
}

/// Self-updates keep versions side by side: `bin` links to `bin.<version>`; a first installation has only `bin`.
fn version(root: &Path) -> Option<String> {
    let target = Rights::over(root).ok()?.act(|| Ok(std::fs::read_link(root.join("bin")))).ok()?.ok()?;
    Some(target.file_name()?.to_str()?.strip_prefix("bin.")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_registration_is_read_with_its_byte_order_mark_and_version() {
        let home = tempfile::tempdir().unwrap();
        let file = HostFile::new("github-runner", home.path());
        assert_eq!(look(&file).status, Status::Warn);
        std::fs::write(
            home.path().join(".runner"),
            "\u{feff}{\"agentId\": 7, \"agentName\": \"bpf-1\", \"gitHubUrl\": \"https://github.com/a/b\"}",
        )
        .unwrap();
        std::fs::create_dir(home.path().join("bin.2.330.0")).unwrap();
        std::os::unix::fs::symlink(home.path().join("bin.2.330.0"), home.path().join("bin")).unwrap();
        let check = look(&file);
        assert_eq!(check.status, Status::Pass);
        assert_eq!(
            check.found,
            "bpf-1 at https://github.com/a/b, version 2.330.0; labels are known to the server alone"
        );
        std::fs::write(home.path().join(".runner"), "{\"agentName\": \"bpf-1\", \"labels\": [\"linux\"]}")
            .unwrap();
        assert!(look(&file).found.contains("labels linux lack assay-bpf-runner"));
    }
}
