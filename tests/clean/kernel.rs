//! Kernel objects that a run may leave behind.

use crate::host::Host;
use crate::support::need_root;
use std::path::PathBuf;
use std::process::{Child, Command};

fn cgroup_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup v2 is mounted");
    PathBuf::from(line.split(' ').nth(4).unwrap())
}

/// A control group with a process that ignores every polite signal.
fn stubborn(path: &PathBuf) -> Child {
    std::fs::create_dir_all(path).unwrap();
    let script =
        "trap '' TERM INT HUP; echo $$ > \"$1/cgroup.procs\"; echo ready; while :; do sleep 60; done";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(path)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Read;
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
fn leftover_processes_are_killed_by_their_control_group_and_others_live_on() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let mount = cgroup_mount();
    let ours = mount.join(format!("{}-run", host.prefix));
    let foreign = mount.join(format!("x{}-run", host.prefix));
    let mut leftover = stubborn(&ours.join("inner"));
    let mut bystander = stubborn(&foreign);
    let plan = host.clean("after-run", &["--format", "json"]);
    let report = host.apply_and_find_it_clean();
    let bystander_lives = bystander.try_wait().unwrap().is_none();
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    let _killed_with_its_shell = std::fs::write(foreign.join("cgroup.kill"), "1");
    for _ in 0..1_000 {
        if std::fs::remove_dir(&foreign).is_ok() {
            break;
        }
        std::thread::yield_now();
    }
    leftover.wait().unwrap();
    assert!(bystander_lives, "a process outside our control groups was killed");
    assert!(!ours.exists());
    assert_eq!(report["steps"][0]["action"], "kill_cgroup");
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert!(plan["steps"][0]["processes"].as_u64().unwrap() >= 1, "{plan:#}");
}

#[test]
fn orphaned_network_namespaces_of_ours_go_and_others_stay() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    let names = [format!("{}-net", host.prefix), format!("x{}-net", host.prefix)];
    for name in &names {
        assert!(Command::new("ip").args(["netns", "add", name]).status().unwrap().success());
    }
    host.apply_and_find_it_clean();
    let left: Vec<bool> = names.iter().map(|name| PathBuf::from("/run/netns").join(name).exists()).collect();
    let _status = Command::new("ip").args(["netns", "delete", &names[1]]).status();
    assert_eq!(left, [false, true]);
}
