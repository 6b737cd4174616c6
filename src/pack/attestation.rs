//! A Sigstore bundle over a pack, checked offline: signature, certificate, log entry, and whose workflow it was.
//!
//! The roots of trust come with the crate `sigstore-verify` and age with it. The cryptography needs the cargo feature
//! `attestation`, which is on by default; what is compared afterwards is plain data.

#[cfg(feature = "attestation")]
mod ring;

use super::manifest::{Manifest, SourceFacts};
use super::statement::{Named, PREDICATE, TEST_RESULT, TYPE, subjects, test_result};
use super::verify::VerifiedPack;
use crate::error::{Code, Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Issuer of the identity tokens of GitHub's jobs.
const ISSUER: &str = "https://token.actions.githubusercontent.com";

/// What a bundle was found to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// In words, with the values that were compared.
    pub established: Vec<String>,
    /// In words.
    pub not_established: Vec<String>,
}

/// What a bundle says, once its signature holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The Statement.
    pub statement: Vec<u8>,
    /// Who issued the identity.
    pub issuer: String,
    /// The workflow that signed, as the certificate names it.
    pub identity: String,
    /// Repository of the source.
    pub repository: String,
    /// Commit of the source.
    pub commit: String,
    /// Ref of the source.
    pub r#ref: String,
    /// `self-hosted`, `github-hosted`.
    pub runner_environment: String,
    /// Page of the run, with its attempt.
    pub invocation: String,
    /// Which trust root it leads to, and what that root gives.
    pub trust: String,
}

/// Checks `bundle` against a pack: it must cover the manifest and exactly its subjects, signed by a workflow of
/// `repository` (`owner/name`) at the commit and in the run that the manifest names.
///
/// # Errors
/// `AttestationInvalid` with what does not hold; `AttestationUnsupported` in a build without the feature; `Io`.
pub fn verify_attestation(pack: &VerifiedPack, bundle: &Path, repository: &str) -> Result<Attested> {
    let text = std::fs::read_to_string(bundle).map_err(|error| Error::io("cannot read", bundle, error))?;
    let signed = check_signature(&text, pack.manifest_sha256())?;
    compare(&signed, pack, repository)
}

/// Without the cryptography nothing can be said.
#[cfg(not(feature = "attestation"))]
fn check_signature(_bundle: &str, _manifest: crate::files::Sha256Digest) -> Result<Signed> {
    Err(Error::new(
        Code::AttestationUnsupported,
        "expected a build with the feature `attestation`, found one without",
    )
    .hint("cargo install --path . --features attestation   (or: gh attestation verify)"))
}

