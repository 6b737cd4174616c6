//! Packs that are not what they say: each is refused, with the reason that fits.

use crate::fixture::{ARCHIVE, GATE, copy, passed_root, provenance, put};
use assay_gates::files::{pretty_sorted, sha256};
use assay_gates::pack::{self, Finding, manifest::Manifest};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A valid root and its pack; made once, copied for each case.
static VALID: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    passed_root(&folder.path().join("root"));
    pack::build(&folder.path().join("root"), &folder.path().join("pack"), None, &provenance()).unwrap();
    folder
});

fn findings(pack: &Path) -> Vec<Finding> {
    pack::verify(pack).1.findings
}

#[test]
fn a_pack_that_was_just_built_verifies_as_a_folder_and_as_a_zip() {
    let pack = VALID.path().join("pack");
    let (verified, outcome) = pack::verify(&pack);
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    let verified = verified.unwrap();
    assert_eq!(verified.archives(), 3);
    assert_eq!(
        verified.claims().earned().map(|claim| claim.id.as_str()).collect::<Vec<_>>(),
        ["three_layers"]
    );
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("pack.zip");
    pack::zip_folder(&pack, &zip).unwrap();
    let (from_zip, outcome) = pack::verify(&zip);
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    let from_zip = from_zip.unwrap();
    assert_eq!(from_zip.manifest_sha256(), verified.manifest_sha256());
    assert_eq!(from_zip.zip_sha256(), Some(sha256(&std::fs::read(&zip).unwrap())));
}

#[test]
fn a_pack_of_gates_that_did_not_pass_verifies_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    crate::fixture::run_record(&root, &["kernel-only", "kernel-policy", "gemini-google-genai-kernel-policy"]);
    put(&root, "gates/kernel-only/status.txt", "failed");
    put(&root, "gates/kernel-only/gate.log", "FAIL: no\n");
    put(&root, "gates/kernel-policy/status.txt", "skipped");
    let built = pack::build(&root, &folder.path().join("pack"), None, &provenance()).unwrap();
    assert_eq!(built.claims.earned().count(), 0);
    assert_eq!(findings(&folder.path().join("pack")), []);
}

/// Changes one file of a finished pack.
type Spoil = fn(&Path);

