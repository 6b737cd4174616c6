//! Ctrl-C in a run for real, then the line that triage prints, pasted.

use crate::support;
use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn tool(home: &Path) -> Command {
    let mut command = Command::cargo_bin("assay-gates").unwrap();
    command.env("ASSAY_GATES_STATE_DIR", home.join("state")).env_remove("GITHUB_ACTIONS").current_dir(home);
    command
}

/// Two gates of which the second waits as long as the file `slow` is there.
fn gates(home: &Path) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("gates/kernel-only");
    let text = std::fs::read_to_string(shipped.join("gate.yaml")).unwrap();
    for name in ["quick", "slow"] {
        let folder = home.join("gates").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("gate.yaml"), text.replace("id: kernel-only", &format!("id: {name}")))
            .unwrap();
        let agent = std::fs::read_to_string(shipped.join("agent.sh")).unwrap();
        std::fs::write(folder.join("agent.sh"), agent).unwrap();
    }
}

fn hold(home: &Path) {
    let agent = home.join("gates/slow/agent.sh");
    let text = std::fs::read_to_string(&agent).unwrap();
    std::fs::write(agent, text.replacen("\n", "\nsleep 60\n", 1)).unwrap();
}

fn release(home: &Path) {
    let agent = home.join("gates/slow/agent.sh");
    let text = std::fs::read_to_string(&agent).unwrap();
    std::fs::write(agent, text.replace("sleep 60\n", "")).unwrap();
}

fn triaged(root: &Path) -> Value {
    let output =
        tool(root.parent().unwrap()).args(["triage", "--format", "json"]).arg(root).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn archive(root: &Path, gate: &str, run: u32) -> Vec<u8> {
    std::fs::read(root.join(format!("gates/{gate}/run-{run}/runner-kernel-only.tar.gz"))).unwrap_or_default()
}

#[test]
fn an_interrupted_run_is_called_that_and_the_printed_line_goes_on_where_it_stopped() {
    if !support::need_root() {
        return;
    }
    // While a program runs, and (a signal that comes first) before any does.
    for moment in ["run-1/stdout.log", ""] {
        let folder = tempfile::tempdir().unwrap();
        let (home, root) = (folder.path(), folder.path().join("root"));
        gates(home);
        hold(home);
        let child = tool(home)
            .args(["run", "--gates", "quick,slow", "--runs", "2", "--root"])
            .arg(&root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let place =
            if moment.is_empty() { "quick/run-2/result.json".to_owned() } else { format!("slow/{moment}") };
        let until = Instant::now() + Duration::from_secs(120);
        while !root.join("gates").join(&place).exists() {
            assert!(Instant::now() < until, "{place} never came");
            std::thread::sleep(Duration::from_millis(5));
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
            nix::sys::signal::SIGINT,
        )
        .unwrap();
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!([Some(12), Some(13)].contains(&output.status.code()), "{:?} {err}", output.status);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("slow  2/2"), "{err}");
        let found = triaged(&root);
        assert_eq!(
            (&found["class"], &found["confidence"], &found["rerun"]["answer"]),
            (&"interrupted".into(), &"certain".into(), &"allowed".into()),
            "{found:#}"
        );
        let kept: Vec<_> = [1, 2].map(|run| archive(&root, "quick", run)).to_vec();
        assert!(kept.iter().all(|archive| !archive.is_empty()));

        release(home);
        let next = found["next"]["command"].as_str().unwrap();
        let words: Vec<&str> = next.split(' ').collect();
        assert_eq!(&words[..2], ["sudo", "assay-gates"], "{next}");
        let again = tool(home).args(&words[2..]).output().unwrap();
        assert_eq!(again.status.code(), Some(0), "{next}: {}", String::from_utf8_lossy(&again.stderr));
        assert_eq!([1, 2].map(|run| archive(&root, "quick", run)).to_vec(), kept, "measured again");
        assert_eq!(triaged(&root)["class"], "passed");
    }
}
