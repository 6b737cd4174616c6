//! The archive's bytes, and what is refused of them.

use crate::fixtures::{RUN, archive};
use assay_evidence::runner_archive::verify_runner_archive;
use assay_gates::evidence::Archive;
use assay_gates::evidence::archive::member;
use assay_gates::files::sha256;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use std::io::{Read, Write};

/// Digest of the golden archive's tar: fixed input, fixed bytes, whatever compresses them.
const GOLDEN_TAR: &str = "sha256:4951a3d80ac94c05bc12eda056b6cbf7ade2ffd8a1344f03b7a42d1a677cb881";

fn untar(archive: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(archive).read_to_end(&mut tar).unwrap();
    tar
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip: GzEncoder<Vec<u8>> =
        GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// Whether the published verifier takes these bytes as the run's archive.
fn accepted_elsewhere(bytes: &[u8]) -> bool {
    verify_runner_archive(bytes, &sha256(bytes).hex(), RUN, Default::default()).is_ok()
}

#[test]
fn the_same_content_gives_the_golden_bytes() {
    let bytes = archive();
    assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 0xff]);
    let tar = untar(&bytes);
    assert_eq!(sha256(&tar).to_string(), GOLDEN_TAR);
    assert_eq!(gzip(&tar), bytes);
    assert!(tar.ends_with(&[0; 1024]));
    let header = &tar[..512];
    assert_eq!(&header[..14], b"manifest.json\0");
    assert_eq!(&header[100..108], b"0000644\0");
    assert_eq!(&header[136..148], b"00000000000\0");
    assert_eq!(header[156], b'0');
    assert_eq!(&header[257..265], b"ustar  \0");
    assert_eq!(&header[265..271], b"assay\0");
    assert_eq!(&header[297..303], b"assay\0");
    assert!(header[329..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_published_verifier_takes_it() {
    let bytes = archive();
    assert!(accepted_elsewhere(&bytes));
    assert!(
        verify_runner_archive(bytes.as_slice(), &sha256(&bytes).hex(), "run_other", Default::default())
            .is_err()
    );
}

#[test]
fn members_stand_in_the_contracts_order_without_newlines_after_json() {
    let bytes = archive();
    let mut tar = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
    let paths: Vec<String> =
        tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, member::ALL);
    let archive = Archive::from_bytes(&bytes).unwrap();
    for path in member::ALL {
        let ends = archive.member(path).unwrap().ends_with(b"\n");
        assert_eq!(ends, path.ends_with(".ndjson"), "{path}");
    }
}
