//! Attestations: what is compared once a signature holds, and, with the feature, a real bundle's signature.

use crate::fixture::{by_another_object, passed_root, provenance};
use assay_gates::error::Code;
use assay_gates::pack::attestation::{Signed, compare};
use assay_gates::pack::manifest::{GateRow, GateStatus};
use assay_gates::pack::statement::{TEST_RESULT, test_result};
use assay_gates::pack::{self, VerifiedPack};

fn verified() -> (tempfile::TempDir, VerifiedPack) {
    let folder = tempfile::tempdir().unwrap();
    passed_root(&folder.path().join("root"));
    let out = folder.path().join("pack");
    pack::build(&folder.path().join("root"), &out, None, &provenance()).unwrap();
    let pack = pack::verify(&out).0.unwrap();
    (folder, pack)
}

fn signed(folder: &std::path::Path) -> Signed {
    Signed {
        statement: std::fs::read(folder.join("pack/statement.intoto.json")).unwrap(),
        issuer: "https://token.actions.githubusercontent.com".into(),
        identity: "https://github.com/owner/name/.github/workflows/gates.yml@refs/heads/main".into(),
        repository: "https://github.com/owner/name".into(),
        commit: "0123456789012345678901234567890123456789".into(),
        r#ref: "refs/heads/main".into(),
        runner_environment: "self-hosted".into(),
        invocation: "https://github.com/owner/name/actions/runs/42/attempts/1".into(),
        trust: "test".into(),
    }
}

#[test]
fn the_statement_of_a_pack_signed_by_its_own_workflow_is_accepted_and_a_self_hosted_runner_is_said() {
    let (folder, pack) = verified();
    let attested = compare(&signed(folder.path()), &pack, "Owner/Name").unwrap();
    assert!(attested.established.iter().any(|line| line.contains("gates.yml@refs/heads/main")));
    assert!(attested.not_established.iter().any(|line| line.contains("self-hosted")));
}