/// What a person or a broken disk could do to a pack's files.
const FILES: &[(&str, &str, Spoil)] = &[
    ("a flipped byte in an archive", "payload_digest", |pack| flip(&pack.join(run_file(1, ARCHIVE)))),
    ("a flipped byte in the kernel object", "payload_digest", |pack| {
        flip(&pack.join("payload/build/assay-ebpf.o"))
    }),
    ("a changed log", "payload_digest", |pack| edit(pack, &gate_file("gate.log"), "run 2", "run 7")),
    ("a longer log", "payload_size", |pack| edit(pack, &gate_file("gate.log"), "run 2", "run 22")),
    ("a shorter layer", "payload_size", |pack| {
        put(pack, &run_file(1, "extract/layers/sdk.ndjson"), "");
    }),
    ("a missing archive", "payload_missing", |pack| remove(pack, &run_file(2, ARCHIVE))),
    ("a missing verdict", "payload_missing", |pack| remove(pack, &gate_file("verdict.json"))),
    ("missing claims", "payload_missing", |pack| remove(pack, "payload/claims.json")),
    ("missing checksums", "payload_missing", |pack| remove(pack, "subject-checksums.txt")),
    ("a missing Statement", "payload_missing", |pack| remove(pack, "statement.intoto.json")),
    ("no manifest", "file_present", |pack| remove(pack, "manifest.json")),
    ("an extra file in the payload", "payload_extra", |pack| put(pack, &gate_file("extra.txt"), "x")),
    ("an extra file beside the manifest", "payload_extra", |pack| put(pack, "README.md", "x")),
    ("an extra archive", "payload_extra", |pack| put(pack, &run_file(4, ARCHIVE), "x")),
    ("a link in the payload", "pack_link", |pack| {
        std::os::unix::fs::symlink("/etc/passwd", pack.join("payload/link")).unwrap();
    }),
    ("a link in place of a log", "pack_link", |pack| {
        remove(pack, &gate_file("gate.log"));
        std::os::unix::fs::symlink("/etc/passwd", pack.join(gate_file("gate.log"))).unwrap();
    }),
    ("a name in two cases", "pack_name_collision", |pack| put(pack, "payload/Claims.json", "x")),
    ("a name with a line break", "pack_name", |pack| put(pack, "payload/a\nb", "x")),
    ("a digest exchanged in the checksums", "checksums", |pack| {
        edit(pack, "subject-checksums.txt", "assay-ebpf.o", "assay-ebpf.p");
    }),
    ("a checksum left out", "checksums", |pack| {
        let text = read(pack, "subject-checksums.txt");
        let kept: Vec<&str> = text.lines().skip(1).collect();
        put(pack, "subject-checksums.txt", format!("{}\n", kept.join("\n")));
    }),
    ("a checksum too many", "checksums", |pack| {
        let text = read(pack, "subject-checksums.txt");
        put(pack, "subject-checksums.txt", format!("{text}{}  x\n", "0".repeat(64)));
    }),
    ("checksums of another line end", "checksums", |pack| {
        let text = read(pack, "subject-checksums.txt").replace('\n', "\r\n");
        put(pack, "subject-checksums.txt", text);
    }),
    ("a Statement with another subject", "statement", |pack| {
        edit(pack, "statement.intoto.json", "gate.log", "gate.lag")
    }),
    ("a Statement of another commit", "statement", |pack| {
        edit(pack, "statement.intoto.json", "\"gitCommit\": \"0", "\"gitCommit\": \"1")
    }),
    ("a Statement of another predicate", "statement", |pack| {
        edit(pack, "statement.intoto.json", "slsa.dev/provenance/v1", "slsa.dev/provenance/v0")
    }),
    ("a Statement that is no JSON", "statement", |pack| put(pack, "statement.intoto.json", "{")),
    ("a manifest that is no JSON", "manifest_schema", |pack| put(pack, "manifest.json", "{")),
    ("a manifest that says a key twice", "manifest_schema", |pack| {
        edit(pack, "manifest.json", "{\n", "{\n  \"kind\": \"x\",\n")
    }),
    ("a manifest with an unknown key", "manifest_schema", |pack| {
        edit(pack, "manifest.json", "{\n", "{\n  \"aa\": 1,\n")
    }),
    ("a manifest of another schema", "manifest_schema", |pack| {
        edit(
            pack,
            "manifest.json",
            "\"schema\": \"assay.runner.delegated_proof_pack.v1\",\n  \"source\"",
            "\"schema\": \"assay.runner.delegated_proof_pack.v2\",\n  \"source\"",
        )
    }),
    ("a manifest without its last newline", "manifest_canonical", |pack| {
        let text = read(pack, "manifest.json");
        put(pack, "manifest.json", text.trim_end());
    }),
    ("a manifest in compact form", "manifest_canonical", |pack| {
        let value: Value = serde_json::from_str(&read(pack, "manifest.json")).unwrap();
        put(pack, "manifest.json", value.to_string());
    }),
    ("a manifest that is not UTF-8", "file_utf8", |pack| put(pack, "manifest.json", [0xff, 0xfe])),
];

/// Changes one fact of the manifest and writes it in canonical form, checksums and Statement with it: what someone
/// does who knows the format.
type Rewrite = fn(&mut Value);

