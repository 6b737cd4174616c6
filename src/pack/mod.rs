//! Verdicts to proof pack: what outlives a run, and how anyone checks it.
//!
//! A pack is a folder (or its zip): `manifest.json`, `subject-checksums.txt`, `statement.intoto.json` and `payload/`.
//! [`build()`] makes one of a proof root, [`merge()`] one of the packs of a fleet's shards.

pub mod attestation;
mod build;
pub mod claims;
mod finding;
pub mod git;
pub mod incident;
pub mod manifest;
mod merge;
mod names;
mod provenance;
mod root;
mod source;
pub mod statement;
pub mod verify;
mod zip_reader;
mod zip_writer;

pub use attestation::{Attested, verify_attestation};
pub use build::{ProofPack, build, build_below, zip_folder};
pub use finding::Finding;
pub use manifest::Manifest;
pub use merge::merge;
pub use provenance::{BuiltObject, LOCAL, Provenance};
pub use source::Source;
pub use verify::{UnverifiedPack, Verification, VerifiedPack, verify};
