//! Records that a ring of the real kernel refused, from the run that lost them to the view that explains it.

use super::broken::{packed, run, triaged};
use super::github::{RunOf, mount_lists, mount_run, run_answer};
use super::situations::command;
use super::support;
use serde_json::Value;
use std::path::{Path, PathBuf};
use wiremock::MockServer;

/// A gate whose processes open more files, all at once, than a ring of one page can hold.
fn gate(at: &Path) -> PathBuf {
    let folder = at.join("gates/flood");
    std::fs::create_dir_all(&folder).unwrap();
    let script = "#!/bin/sh\nset -eu\nfor n in 1 2 3 4 5 6 7 8; do\n  \
        (i=0; while [ $i -lt 1500 ]; do : < /dev/null; i=$((i + 1)); done) &\ndone\nwait\n";
    std::fs::write(folder.join("agent.sh"), script).unwrap();
    let definition = "schema: assay.gates.gate.v0\nid: flood\ntitle: More records than a small ring holds\ngroup: opt-in\n\
         order: 1\nlabel: flood\nrun_id: run_flood\narchive: runner-flood.tar.gz\nagent_shim: none\n\
         layers: {policy: absent, sdk: absent}\ncommand: [/bin/sh, /run/assay-gates/fixture/agent.sh]\n\
         timeout_seconds: 60\nexpect:\n  exit_code: 0\n";
    std::fs::write(folder.join("gate.yaml"), definition).unwrap();
    at.join("gates")
}

fn proof_of(root: &Path, run: u32) -> Value {
    let file = root.join(format!("gates/flood/run-{run}/capture_proof.json"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// What the proof counts below `environment`: the part of each value after the last `/`, summed.
fn sum(proof: &Value, start: &str) -> u64 {
    let environment = proof["environment"].as_object().unwrap();
    let counts = environment.iter().filter(|(key, _)| key.starts_with(start));
    counts.map(|(_, count)| count.as_str().unwrap().rsplit('/').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The columns of a row of the view.
fn row(view: &str, name: &str) -> Vec<String> {
    let line = view.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{view}")).trim_start();
    line[name.len()..].split("  ").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn drops(target: &Path) -> String {
    let (exit, out, err) =
        command(&["triage", target.to_str().unwrap(), "--drops"], target.parent().unwrap());
    assert_eq!(exit, 0, "{err}");
    out
}

fn is_ring_drops(found: &Value) {
    assert_eq!(found["class"], "ring_drops", "{found:#}");
    assert_eq!(
        (&found["confidence"], &found["gate"], &found["run"], &found["rerun"]["answer"]),
        (&"certain".into(), &"flood".into(), &"1".into(), &"refused".into()),
        "{found:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_that_overflows_fails_the_run_and_the_view_shows_where_the_records_went() {
    if !support::need_root() {
        return;
    }
    let (red, green) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let gates = gate(red.path());
    let (exit, proof) = run(red.path(), &gates, "flood", &["--runs", "2", "--ring-bytes", "4096"]);
    assert_eq!(exit, 12);
    let (exit, passed) = run(green.path(), &gates, "flood", &["--runs", "2"]);
    assert_eq!(exit, 0, "{:#}", triaged(&passed));

    // A proof root and its pack tell the same.
    let pack = packed(&proof);
    let found = triaged(&proof);
    is_ring_drops(&found);
    is_ring_drops(&triaged(&pack));
    let lost: Vec<u64> = (1..=2).map(|run| sum(&proof_of(&proof, run), "drops.cpu")).collect();
    assert!(lost.iter().all(|lost| *lost > 0), "{lost:?}");
    assert_eq!(found["host"]["lost events"], lost.iter().sum::<u64>().to_string());
    let view = drops(&proof);
    assert_eq!(view, drops(&pack));

    // Each side's own account, run by run.
    let columns = |values: &[u64]| {
        let texts = values.iter().map(ToString::to_string);
        texts.chain(["unknown".to_owned()]).collect::<Vec<_>>()
    };
    assert_eq!(row(&view, "kernel: size of the ring, bytes"), columns(&[4096, 4096]));
    assert_eq!(row(&view, "kernel: records refused by the ring"), columns(&lost));
    assert_eq!(row(&view, "reader: read"), row(&view, "reader: emitted by the kernel"));
    for run in 1..=2 {
        let proof = proof_of(&proof, run);
        assert_eq!(sum(&proof, "records."), lost[run as usize - 1], "hooks and CPUs count the same records");
        let openat = proof["environment"]["records.openat"].as_str().unwrap();
        assert!(view.contains(&format!("openat {openat}")), "{view}");
        for (cpu, refused) in proof["environment"].as_object().unwrap() {
            let Some(cpu) = cpu.strip_prefix("drops.cpu") else { continue };
            let refused = refused.as_str().unwrap();
            assert!(refused == "0" || view.contains(&format!("cpu{cpu} {refused}")), "{view}");
        }
        let backlog = proof["environment"]["ring.backlog_over_time"].as_str().unwrap();
        let (_, slots) = backlog.split_once(": ").unwrap();
        let most = slots.split(' ').map(|slot| slot.parse::<u64>().unwrap()).max().unwrap();
        assert!(most > 3000 && most <= 4096, "{backlog}");
        assert_eq!(row(&view, "reader: largest backlog, bytes")[run as usize - 1], most.to_string());
        assert!(view.contains(backlog), "{view}");
    }
    assert!(row(&view, "reader: longest without a look, ms").iter().take(2).all(|lag| lag != "unknown"));
    assert!(row(&view, "host: load").iter().take(2).all(|load| load != "unknown"));
    assert!(row(&view, "filter: telemetry").iter().all(|count| count != "0"), "{view}");
    assert!(view.contains("openat /dev/null"), "{view}");

    // On GitHub, beside the last green run.
    let server = MockServer::start().await;
    let of = |root: &Path, conclusion: &str| RunOf {
        conclusion: Some(conclusion.to_owned()),
        pack_zip: Some(std::fs::read(packed(root)).unwrap()),
        ..RunOf::default()
    };
    let (now, before) = (of(&proof, "failure"), of(&passed, "success"));
    mount_run(&server, 100, &now).await;
    mount_run(&server, 90, &before).await;
    mount_lists(&server, &[run_answer(100, &now)], &[run_answer(90, &before)]).await;
    let at = red.path().to_owned();
    let url = server.uri();
    let asked = tokio::task::spawn_blocking(move || {
        let arguments = ["triage", "100", "--repo", "o/r", "--api-url", &url];
        let with = |more: &[&str]| command(&[&arguments, more].concat(), &at);
        (with(&["--drops"]), with(&["--format", "json"]))
    });
    let ((exit, view, err), (_, found, _)) = asked.await.unwrap();
    assert_eq!(exit, 0, "{err}");
    let texts: Vec<String> = lost.iter().map(ToString::to_string).chain(["0".to_owned()]).collect();
    assert_eq!(row(&view, "kernel: records refused by the ring"), texts);
    assert_eq!(row(&view, "kernel: size of the ring, bytes")[2], "67108864");
    is_ring_drops(&serde_json::from_str(&found).unwrap());
}

#[test]
fn a_ring_smaller_than_a_page_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in
        [vec!["run", "--gate", "x", "--ring-bytes", "100"], vec!["record", "--ring-bytes", "0", "--", "true"]]
    {
        let (exit, _, err) = command(&arguments, folder.path());
        assert_eq!(exit, 2, "{err}");
        assert!(err.contains("4096"), "{err}");
    }
}
