//! A Sigstore bundle over a pack, checked offline: signature, certificate, log entry, and whose workflow it was.
//!
//! The roots of trust come with the crate `sigstore-trust-root` and age with it. Needs the cargo feature `attestation`.

use super::verify::VerifiedPack;
use crate::error::{Code, Error, Result};
use std::path::Path;

/// What a bundle was found to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// In words, with the values that were compared.
    pub established: Vec<String>,
    /// In words.
    pub not_established: Vec<String>,
}

/// Checks `bundle` against a pack: it must cover the manifest and exactly its subjects, signed by a workflow of
/// `repository` (`owner/name`) at the commit that the manifest names.
///
/// # Errors
/// `AttestationInvalid` with what does not hold; `AttestationUnsupported` in a build without the feature; `Io`.
#[cfg(not(feature = "attestation"))]
pub fn verify_attestation(_pack: &VerifiedPack, _bundle: &Path, _repository: &str) -> Result<Attested> {
    Err(Error::new(Code::AttestationUnsupported, "expected a build with the feature `attestation`, found one without")
        .hint("cargo install --path . --features attestation   (needs a C compiler and cmake), or: gh attestation verify"))
}
