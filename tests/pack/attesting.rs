//! Attestations: what is compared once a signature holds, and, with the feature, a real bundle's signature.

use crate::fixture::{passed_root, provenance};
use assay_gates::error::Code;
use assay_gates::pack::attestation::{Signed, compare, verify_attestation};
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

#[cfg(not(feature = "attestation"))]
#[test]
fn a_build_without_the_feature_says_how_to_get_it() {
    let (folder, pack) = verified();
    let bundle = folder.path().join("bundle.json");
    std::fs::write(&bundle, "{}").unwrap();
    let error = verify_attestation(&pack, &bundle, "owner/name").unwrap_err();
    assert_eq!(error.code(), Code::AttestationUnsupported);
    assert!(error.advice().unwrap().contains("--features attestation"));
}

/// The crate's own sources hold bundles that real workflows made.
#[cfg(feature = "attestation")]
fn real_bundle(name: &str) -> String {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--features",
            "attestation",
            "--manifest-path",
        ])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|one| one["name"] == "sigstore-verify").unwrap();
    let manifest = std::path::Path::new(found["manifest_path"].as_str().unwrap());
    std::fs::read_to_string(manifest.parent().unwrap().join("test_data/bundles").join(name)).unwrap()
}

#[cfg(feature = "attestation")]
#[test]
fn a_real_bundle_holds_over_its_own_file_and_over_no_other() {
    use assay_gates::pack::attestation::check_signature;
    let bundle = real_bundle("github-private-attestation.sigstore.json");
    let covered = "sha256:827415b1df71c418ec467512c02a014b6ff3197f16ec723b8f624044ceff1dc0";
    let signed = check_signature(&bundle, covered.parse().unwrap()).unwrap();
    assert_eq!(signed.repository, "https://github.com/jdx/communique");
    assert_eq!(signed.issuer, "https://token.actions.githubusercontent.com");
    let other = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    assert_eq!(check_signature(&bundle, other).unwrap_err().code(), Code::AttestationInvalid);
    let forged = bundle.replacen("\"payload\":\"", "\"payload\":\"e30", 1).replacen(
        "\"payload\": \"",
        "\"payload\": \"e30",
        1,
    );
    assert_ne!(forged, bundle);
    assert_eq!(
        check_signature(&forged, covered.parse().unwrap()).unwrap_err().code(),
        Code::AttestationInvalid
    );
    let (folder, pack) = verified();
    let path = folder.path().join("bundle.json");
    std::fs::write(&path, &bundle).unwrap();
    let error = verify_attestation(&pack, &path, "owner/name").unwrap_err();
    assert_eq!(error.code(), Code::AttestationInvalid, "a bundle over other files");
}
