//! One run to everything that is kept of it.

use crate::fixtures::{
    RUN, assembled, decision, effect, effects, logs, open, outputs, path, summary, window,
};
use assay_gates::capture::{Effect, Operation, PathState};
use assay_gates::error::Code;
use assay_gates::evidence::tool_effects::Attribution;
use assay_gates::evidence::{Archive, KernelSet, Logs, ToolEffects, effects as effects_file};
use serde_json::Value;
use std::path::Path;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_an_archive_its_extract_and_its_details() {
    let folder = tempfile::tempdir().unwrap();
    let written = assembled(folder.path(), &summary(), effects(), &logs()).unwrap();
    assert_eq!((written.effects, written.kernel_events, written.filtered), (8, 5, 1));
    let archive = Archive::open(&outputs(folder.path()).archive.path()).unwrap();
    assert_eq!(archive.sha256, written.sha256);
    assert_eq!((archive.kernel.len(), archive.policy.len(), archive.sdk.len()), (5, 1, 3));
    assert_eq!(archive.started.env_keys, ["ASSAY_RUNNER_RUN_ID", "ASSAY_RUNNER_SDK_EVENT_LOG"]);
    for path in assay_gates::evidence::archive::member::ALL {
        let extracted = std::fs::read(folder.path().join("extract").join(path)).unwrap();
        assert_eq!(archive.member(path), Some(extracted.as_slice()));
    }
    for name in [
        "effects.ndjson",
        "surface.json",
        "kernel_set.json",
        "tool_effects.json",
        "filter.json",
        "capture_proof.json",
    ] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let filter = json(&folder.path().join("filter.json"));
    let of = |rule: &str| {
        let rules = filter["rules"].as_array().unwrap();
        rules.iter().find(|found| found["rule"] == rule).unwrap()["count"].clone()
    };
    assert_eq!((of("system_libraries"), of("locale")), (1.into(), 0.into()));
    assert_eq!(filter["work"], "/run/assay-gates/work");
}