/// Verifies a bundle over `digest` and reads what it says.
///
/// # Errors
/// `AttestationInvalid`: what neither of the two trust roots accepts.
#[cfg(feature = "attestation")]
pub fn check_signature(bundle: &str, digest: crate::files::Sha256Digest) -> Result<Signed> {
    use sigstore_verify::trust_root::{
        SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT, TrustedRoot,
    };
    use sigstore_verify::types::{Bundle, Sha256Hash, bundle::SignatureContent};
    use sigstore_verify::{VerificationPolicy, Verifier};

    ring::install();
    let invalid = |what: String| Error::new(Code::AttestationInvalid, what);
    let parsed =
        Bundle::from_json(bundle).map_err(|error| invalid(format!("expected a Sigstore bundle: {error}")))?;
    let hash = Sha256Hash::from_hex(&digest.hex()).map_err(|error| invalid(error.to_string()))?;
    let strict = VerificationPolicy::any_identity().require_issuer(ISSUER);
    // GitHub's own instance, for private repositories, has a timestamp authority but neither log nor SCTs. Its root
    // signs nothing of the public instance, so this leniency can't be used there.
    let private = strict.clone().skip_tlog_unsafe().skip_sct();
    let instances = [
        (
            SIGSTORE_PRODUCTION_TRUSTED_ROOT,
            strict,
            "Sigstore's public instance: certificate, SCT and log entry hold",
        ),
        (
            SIGSTORE_GITHUB_TRUSTED_ROOT,
            private,
            "GitHub's own instance: certificate and timestamp hold; it has no public log",
        ),
    ];
    let mut refused = Vec::new();
    for (root, policy, trust) in instances {
        let root = TrustedRoot::from_json(root).map_err(|error| invalid(error.to_string()))?;
        let verifier = Verifier::new(&root).map_err(|error| invalid(error.to_string()))?;
        let result = match verifier.verify(hash, &parsed, &policy) {
            Ok(result) if result.certificate_verified() => result,
            Ok(_) => {
                refused.push("a certificate that was not verified".to_owned());
                continue;
            }
            Err(error) => {
                refused.push(error.to_string());
                continue;
            }
        };
        let SignatureContent::DsseEnvelope(envelope) = &parsed.content else {
            return Err(invalid("expected a signed Statement, found a signature of bytes".to_owned()));
        };
        let claims = result.certificate().map(|certificate| certificate.ci_claims.clone());
        let claim = |text: Option<String>| text.unwrap_or_default();
        let (repository, commit, r#ref, runner_environment, invocation) = match claims {
            Some(claims) => (
                claim(claims.source_repository_uri),
                claim(claims.source_repository_digest),
                claim(claims.source_repository_ref),
                claim(claims.runner_environment),
                claim(claims.run_invocation_uri),
            ),
            None => Default::default(),
        };
        return Ok(Signed {
            statement: envelope.payload.as_bytes().to_vec(),
            issuer: result.issuer().unwrap_or_default().to_owned(),
            identity: result.identity().map(|identity| identity.as_str().to_owned()).unwrap_or_default(),
            repository,
            commit,
            r#ref,
            runner_environment,
            invocation,
            trust: trust.to_owned(),
        });
    }
    Err(invalid(format!(
        "expected a bundle that a known trust root accepts, found {}",
        refused.join("; and ")
    ))
    .hint("the roots are those of this build: a newer build may know newer ones"))
}

/// Holds what was signed against the pack and the repository that was expected.
///
/// # Errors
/// `AttestationInvalid`: the first thing that differs.
pub fn compare(signed: &Signed, pack: &VerifiedPack, repository: &str) -> Result<Attested> {
    let manifest = pack.manifest();
    let source = &manifest.source;
    let named = subjects(manifest, pack.manifest_sha256());
    if let Err((expected, found)) = same_subjects(&signed.statement, &named) {
        return Err(differs("the Statement's subjects to be", &expected, &found));
    }
    let predicate = same_predicate(&signed.statement, manifest)
        .map_err(|(expected, found)| differs("the Statement's predicate to be", &expected, &found))?;
    compare_source(signed, source, repository)?;
    let mut not_established = vec![
        "that the machine was the one that its operators believe: the certificate names the kind of runner only".to_owned(),
    ];
    if signed.runner_environment != "github-hosted" {
        not_established.push(format!(
            "that nobody else could act on the runner: it is {}, and whoever owns it could have made this pack",
            if signed.runner_environment.is_empty() { "of unknown kind" } else { &signed.runner_environment }
        ));
    }
    Ok(Attested {
        established: vec![
            format!("the manifest and all {} subjects are signed, and no others", named.len() - 1),
            predicate,
            signed.trust.clone(),
            format!(
                "signed by {} of {} at {}, in {}",
                signed.identity,
                repository_page(source, repository),
                source.head_sha,
                invocation(source)
            ),
        ],
        not_established,
    })
}