const FACTS: &[(&str, &str, Rewrite)] = &[
    ("another claim ceiling", "manifest_words", |m| m["claim_ceiling"] = json!("runtime_safety")),
    ("another kind", "manifest_words", |m| m["kind"] = json!("x")),
    ("another retention", "manifest_words", |m| m["retention_days"] = json!(1)),
    ("another soft cap", "manifest_words", |m| m["expected_size_policy"]["soft_cap_bytes"] = json!(1)),
    ("no evidence boundary", "manifest_words", |m| {
        m["evidence_boundary"]["not_a_runner_emitted_artifact"] = json!(false)
    }),
    ("another mode of verification", "manifest_words", |m| {
        m["verification_modes"]["current_state"] = json!("any")
    }),
    ("a time with a fraction", "manifest_time", |m| m["created_at"] = json!("2026-11-21T10:00:00.5Z")),
    ("a time that is none", "manifest_time", |m| m["created_at"] = json!("yesterday")),
    ("two heads", "manifest_workflow", |m| m["workflow"]["head_sha"] = json!("f".repeat(40))),
    ("two inputs", "manifest_workflow", |m| m["workflow"]["inputs"]["gates"] = json!("kernel-only")),
    ("the page of another run", "manifest_source", |m| {
        m["source"]["run_url"] = json!("https://github.com/owner/name/actions/runs/43");
        m["workflow"]["run_url"] = m["source"]["run_url"].clone();
    }),
    ("a repository with a line break", "manifest_source", |m| {
        m["source"]["repository"] = json!("owner/name\nx")
    }),
    ("another size", "pack_size", |m| m["pack_size_bytes"] = json!(1)),
    ("rows out of order", "payload_order", |m| m["payload_files"].as_array_mut().unwrap().swap(0, 1)),
    ("a row twice", "payload_order", |m| {
        let rows = m["payload_files"].as_array_mut().unwrap();
        rows.insert(1, rows[0].clone());
    }),
    ("a row that leaves the pack", "payload_name", |m| {
        m["payload_files"][0]["path"] = json!("payload/../../etc/passwd")
    }),
    ("a row outside the payload", "payload_name", |m| m["payload_files"][0]["path"] = json!("a")),
    ("a row of another digest", "payload_digest", |m| {
        m["payload_files"][3]["sha256"] = json!(format!("sha256:{}", "0".repeat(64)))
    }),
    ("a subject left out", "subjects", |m| {
        m["proof_pack"]["subjects"].as_array_mut().unwrap().pop();
    }),
    ("a subject too many", "subjects", |m| {
        let subjects = m["proof_pack"]["subjects"].as_array_mut().unwrap();
        subjects.push(subjects[0].clone());
    }),
    ("a subject of another role", "subjects", |m| {
        m["proof_pack"]["subjects"][1]["role"] = json!("runner_archive")
    }),
    ("no kernel object among the subjects", "subjects", |m| {
        m["proof_pack"]["subjects"].as_array_mut().unwrap().remove(0);
    }),
    ("another kernel object among the subjects", "subjects", |m| {
        m["proof_pack"]["subjects"][0]["sha256"] = json!(format!("sha256:{}", "1".repeat(64)));
    }),
    ("no build provenance", "build_provenance", |m| m["build_provenance"]["ebpf"] = Value::Null),
    ("no source of the trees", "build_provenance", |m| m["content_provenance"]["source"] = Value::Null),
    ("other trees than the provenance has", "build_provenance", |m| {
        m["content_provenance"]["path_trees"]["ebpf"] = json!({"oid": "a".repeat(40), "error": null});
    }),
    ("a tree that is no object id", "path_trees", |m| {
        m["content_provenance"]["path_trees"]["ebpf"] = json!({"oid": "main", "error": null});
    }),
    ("a tree and a reason against it", "path_trees", |m| {
        m["content_provenance"]["path_trees"]["ebpf"] = json!({"oid": "a".repeat(40), "error": "x"});
    }),
    ("a head that the provenance does not have", "build_provenance", |m| {
        m["source"]["head_sha"] = json!("f".repeat(40));
        m["workflow"]["head_sha"] = m["source"]["head_sha"].clone();
    }),
    ("a gate twice", "gate_twice", |m| {
        let gates = m["gates"].as_array_mut().unwrap();
        gates.push(gates[0].clone());
    }),
    ("files of a gate without a row", "gate_unlisted", |m| m["gates"] = json!([])),
    ("a gate without one of its archives", "gate_files", |m| {
        m["gates"][0]["archives"].as_array_mut().unwrap().pop();
    }),
    ("a gate with a foreign JSON", "gate_files", |m| {
        m["gates"][0]["selected_json"][0]["path"] = json!("payload/x.json")
    }),
    ("a gate without its log", "gate_files", |m| {
        m["gates"][0].as_object_mut().unwrap().remove("gate_log");
    }),
    ("a PASS line that the log does not have", "pass_lines", |m| {
        m["gates"][0]["pass_lines"].as_array_mut().unwrap().push(json!("PASS: all is well"));
    }),
    ("a status that the verdict does not have", "gate_status", |m| m["gates"][0]["status"] = json!("failed")),
    ("a missing gate with files", "gate_status", |m| m["gates"][0]["status"] = json!("missing")),
];

