use crate::fixture::{provenance, put, run_record};
use assay_gates::error::Code;
use assay_gates::pack::manifest::GateStatus;
use assay_gates::pack::{self, Source};
use std::path::Path;

fn failing_root(root: &Path) {
    run_record(
        root,
        &["kernel-only", "kernel-policy", "openai-agents-kernel-policy", "gemini-google-genai-kernel-policy"],
    );
    put(root, "gates/kernel-only/status.txt", "failed\n");
    put(
        root,
        "gates/kernel-only/gate.log",
        "PASS: runner-spike kernel-only acceptance\nnot PASS: x\nFAIL: y\nPASS: last",
    );
    put(root, "gates/kernel-policy/status.txt", "passed\n");
    put(root, "gates/openai-agents-kernel-policy/status.txt", "skipped\n");
    put(root, "events.jsonl", "{}\n");
}

#[test]
fn gates_that_failed_were_skipped_or_never_ran_stand_in_the_pack_with_their_state() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    let built = pack::build(&root, &folder.path().join("out"), None, &provenance()).unwrap();
    let states: Vec<GateStatus> = built.manifest.gates.iter().map(|gate| gate.status).collect();
    assert_eq!(
        states,
        [GateStatus::Failed, GateStatus::Incomplete, GateStatus::Skipped, GateStatus::Missing]
    );
    assert_eq!(
        built.manifest.gates[0].pass_lines,
        ["PASS: runner-spike kernel-only acceptance", "PASS: last"]
    );
    assert_eq!(built.manifest.gates[1].notes, ["passed gate did not leave runner archive tarballs"]);
    assert!(built.claims.claims.iter().all(|claim| !claim.earned && claim.text.is_none()));
    assert!(built.claims.non_claims.iter().any(|one| one.id == "does_not_establish_authenticity"));
    assert_eq!(built.manifest.created_at, "2026-11-21T10:00:00Z");
}

#[test]
fn the_same_root_gives_the_same_bytes_and_a_pack_replaces_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    let zips: Vec<Vec<u8>> = ["a", "b", "a"]
        .iter()
        .map(|name| {
            let zip = folder.path().join(format!("{name}.zip"));
            pack::build(&root, &folder.path().join(name), Some(&zip), &provenance()).unwrap();
            std::fs::read(zip).unwrap()
        })
        .collect();
    assert_eq!(zips[0], zips[1]);
    assert_eq!(zips[0], zips[2]);
}

#[test]
fn the_size_in_the_manifest_counts_the_manifest_and_the_payload() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    let out = folder.path().join("out");
    let built = pack::build(&root, &out, None, &provenance()).unwrap();
    let source = Source::open(&out).unwrap();
    let expected: u64 = source
        .members()
        .iter()
        .filter(|(path, _)| path.starts_with("payload/") || path.as_str() == "manifest.json")
        .map(|(_, bytes)| bytes)
        .sum();
    assert_eq!(built.manifest.pack_size_bytes, expected);
}

#[test]
fn sha256sum_accepts_the_checksums_of_a_pack_in_its_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    let out = folder.path().join("assay-runner-proof-upload");
    pack::build(&root, &out, None, &provenance()).unwrap();
    std::fs::create_dir(folder.path().join("target")).unwrap();
    std::fs::copy(out.join("payload/build/assay-ebpf.o"), folder.path().join("target/assay-ebpf.o")).unwrap();
    let status = std::process::Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "assay-runner-proof-upload/subject-checksums.txt"])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn links_fifos_and_names_that_readers_disagree_on_are_refused() {
    use std::os::unix::fs::symlink;
    type Hostile = fn(&Path);
    let cases: [(&str, Hostile); 7] = [
        ("a symbolic link", |root| symlink("/etc/passwd", root.join("gates/kernel-only/x")).unwrap()),
        ("a symbolic link", |root| symlink("/etc", root.join("gates/kernel-only/x")).unwrap()),
        ("a FIFO", |root| {
            let status =
                std::process::Command::new("mkfifo").arg(root.join("gates/kernel-only/x")).status().unwrap();
            assert!(status.success());
        }),
        ("'\\n' in it", |root| put(root, "gates/kernel-only/a\nb", "")),
        ("beside it", |root| {
            put(root, "gates/kernel-only/Gate.log", "");
        }),
        ("'\\\\' in it", |root| put(root, "gates/kernel-only/a\\b", "")),
        ("something else", |root| symlink("/etc", root.join("runs")).unwrap()),
    ];
    for (found, hostile) in cases {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        failing_root(&root);
        hostile(&root);
        let out = folder.path().join("out");
        let error = pack::build(&root, &out, None, &provenance()).unwrap_err();
        assert_eq!(error.code(), Code::PackRootInvalid);
        assert!(error.message().contains(found), "{error}");
        assert!(!out.exists());
    }
}

#[test]
fn a_folder_with_other_files_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    let out = folder.path().join("out");
    put(&out, "thesis.txt", "years of work");
    let error = pack::build(&root, &out, None, &provenance()).unwrap_err();
    assert_eq!(error.code(), Code::PackOutExists);
    assert!(out.join("thesis.txt").exists());
}

#[test]
fn a_root_that_other_kernel_programs_measured_is_not_packed_with_these() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    failing_root(&root);
    put(&root, "run.json", r#"{"gates":["kernel-only"],"object_sha256":"sha256:00"}"#);
    let error = pack::build(&root, &folder.path().join("out"), None, &provenance()).unwrap_err();
    assert_eq!((error.code(), error.place()), (Code::PackRootInvalid, Some("run.json#/object_sha256")));
}

#[test]
fn every_file_that_a_pack_adds_fits_its_published_schema() {
    use assay_gates::evidence::schema::faults;
    let folder = tempfile::tempdir().unwrap();
    let roots: [fn(&Path); 2] = [failing_root, crate::fixture::passed_root];
    for (number, make) in roots.into_iter().enumerate() {
        let root = folder.path().join(format!("root{number}"));
        make(&root);
        let out = folder.path().join(format!("out{number}"));
        pack::build(&root, &out, None, &provenance()).unwrap();
        for (file, id) in [
            ("manifest.json", "assay.runner.delegated_proof_pack.v1"),
            ("payload/claims.json", "assay.gates.claims.v0"),
            ("payload/build/assay-ebpf.provenance.json", "assay.ci.ebpf_build_provenance.v0"),
        ] {
            let value = serde_json::from_slice(&std::fs::read(out.join(file)).unwrap()).unwrap();
            assert_eq!(faults(id, &value).unwrap(), [], "{file}");
        }
        let chain = out.join(format!("payload/gates/{}/chain.ndjson", crate::fixture::GATE));
        for line in std::fs::read_to_string(chain).unwrap_or_default().lines() {
            assert_eq!(faults("assay.gates.chain.v0", &serde_json::from_str(line).unwrap()).unwrap(), []);
        }
        let outcome = serde_json::to_value(pack::verify(&out).1).unwrap();
        assert_eq!(faults("assay.gates.pack_verification.v0", &outcome).unwrap(), []);
    }
}