#[test]
fn effects_are_read_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    assembled(folder.path(), &summary(), effects(), &logs()).unwrap();
    let file = folder.path().join("effects.ndjson");
    let back: Vec<Effect> = effects_file::read(&file).unwrap().map(Result::unwrap).collect();
    assert_eq!(back, effects());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with(r#"{"schema":"assay.gates.effect.v0","run_id":"run_fixture","seq":0,"#),
        "{text}"
    );

    let lines: Vec<&str> = text.lines().collect();
    for (broken, says) in [
        (format!("{}\n{}\n", lines[0], lines[2]), "seq 1"),
        (format!("{}\n{}\n", lines[0], lines[1].replace(RUN, "run_x")), "one run_id"),
        (format!("{}\n", lines[0].replace("effect.v0", "effect.v1")), "schema"),
        (lines[0].to_owned(), "a line ended"),
        ("{}\n".to_owned(), "an effect"),
        (format!("{}\n", lines[0].replace(r#""seq":0"#, r#""seq":0,"seq":0"#)), "duplicate field `seq`"),
        (
            format!("{}\n", lines[0].replace(r#""run_id""#, r#""run\u005fid":"x","run_id""#)),
            "duplicate field",
        ),
    ] {
        std::fs::write(&file, broken).unwrap();
        let error = effects_file::read(&file).unwrap().find_map(Result::err).unwrap();
        assert!(error.message().contains(says), "{error}");
    }
}

#[test]
fn equal_runs_with_other_pids_times_and_descriptors_give_equal_sets() {
    let folder = tempfile::tempdir().unwrap();
    let other: Vec<Effect> = effects()
        .into_iter()
        .map(|effect| Effect {
            pid: effect.pid + 50,
            tid: effect.tid + 50,
            time_ns: effect.time_ns * 3,
            return_value: effect.return_value.map(|value| if value >= 0 { value + 9 } else { value }),
            ..effect
        })
        .collect();
    let first = assembled(&folder.path().join("1"), &summary(), effects(), &logs()).unwrap();
    let second = assembled(&folder.path().join("2"), &summary(), other, &logs()).unwrap();
    assert_eq!(first.kernel_set, second.kernel_set);
    for name in ["kernel_set.json", "tool_effects.json", "filter.json", "extract/capability-surface.json"] {
        let read = |run: &str| std::fs::read(folder.path().join(run).join(name)).unwrap();
        assert_eq!(read("1"), read("2"), "{name}");
    }
    assert_ne!(first.sha256, second.sha256, "pids stand in the archive as they are");
}

#[test]
fn an_extra_write_shows_in_the_set_of_kernel_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let mut more = effects();
    more.push(open(8, "/run/assay-gates/work/output.txt", 0o1101, 4));
    let first = assembled(&folder.path().join("1"), &summary(), effects(), &logs()).unwrap();
    let second = assembled(&folder.path().join("2"), &summary(), more, &logs()).unwrap();
    assert_eq!(first.surface, second.surface, "the surface can't tell");
    let count = |set: &KernelSet| {
        set.records
            .iter()
            .find(|record| record.value.as_deref() == Some("/run/assay-gates/work/output.txt"))
            .unwrap()
            .count
    };
    assert_eq!((count(&first.kernel_set), count(&second.kernel_set)), (1, 2));
}

#[test]
fn effects_are_told_apart_by_the_calls_own_cgroup() {
    let folder = tempfile::tempdir().unwrap();
    let mut summary = summary();
    summary.calls = vec![window("tc_1", "read_file", false), window("tc_2", "list", true)];
    let within = |call: &str, effect: Effect| Effect { call: Some(call.to_owned()), ..effect };
    let effects = vec![
        open(0, "/w/outside", 0, 3),
        within("tc_1", open(1, "/w/input", 0, 3)),
        within("tc_1", open(2, "/w/input", 0, 7)),
        within("tc_1", open(3, "/usr/lib/x.so", 0, 3)),
        within("tc_1", effect(4, Operation::Fork, "clone")),
        within(
            "tc_1",
            Effect { path: path("/w/input", PathState::Resolved), ..effect(5, Operation::Unlink, "unlink") },
        ),
        within("tc_2", open(6, "/w/overlapped", 0, 3)),
    ];
    let logs = Logs {
        policy: Some(vec![decision(0, "tc_1", "read_file", "allow"), decision(1, "tc_3", "rm", "deny")]),
        sdk: None,
    };
    assembled(folder.path(), &summary, effects, &logs).unwrap();
    let effects: ToolEffects =
        serde_json::from_value(json(&folder.path().join("tool_effects.json"))).unwrap();
    let calls: Vec<_> = effects
        .calls
        .iter()
        .map(|call| {
            (
                call.tool_call_id.as_str(),
                call.attribution,
                call.decision.as_deref(),
                call.effects.len(),
                call.telemetry,
            )
        })
        .collect();
    assert_eq!(
        calls,
        [
            ("tc_1", Attribution::Exact, Some("allow"), 2, 1),
            ("tc_2", Attribution::Ambiguous, None, 0, 0),
            ("tc_3", Attribution::None, Some("deny"), 0, 0),
        ]
    );
    assert_eq!(effects.calls[0].effects[0].count, 2);
    assert_eq!(effects.ambiguous[0].path.as_deref(), Some("/w/overlapped"));
    assert_eq!(effects.outside[0].path.as_deref(), Some("/w/outside"));
}

#[test]
fn a_write_is_evidence_where_reads_are_telemetry() {
    let folder = tempfile::tempdir().unwrap();
    let mut summary = summary();
    summary.calls = vec![window("tc_1", "read_file", false)];
    let hidden = Effect { call: Some("tc_1".to_owned()), ..open(0, "/dev/shm/hidden", 0o1101, 3) };
    let outside = open(1, "/w/node_modules/x.js", 0o2101, 4);
    let read = open(2, "/w/node_modules/x.js", 0, 4);
    let written = assembled(folder.path(), &summary, vec![hidden, outside, read], &Logs::default()).unwrap();
    assert_eq!(written.kernel_events, 2);
    let effects: ToolEffects =
        serde_json::from_value(json(&folder.path().join("tool_effects.json"))).unwrap();
    assert_eq!(effects.calls[0].effects[0].path.as_deref(), Some("/dev/shm/hidden"));
    assert_eq!((effects.outside.len(), effects.outside_telemetry), (1, 1));
}

#[test]
fn an_effect_of_an_unknown_call_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let stray = Effect { call: Some("tc_9".to_owned()), ..open(0, "/w/x", 0, 3) };
    let error = assembled(folder.path(), &summary(), vec![stray], &Logs::default()).unwrap_err();
    assert_eq!(error.code(), Code::EvidenceInvalid);
}

#[test]
fn a_refusal_keeps_the_effects_and_writes_no_archive() {
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<Effect> = (0..10_001).map(|seq| open(seq, "/w/x", 0, 3)).collect();
    let error = assembled(folder.path(), &summary(), many, &Logs::default()).unwrap_err();
    assert_eq!(error.code(), Code::BudgetExceeded);
    assert!(!outputs(folder.path()).archive.path().exists());
    assert!(!folder.path().join("extract").exists());
    let effects = effects_file::read(&folder.path().join("effects.ndjson")).unwrap();
    assert_eq!(effects.filter(Result::is_ok).count(), 10_001);
    assert!(folder.path().join("capture_proof.json").exists());
}

#[test]
fn too_many_bytes_of_kernel_events_are_a_named_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("/w/{}", "\u{1}".repeat(4000));
    let many: Vec<Effect> = (0..200).map(|seq| open(seq, &long, 0, 3)).collect();
    let error = assembled(folder.path(), &summary(), many, &Logs::default()).unwrap_err();
    assert_eq!(error.code(), Code::BudgetExceeded);
    assert!(error.message().contains("bytes of kernel events"), "{error}");
    assert!(!outputs(folder.path()).archive.path().exists());
}

#[test]
fn no_secret_reaches_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let secret = ["sk_live_", "abcdefgh12345678"].concat();
    let mut effects = effects();
    effects.push(open(8, &format!("/run/assay-gates/work/{secret}"), 0o101, 3));
    effects.push(Effect {
        target: path(&format!("/w/{secret}"), PathState::Requested),
        path: path("/usr/lib/x", PathState::Resolved),
        ..effect(9, Operation::Rename, "rename")
    });
    effects.push(open(10, &format!("/proc/{secret}"), 0, -2));
    let mut logs = logs();
    logs.policy.iter_mut().flatten().for_each(|event| event.tool = format!("read_{secret}"));
    let written = assembled(folder.path(), &summary(), effects, &logs).unwrap();
    let receipt = written.health.redaction.unwrap();
    assert_eq!(receipt.by_field["filesystem_paths"], 1);
    assert_eq!(receipt.by_field["value"], 1);
    assert_eq!(receipt.by_field["mcp_tools"], 1);
    assert_eq!(receipt.by_field["policy_decisions"], 1);
    let mut files = 0;
    for name in [
        "effects.ndjson",
        "surface.json",
        "kernel_set.json",
        "tool_effects.json",
        "filter.json",
        "capture_proof.json",
    ] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(!text.contains("abcdefgh12345678"), "{name}");
        files += u32::from(text.contains("<redacted:stripe-key:"));
    }
    assert_eq!(files, 5);
    let work = Some("/run/assay-gates/work");
    let lines = || effects_file::read(&folder.path().join("effects.ndjson")).unwrap();
    assert_eq!(KernelSet::of_effects(RUN, work, Default::default(), lines()).unwrap(), written.kernel_set);
    let calls: ToolEffects = serde_json::from_value(json(&folder.path().join("tool_effects.json"))).unwrap();
    let archive = Archive::open(&outputs(folder.path()).archive.path()).unwrap();
    assert_eq!(calls.rederived(work, lines(), &archive.policy).unwrap(), calls);
    assert_eq!(
        assay_gates::evidence::kernel::normalise(RUN, work, Default::default(), lines()).unwrap().events,
        archive.kernel
    );
    for path in assay_gates::evidence::archive::member::ALL {
        let text = String::from_utf8_lossy(archive.member(path).unwrap());
        assert!(!text.contains("abcdefgh12345678"), "{path}");
    }
}