/// Changes the root and packs it: every digest is right, and what is said is not so.
const ROOTS: &[(&str, &str, Spoil)] = &[
    ("a log without a PASS line", "pass_lines", |root| {
        edit(root, &root_file("gate.log"), "\nPASS: ", "\nFAIL: ")
    }),
    ("a log of another gate", "pass_lines", |root| {
        edit(root, &root_file("gate.log"), "OpenAI Agents kernel+policy three-run", "kernel-only three-run")
    }),
    ("a verdict of another gate", "gate_verdict", |root| {
        edit(root, &root_file("verdict.json"), GATE, "kernel-only")
    }),
    ("a verdict that failed", "gate_status", |root| {
        edit(root, &root_file("verdict.json"), "\"status\": \"passed\"", "\"status\": \"failed\"")
    }),
    ("a verdict with another exit code", "verdict", |root| {
        edit(root, &root_file("verdict.json"), "\"exit\": 0", "\"exit\": 10")
    }),
    ("a verdict with a run that lost records", "run_verdict", |root| {
        edit(root, &root_file("verdict.json"), "\"lost\": 0", "\"lost\": 1")
    }),
    ("a verdict with another archive", "gate_verdict", |root| {
        edit(root, &root_file("verdict.json"), "run-2/runner", "run-1/runner")
    }),
    ("a verdict with another comparison", "determinism", |root| {
        edit(root, &root_file("verdict.json"), "\"runs\": 3\n", "\"runs\": 4\n")
    }),
    ("no verdict", "gate_verdict", |root| remove(root, &root_file("verdict.json"))),
    ("an archive that is none", "archive", |root| put(root, &root_run(3, ARCHIVE), "no gzip")),
    ("an archive with bytes after its end", "archive", |root| {
        let path = root.join(root_run(3, ARCHIVE));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.push(0);
        std::fs::write(path, bytes).unwrap();
    }),
    ("an extract that is not in the archive", "extract", |root| {
        edit(
            root,
            &root_run(1, "extract/observation-health.json"),
            "\"ringbuf_drops\":0",
            "\"ringbuf_drops\":1",
        );
    }),
    ("an SDK log that is not in the archive", "extract", |root| {
        edit(root, &root_run(1, "extract/layers/sdk.ndjson"), "tool_call_completed", "run_failed");
    }),
    ("an effect more than the kernel layer has", "effects", |root| {
        edit(
            root,
            &root_run(1, "effects.ndjson"),
            "/run/assay-gates/work/input.txt",
            "/run/assay-gates/work/other.txt",
        );
    }),
    ("effects out of sequence", "effects", |root| {
        edit(root, &root_run(1, "effects.ndjson"), "\"seq\":3", "\"seq\":5")
    }),
    ("effects of another run", "effects", |root| {
        edit(root, &root_run(1, "effects.ndjson"), "run_fixture", "run_other")
    }),
    ("no effects", "effects", |root| remove(root, &root_run(1, "effects.ndjson"))),
    ("a kernel set with a record less", "kernel_set", |root| {
        let path = root_run(2, "kernel_set.json");
        let mut value: Value = serde_json::from_str(&read(root, &path)).unwrap();
        value["records"].as_array_mut().unwrap().pop();
        put(root, &path, value.to_string());
    }),
    ("a surface with an effect less", "surface", |root| {
        let path = root_run(2, "surface.json");
        let mut value: Value = serde_json::from_str(&read(root, &path)).unwrap();
        value["effects"].as_array_mut().unwrap().pop();
        put(root, &path, value.to_string());
    }),
    ("tool effects that the effects don't give", "tool_effects", |root| {
        let path = root_run(2, "tool_effects.json");
        let mut value: Value = serde_json::from_str(&read(root, &path)).unwrap();
        value["outside_telemetry"] = json!(99);
        put(root, &path, value.to_string());
    }),
    ("filter counts that the effects don't give", "filter", |root| {
        let path = root_run(2, "filter.json");
        let mut value: Value = serde_json::from_str(&read(root, &path)).unwrap();
        value["filtered"] = json!(99);
        put(root, &path, value.to_string());
    }),
    ("a capture proof that is not complete", "capture_proof", |root| {
        edit(root, &root_run(1, "capture_proof.json"), "\"complete\": true", "\"complete\": false");
    }),
    ("a capture proof of another run", "capture_proof", |root| {
        edit(root, &root_run(1, "capture_proof.json"), "run_fixture", "run_other");
    }),
    ("a complete capture with a reason against it", "capture_proof", |root| {
        edit(root, &root_run(1, "capture_proof.json"), "\"reasons\": []", "\"reasons\": [\"lost\"]");
    }),
    ("a host that is fit although a check failed", "doctor", |root| {
        edit(root, "doctor.json", "\"WARN\"", "\"FAIL\"");
    }),
    ("a gate that passed on a host that is not fit", "doctor", |root| {
        edit(root, "doctor.json", "\"WARN\"", "\"FAIL\"");
        edit(root, "doctor.json", "\"fit\":true", "\"fit\":false");
    }),
    ("a host report with a key that nobody knows", "doctor", |root| {
        edit(root, "doctor.json", "\"fit\":true", "\"fit\":true,\"sound\":true");
    }),
    ("a host report that says a thing twice", "doctor", |root| {
        edit(root, "doctor.json", "\"fit\":true", "\"fit\":false,\"fit\":true");
    }),
    ("no capture proof", "file_present", |root| remove(root, &root_run(1, "capture_proof.json"))),
    ("a reference to a line that is not there", "evidence_ref", |root| {
        edit(root, "runs/matched_safe_read/join-result.json", "kernel.ndjson#seq=", "kernel.ndjson#seq=77");
    }),
    ("a reference to a value that is not there", "evidence_ref", |root| {
        edit(root, "runs/matched_safe_read/join-result.json", "json#/bindings/0", "json#/bindings/9");
    }),
    ("a reference to a file that is not there", "evidence_ref", |root| {
        edit(root, "runs/matched_safe_read/join-result.json", "kernel.ndjson#", "kernal.ndjson#");
    }),
    ("a reference out of the pack", "evidence_ref", |root| {
        edit(root, "runs/matched_safe_read/join-result.json", "payload/gates/", "payload/../../gates/");
    }),
    ("a reference of no known form", "evidence_ref", |root| {
        edit(root, "runs/matched_safe_read/join-result.json", "kernel.ndjson#seq=", "kernel.ndjson#line=");
    }),
    ("a capture proof of other kernel programs", "measuring_object", |root| {
        let path = root_run(1, "capture_proof.json");
        let text = read(root, &path);
        let stated = text.split("\"object_sha256\": \"sha256:").nth(1).unwrap()[..64].to_owned();
        put(root, &path, text.replace(&stated, &"0".repeat(64)));
    }),
    ("a review row that is no JSON", "review_row", |root| put(root, "runs/matched_safe_read/x.json", "{")),
];

