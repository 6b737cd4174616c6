//! Verdicts to proof pack: manifest, checksums, zip; and verification.