#[test]
fn a_run_id_that_is_not_safe_or_not_the_recordings_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for id in ["", "run 1", "../x", "run_other"] {
        let mut summary = summary();
        summary.run_id = if id == "run_other" { id.to_owned() } else { summary.run_id };
        let facts = assay_gates::evidence::RunFacts {
            run_id: if id == "run_other" { RUN } else { id },
            agent_shim: "none",
            command: &[],
            env_keys: &[],
            work: None,
            kernel_event: Default::default(),
        };
        let error = assay_gates::evidence::assemble(
            &facts,
            &summary,
            Vec::new(),
            &Logs::default(),
            &crate::fixtures::KEY,
            &outputs(folder.path()),
        )
        .unwrap_err();
        assert_eq!(error.code(), Code::RunIdInvalid, "{id}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_recording_that_breaks_off_gives_its_own_error_and_keeps_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let recording =
        effects().into_iter().map(Ok).chain([Err(assay_gates::error::Error::new(Code::Internal, "torn"))]);
    let facts = assay_gates::evidence::RunFacts {
        run_id: RUN,
        agent_shim: "none",
        command: &[],
        env_keys: &[],
        work: None,
        kernel_event: Default::default(),
    };
    let error = assay_gates::evidence::assemble(
        &facts,
        &summary(),
        recording,
        &Logs::default(),
        &crate::fixtures::KEY,
        &outputs(folder.path()),
    )
    .unwrap_err();
    assert_eq!(error.message(), "torn");
    assert_eq!(effects_file::read(&folder.path().join("effects.ndjson")).unwrap().count(), effects().len());
}