#[test]
fn a_pack_whose_files_were_changed_is_refused_with_its_own_reason() {
    refused(FILES, |case, pack| case(pack));
}

#[test]
fn a_manifest_that_was_rewritten_with_all_its_lists_is_refused_with_its_own_reason() {
    refused(FACTS, |rewrite, pack| {
        let mut value: Value = serde_json::from_str(&read(pack, "manifest.json")).unwrap();
        rewrite(&mut value);
        seal(pack, &mut value, |m| m["pack_size_bytes"] == json!(1));
    });
}

#[test]
fn a_pack_of_a_root_that_contradicts_itself_is_refused_with_its_own_reason() {
    let mut wrong = Vec::new();
    for (name, check, spoil) in ROOTS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        copy(&VALID.path().join("root"), &root);
        spoil(&root);
        let out = folder.path().join("pack");
        pack::build(&root, &out, None, &provenance()).unwrap();
        judge(name, check, &findings(&out), &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn claims_that_the_files_do_not_give_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pack");
    copy(&VALID.path().join("pack"), &out);
    edit(&out, "payload/claims.json", "\"judged\": 3", "\"judged\": 9");
    let row = std::fs::read(out.join("payload/claims.json")).unwrap();
    let mut value: Value = serde_json::from_str(&read(&out, "manifest.json")).unwrap();
    for list in ["/payload_files", "/proof_pack/subjects"] {
        for one in value.pointer_mut(list).unwrap().as_array_mut().unwrap() {
            if one["path"].as_str().unwrap().ends_with("payload/claims.json") {
                one["sha256"] = json!(sha256(&row).to_string());
                one["bytes"] = json!(row.len());
            }
        }
    }
    seal(&out, &mut value, |_| false);
    let found = findings(&out);
    assert_eq!(found.iter().map(|one| one.check).collect::<Vec<_>>(), ["claims"], "{found:#?}");
    assert!(found[0].path.starts_with("payload/claims.json:"), "{found:?}");
}

#[test]
fn there_are_enough_ways_to_spoil_a_pack() {
    assert!(FILES.len() + FACTS.len() + ROOTS.len() >= 90);
}

fn refused<T: Copy>(cases: &[(&str, &str, T)], spoil: impl Fn(T, &Path)) {
    let mut wrong = Vec::new();
    for (name, check, case) in cases {
        let folder = tempfile::tempdir().unwrap();
        let pack = folder.path().join("pack");
        copy(&VALID.path().join("pack"), &pack);
        spoil(*case, &pack);
        judge(name, check, &findings(&pack), &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The reason must be among the first findings, not somewhere in a heap of consequences.
fn judge(name: &str, check: &str, findings: &[Finding], wrong: &mut Vec<String>) {
    if !findings.iter().take(3).any(|finding| finding.check == check) {
        wrong.push(format!("{name}: expected {check}, found {findings:#?}"));
    }
}

/// Writes a manifest in canonical form, with the checksums and the Statement that follow from it.
fn seal(pack: &Path, value: &mut Value, keep_size: fn(&Value) -> bool) {
    if !keep_size(value) {
        let payload: u64 =
            value["payload_files"].as_array().unwrap().iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        for _ in 0..5 {
            value["pack_size_bytes"] = json!(payload + pretty_sorted(value).unwrap().len() as u64);
        }
    }
    let text = pretty_sorted(value).unwrap();
    put(pack, "manifest.json", &text);
    let manifest: Manifest = serde_json::from_value(value.clone()).unwrap();
    let named = pack::statement::subjects(&manifest, sha256(text.as_bytes()));
    put(pack, "subject-checksums.txt", pack::statement::checksums(&named));
    let statement = pack::statement::statement(&manifest, &named, "workflow_dispatch", "self-hosted");
    put(pack, "statement.intoto.json", pretty_sorted(&statement).unwrap());
}

fn gate_file(name: &str) -> String {
    format!("payload/gates/{GATE}/{name}")
}

fn run_file(run: u32, name: &str) -> String {
    format!("payload/{}", root_run(run, name))
}

fn root_file(name: &str) -> String {
    format!("gates/{GATE}/{name}")
}

fn root_run(run: u32, name: &str) -> String {
    format!("gates/{GATE}/run-{run}/{name}")
}

fn read(folder: &Path, path: &str) -> String {
    std::fs::read_to_string(folder.join(path)).unwrap()
}

fn remove(folder: &Path, path: &str) {
    std::fs::remove_file(folder.join(path)).unwrap();
}

/// Replaces the first occurrence; there must be one, or the case shows nothing.
fn edit(folder: &Path, path: &str, from: &str, to: &str) {
    let text = read(folder, path);
    assert!(text.contains(from), "{path} has no {from}:\n{text}");
    put(folder, path, text.replacen(from, to, 1));
}

fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