/// Holds who signed against `source`, the run that is said to have done so, and against `repository`.
///
/// # Errors
/// `AttestationInvalid`: the first thing that differs.
pub fn compare_source(signed: &Signed, source: &SourceFacts, repository: &str) -> Result<()> {
    let uri = repository_page(source, repository);
    if !signed.repository.eq_ignore_ascii_case(&uri) {
        return Err(differs("the repository", &uri, &signed.repository));
    }
    if !source.repository.eq_ignore_ascii_case(repository) {
        return Err(differs("a pack of", repository, &source.repository));
    }
    let workflow = format!("{}/{}@", uri.to_ascii_lowercase(), source.workflow_path.to_ascii_lowercase());
    if !signed.identity.to_ascii_lowercase().starts_with(&workflow) {
        return Err(differs("the workflow", &workflow, &signed.identity));
    }
    for (what, expected, found) in [
        ("the issuer", ISSUER, signed.issuer.as_str()),
        ("the commit", &source.head_sha, &signed.commit),
        ("the ref", &source.r#ref, &signed.r#ref),
        ("the run", &invocation(source), &signed.invocation),
    ] {
        if expected != found {
            return Err(differs(what, expected, found));
        }
    }
    Ok(())
}

/// Page of `repository` on the server of the run.
fn repository_page(source: &SourceFacts, repository: &str) -> String {
    let server = source.run_url.split_once(&format!("/{}/actions/", source.repository));
    let server = server.map_or("https://github.com", |(server, _)| server);
    format!("{server}/{repository}")
}

/// Page of the run's attempt.
fn invocation(source: &SourceFacts) -> String {
    format!("{}/attempts/{}", source.run_url, source.run_attempt)
}

fn differs(what: &str, expected: &str, found: &str) -> Error {
    Error::new(Code::AttestationInvalid, format!("expected {what} {expected}, found {found}"))
}

/// What the predicate states, in words. Provenance is compared with the certificate ([`compare_source`]); a test result
/// must say of each gate what the manifest says; a predicate of another type states what nobody here can check.
fn same_predicate(statement: &[u8], manifest: &Manifest) -> Result<String, (String, String)> {
    let value = crate::evidence::strict::value(statement).map_err(|error| ("JSON".to_owned(), error))?;
    match value.get("predicateType").and_then(|kind| kind.as_str()).unwrap_or("nothing") {
        PREDICATE => Ok("what is signed is its provenance".to_owned()),
        TEST_RESULT => {
            let expected = test_result(manifest);
            let found = value.get("predicate").unwrap_or(&serde_json::Value::Null);
            if *found != expected {
                return Err((expected.to_string(), found.to_string()));
            }
            Ok("what is signed is how each gate ended".to_owned())
        }
        other => Err((format!("{PREDICATE} or {TEST_RESULT}"), other.to_owned())),
    }
}

/// Exactly the same names with exactly the same digests.
fn same_subjects(statement: &[u8], named: &[Named]) -> Result<(), (String, String)> {
    let value = crate::evidence::strict::value(statement).map_err(|error| ("JSON".to_owned(), error))?;
    let kind = value.get("_type").and_then(|kind| kind.as_str()).unwrap_or("nothing");
    if kind != TYPE {
        return Err((TYPE.to_owned(), kind.to_owned()));
    }
    let found: BTreeSet<(String, String)> = value
        .get("subject")
        .and_then(|list| list.as_array())
        .into_iter()
        .flatten()
        .map(|one| {
            let text = |pointer: &str| {
                one.pointer(pointer).and_then(|text| text.as_str()).unwrap_or_default().to_owned()
            };
            (text("/name"), text("/digest/sha256"))
        })
        .collect();
    let expected: BTreeSet<(String, String)> =
        named.iter().map(|one| (one.name.clone(), one.sha256.hex())).collect();
    let told = |one: Option<&(String, String)>| {
        one.map_or_else(|| "no such subject".to_owned(), |(name, digest)| format!("{name} {digest}"))
    };
    let first = expected.symmetric_difference(&found).next();
    match first {
        None => Ok(()),
        Some(one) if expected.contains(one) => {
            Err((told(Some(one)), told(found.iter().find(|(name, _)| *name == one.0))))
        }
        Some(one) => Err((told(expected.iter().find(|(name, _)| *name == one.0)), told(Some(one)))),
    }
}

#[cfg(all(test, not(feature = "attestation")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_feature_says_how_to_get_it() {
        let manifest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let error = check_signature("{}", manifest).unwrap_err();
        assert_eq!(error.code(), Code::AttestationUnsupported);
        assert!(error.advice().unwrap().contains("--features attestation"));
    }
}