#[test]
fn every_claim_that_differs_is_refused() {
    let (folder, pack) = verified();
    let changes: [(&str, fn(&mut Signed)); 10] = [
        ("issuer", |one| one.issuer = "https://accounts.example.com".into()),
        ("repository", |one| one.repository = "https://github.com/owner/name2".into()),
        ("workflow", |one| {
            one.identity = "https://github.com/owner/name/.github/workflows/other.yml@refs/heads/main".into()
        }),
        ("workflow", |one| {
            one.identity = "https://github.com/evil/name/.github/workflows/gates.yml@refs/heads/main".into()
        }),
        ("commit", |one| one.commit = "f".repeat(40)),
        ("ref", |one| one.r#ref = "refs/heads/evil".into()),
        ("run", |one| one.invocation = one.invocation.replace("/attempts/1", "/attempts/2")),
        ("subjects", |one| one.statement = b"{}".to_vec()),
        ("subjects", |one| {
            let mut value: serde_json::Value = serde_json::from_slice(&one.statement).unwrap();
            value["subject"].as_array_mut().unwrap().pop();
            one.statement = value.to_string().into_bytes();
        }),
        ("subjects", |one| {
            let mut value: serde_json::Value = serde_json::from_slice(&one.statement).unwrap();
            value["subject"][0]["digest"]["sha256"] = serde_json::json!("0".repeat(64));
            one.statement = value.to_string().into_bytes();
        }),
    ];
    for (what, change) in changes {
        let mut one = signed(folder.path());
        change(&mut one);
        let error = compare(&one, &pack, "owner/name").unwrap_err();
        assert_eq!(error.code(), Code::AttestationInvalid);
        assert!(error.message().contains(what), "{what}: {error}");
    }
    let error = compare(&signed(folder.path()), &pack, "other/name").unwrap_err();
    assert!(error.message().contains("https://github.com/other/name"), "{error}");
}

/// A Statement over the subjects of the pack, of another predicate.
fn stated(folder: &std::path::Path, kind: &str, predicate: serde_json::Value) -> Signed {
    let mut one = signed(folder);
    let mut value: serde_json::Value = serde_json::from_slice(&one.statement).unwrap();
    value["predicateType"] = kind.into();
    value["predicate"] = predicate;
    one.statement = value.to_string().into_bytes();
    one
}

#[test]
fn a_signed_test_result_says_of_every_gate_what_the_manifest_says_and_no_other_predicate_is_taken() {
    let (folder, pack) = verified();
    let result = test_result(pack.manifest());
    let attested = compare(&stated(folder.path(), TEST_RESULT, result.clone()), &pack, "owner/name").unwrap();
    assert!(attested.established.iter().any(|line| line.contains("how each gate ended")), "{attested:?}");

    let refused = |kind: &str, predicate: serde_json::Value| {
        let error = compare(&stated(folder.path(), kind, predicate), &pack, "owner/name").unwrap_err();
        assert_eq!(error.code(), Code::AttestationInvalid);
        assert!(error.message().contains("predicate"), "{error}");
    };
    // Each field of it changed, and each left out.
    for key in result.as_object().unwrap().keys() {
        let mut other = result.clone();
        other[key] = "another".into();
        refused(TEST_RESULT, other);
        let mut other = result.clone();
        other.as_object_mut().unwrap().remove(key);
        refused(TEST_RESULT, other);
    }
    for kind in
        ["https://in-toto.io/attestation/svr/v0.1", "https://in-toto.io/attestation/test-result/v0.2", ""]
    {
        refused(kind, result.clone());
    }
}

#[test]
fn only_a_gate_that_passed_is_a_passed_test_and_what_it_was_judged_by_is_its_configuration() {
    use GateStatus::{Failed, Incomplete, Missing, Passed, Skipped};
    let (_folder, pack) = verified();
    let mut manifest = pack.manifest().clone();
    let row = manifest.gates[0].clone();
    let mut of = |statuses: &[GateStatus]| {
        let rows = statuses.iter().map(|status| GateRow {
            status: *status,
            gate: status.as_str().into(),
            ..row.clone()
        });
        manifest.gates = rows.collect();
        test_result(&manifest)
    };
    assert_eq!(of(&[Passed])["result"], "PASSED");
    assert_eq!(of(&[])["result"], "FAILED", "nothing was shown");
    for other in [Failed, Skipped, Incomplete, Missing] {
        let result = of(&[Passed, other]);
        assert_eq!(result["result"], "FAILED", "{other:?}");
        assert_eq!(result["passedTests"], serde_json::json!(["passed"]));
        assert_eq!(result["failedTests"], serde_json::json!([other.as_str()]));
        assert_eq!(result["warnedTests"], serde_json::json!([]));
    }
    let configuration = of(&[Passed])["configuration"].to_string();
    for name in ["definition.yaml", "policy.yaml"] {
        assert!(configuration.contains(&format!("/{name}")), "{configuration}");
    }
    assert!(!configuration.contains("verdict"), "{configuration}");
}

#[test]
fn pack_writes_the_test_result_beside_the_pack_for_a_signer() {
    let folder = tempfile::tempdir().unwrap();
    passed_root(&folder.path().join("root"));
    // It packs what its own kernel programs measured, and no other.
    by_another_object(&folder.path().join("root"), assay_gates::capture::embedded().unwrap().bytes);
    let file = folder.path().join("test-result.json");
    let mut command = assert_cmd::Command::cargo_bin("assay-gates").unwrap();
    command.current_dir(folder.path()).args([
        "pack",
        "--root",
        "root",
        "--out",
        "pack",
        "--test-result",
        "test-result.json",
    ]);
    command.assert().success();
    let pack = pack::verify(&folder.path().join("pack")).0.unwrap();
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(written, test_result(pack.manifest()));
}

/// The tests of `sigstore-verify` come with its source: among them, bundles that GitHub's jobs made. Cargo has checked its
/// digest.
#[cfg(feature = "attestation")]
mod real {
    use super::verified;
    use assay_gates::error::Code;
    use assay_gates::files::Sha256Digest;
    use assay_gates::pack::attestation::{check_signature, compare_source};
    use assay_gates::pack::manifest::SourceFacts;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};
    use std::path::PathBuf;
    use std::sync::OnceLock;

    fn bundle(name: &str) -> String {
        static FOLDER: OnceLock<PathBuf> = OnceLock::new();
        std::fs::read_to_string(FOLDER.get_or_init(sources).join("test_data/bundles").join(name)).unwrap()
    }

    /// Of `sigstore-verify`.
    fn sources() -> PathBuf {
        let output = std::process::Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .output()
            .unwrap();
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let found = packages.iter().find(|one| one["name"] == "sigstore-verify").unwrap();
        PathBuf::from(found["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
    }

    /// Made on 1 September 2025 by actions/attest@v1, in a job of prefix-dev/sigstore-example, over one Conda package:
    /// <https://github.com/prefix-dev/sigstore-example/actions/runs/17377272645>.
    fn attested() -> String {
        bundle("conda-attestation.sigstore.json")
    }

    fn package() -> Sha256Digest {
        "sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f".parse().unwrap()
    }

    /// What a pack of that run would say of itself.
    fn source() -> SourceFacts {
        SourceFacts {
            repository: "prefix-dev/sigstore-example".into(),
            head_sha: "193b5bd7d3985809503963ae400594ea16df31cf".into(),
            r#ref: "refs/heads/main".into(),
            workflow_name: "Package and sign".into(),
            workflow_path: ".github/workflows/action.yaml".into(),
            workflow_sha: "193b5bd7d3985809503963ae400594ea16df31cf".into(),
            run_id: "17377272645".into(),
            run_attempt: "1".into(),
            run_url: "https://github.com/prefix-dev/sigstore-example/actions/runs/17377272645".into(),
        }
    }

    /// Why a bundle is refused.
    fn refusal(bundle: &str, digest: Sha256Digest) -> String {
        let error = check_signature(bundle, digest).unwrap_err();
        assert_eq!(error.code(), Code::AttestationInvalid);
        error.message().to_owned()
    }

    fn edited(edit: impl FnOnce(&mut Value)) -> String {
        let mut bundle: Value = serde_json::from_str(&attested()).unwrap();
        edit(&mut bundle);
        bundle.to_string()
    }

    /// One bit of what is in base64 at `pointer` the other way.
    fn flipped(pointer: &str) -> String {
        edited(|bundle| {
            let place = bundle.pointer_mut(pointer).unwrap();
            let mut bytes = STANDARD.decode(place.as_str().unwrap()).unwrap();
            bytes[20] ^= 1;
            *place = json!(STANDARD.encode(bytes));
        })
    }

    /// `to` for the first `from` in what is in base64 at `pointer`.
    fn replaced(pointer: &str, from: &str, to: &str) -> String {
        assert_eq!(from.len(), to.len(), "lengths inside stay right");
        edited(|bundle| {
            let place = bundle.pointer_mut(pointer).unwrap();
            let mut bytes = STANDARD.decode(place.as_str().unwrap()).unwrap();
            let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            *place = json!(STANDARD.encode(bytes));
        })
    }

    fn without(pointer: &str, field: &str) -> String {
        edited(|bundle| {
            let place = bundle.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            assert!(place.remove(field).is_some());
        })
    }

    #[test]
    fn a_bundle_that_github_attested_holds_to_the_end_and_says_whose_job_made_it() {
        let signed = check_signature(&attested(), package()).unwrap();
        compare_source(&signed, &source(), "prefix-dev/sigstore-example").unwrap();
        assert_eq!(signed.issuer, "https://token.actions.githubusercontent.com");
        assert_eq!(signed.repository, "https://github.com/prefix-dev/sigstore-example");
        assert_eq!(signed.runner_environment, "github-hosted");
        assert!(signed.trust.contains("public instance"), "{}", signed.trust);
        let statement: Value = serde_json::from_slice(&signed.statement).unwrap();
        assert_eq!(statement["subject"][0]["digest"]["sha256"], package().hex());
    }

    #[test]
    fn a_real_bundle_of_another_repository_workflow_commit_or_run_is_refused() {
        let signed = check_signature(&attested(), package()).unwrap();
        let refused = |source: &SourceFacts, repository: &str, what: &str| {
            let error = compare_source(&signed, source, repository).unwrap_err();
            assert_eq!(error.code(), Code::AttestationInvalid);
            assert!(error.message().contains(what), "{what}: {error}");
        };
        refused(&source(), "prefix-dev/sigstore", "https://github.com/prefix-dev/sigstore,");
        let other = SourceFacts { repository: "evil/fork".into(), ..source() };
        refused(&other, "prefix-dev/sigstore-example", "a pack of");
        let other = SourceFacts { workflow_path: ".github/workflows/gates.yml".into(), ..source() };
        refused(&other, "prefix-dev/sigstore-example", "the workflow");
        let other = SourceFacts { head_sha: "0".repeat(40), ..source() };
        refused(&other, "prefix-dev/sigstore-example", "the commit");
        let other = SourceFacts { run_attempt: "2".into(), ..source() };
        refused(&other, "prefix-dev/sigstore-example", "the run");
    }

    #[test]
    fn a_real_bundle_that_was_touched_anywhere_is_refused_for_what_was_touched() {
        let forged = format!("sha256:{}", "5".repeat(64)).parse().unwrap();
        let entry = "/verificationMaterial/tlogEntries/0";
        let at = |below: &str| format!("{entry}/{below}");
        let cases = [
            ("another file", attested(), forged, "does not match any subject"),
            (
                "the subject in the Statement",
                replaced("/dsseEnvelope/payload", &package().hex(), &"5".repeat(64)),
                forged,
                "DSSE signature",
            ),
            (
                "one letter of the Statement",
                replaced("/dsseEnvelope/payload", "targetChannel", "targetChannem"),
                package(),
                "DSSE signature",
            ),
            ("the signature", flipped("/dsseEnvelope/signatures/0/sig"), package(), "DSSE signature"),
            (
                "the identity in the certificate",
                replaced("/verificationMaterial/certificate/rawBytes", "prefix-dev", "prefix-dew"),
                package(),
                "certificate chain",
            ),
            ("the log entry", flipped(&at("canonicalizedBody")), package(), "SET verification failed"),
            (
                "the log's promise",
                flipped(&at("inclusionPromise/signedEntryTimestamp")),
                package(),
                "SET verification failed",
            ),
            (
                "the log's time",
                edited(|bundle| {
                    *bundle.pointer_mut(&at("integratedTime")).unwrap() = json!("1756728840");
                }),
                package(),
                "SET verification failed",
            ),
            (
                "the way to the log's root",
                flipped(&at("inclusionProof/hashes/3")),
                package(),
                "inclusion proof verification failed",
            ),
            ("the log's root", flipped(&at("inclusionProof/rootHash")), package(), "root hash"),
            (
                "the log's signature of its root",
                edited(|bundle| {
                    let place = bundle.pointer_mut(&at("inclusionProof/checkpoint/envelope")).unwrap();
                    *place = json!(place.as_str().unwrap().replace("wNI9ajBFAiBv", "wNI9ajBFAiBw"));
                }),
                package(),
                "heckpoint",
            ),
            ("no way to the log's root", without(entry, "inclusionProof"), package(), "inclusion proof"),
            ("no promise", without(entry, "inclusionPromise"), package(), "no verified timestamp"),
            ("no log entry", without("/verificationMaterial", "tlogEntries"), package(), "inclusion proof"),
        ];
        for (what, bundle, digest, reason) in cases {
            let found = refusal(&bundle, digest);
            assert!(found.contains(reason), "{what}: {found}");
        }
    }

    #[test]
    fn a_release_that_github_itself_signed_is_no_jobs_attestation() {
        let release = bundle("github-private-attestation.sigstore.json");
        let file = "sha256:827415b1df71c418ec467512c02a014b6ff3197f16ec723b8f624044ceff1dc0".parse().unwrap();
        // Certificate and timestamp lead to the root of GitHub's own instance, and still nobody's job made it.
        let found = refusal(&release, file);
        assert!(found.contains("issuer mismatch") && found.ends_with("got none"), "{found}");
        let mut touched: Value = serde_json::from_str(&release).unwrap();
        let place = touched
            .pointer_mut(
                "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp",
            )
            .unwrap();
        let mut bytes = STANDARD.decode(place.as_str().unwrap()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        *place = json!(STANDARD.encode(bytes));
        let found = refusal(&touched.to_string(), file);
        assert!(found.contains("imestamp") && !found.contains("issuer"), "{found}");
    }

    #[test]
    fn a_real_bundle_over_other_files_does_not_vouch_for_a_pack() {
        let (folder, _) = verified();
        let path = folder.path().join("bundle.json");
        std::fs::write(&path, attested()).unwrap();
        let mut verify = assert_cmd::Command::cargo_bin("assay-gates").unwrap();
        verify.arg("verify").arg(folder.path().join("pack")).arg("--attestation").arg(&path);
        let done = verify.args(["--repo", "prefix-dev/sigstore-example"]).assert().code(14);
        let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        assert!(said.contains("does not match any subject"), "{said}");
    }
}
