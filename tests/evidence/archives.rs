//! The archive's bytes, and what is refused of them.

use crate::fixtures::{RUN, archive};
use assay_evidence::runner_archive::verify_runner_archive;
use assay_gates::evidence::Archive;
use assay_gates::evidence::archive::{examine, member};
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

/// An archive to spoil: members in order, headers, and what stands around them.
struct Parts {
    members: Vec<(String, Vec<u8>)>,
    header: Option<(usize, fn(&mut [u8]))>,
    keep_checksum: bool,
    after: Vec<u8>,
    raw_tail: Vec<u8>,
}

impl Parts {
    fn whole() -> Self {
        let archive = Archive::from_bytes(&archive()).unwrap();
        Self {
            members: member::ALL
                .iter()
                .map(|path| ((*path).to_owned(), archive.member(path).unwrap().to_vec()))
                .collect(),
            header: None,
            keep_checksum: false,
            after: vec![0; 1024],
            raw_tail: Vec::new(),
        }
    }

    fn get(&mut self, path: &str) -> &mut Vec<u8> {
        &mut self.members.iter_mut().find(|member| member.0 == path).unwrap().1
    }

    fn replace(&mut self, path: &str, from: &str, to: &str) {
        let member = self.get(path);
        let text = String::from_utf8(member.clone()).unwrap();
        assert!(text.contains(from), "{path} lacks {from}: {text}");
        *member = text.replacen(from, to, 1).into_bytes();
    }

    /// As [`Self::replace`], and the manifest agrees: only what the member says is wrong.
    fn forge(&mut self, path: &str, from: &str, to: &str) {
        self.replace(path, from, to);
        self.seal(path);
    }

    fn seal(&mut self, path: &str) {
        let bytes = self.get(path).clone();
        let mut manifest: serde_json::Value = serde_json::from_slice(self.get(member::MANIFEST)).unwrap();
        manifest["files"][path]["sha256"] = sha256(&bytes).to_string().into();
        manifest["files"][path]["bytes"] = bytes.len().into();
        *self.get(member::MANIFEST) = manifest.to_string().into_bytes();
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tar = Vec::new();
        for (index, (path, bytes)) in self.members.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_cksum();
            if let Some((spoilt, spoil)) = self.header
                && spoilt == index
            {
                spoil(header.as_mut_bytes());
                if !self.keep_checksum {
                    header.set_cksum();
                }
            }
            tar.extend_from_slice(header.as_bytes());
            tar.extend_from_slice(bytes);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.extend_from_slice(&self.after);
        let mut archive = gzip(&tar);
        archive.extend_from_slice(&self.raw_tail);
        archive
    }
}

type Spoil = fn(&mut Parts);

/// Spoilt archives: the name, the spoiling, what the refusal must say, and whether the published verifier, which reads
/// the layers as bytes only and asks no order behind the manifest, refuses it as well.
const SPOILT: &[(&str, Spoil, &str, bool)] = &[
    (
        "a member missing",
        |p| drop(p.members.pop()),
        "observation-health.json: expected all eight members",
        true,
    ),
    (
        "a member twice",
        |p| {
            let last = p.members[7].clone();
            p.members.push(last);
        },
        "each member once",
        true,
    ),
    (
        "a ninth member",
        |p| p.members.push(("effects.ndjson".to_owned(), vec![])),
        "one of the eight member paths",
        true,
    ),
    ("manifest not first", |p| p.members.swap(0, 1), "member 1 to be manifest.json", true),
    ("another order", |p| p.members.swap(4, 5), "member 5 to be layers/kernel.ndjson", false),
    ("a path with ./", |p| p.members[1].0.insert_str(0, "./"), "one of the eight member paths", true),
    ("a climbing path", |p| p.members[1].0 = "../x".to_owned(), "one of the eight member paths", true),
    ("a link", |p| p.header = Some((1, |h| h[156] = b'2')), "a plain file", true),
    ("a folder", |p| p.header = Some((1, |h| h[156] = b'5')), "a plain file", true),
    ("a pax header", |p| p.header = Some((1, |h| h[156] = b'x')), "a plain file", true),
    ("a link name", |p| p.header = Some((1, |h| h[157] = b'a')), "no link name", true),
    ("a ustar prefix", |p| p.header = Some((1, |h| h[345] = b'a')), "zeros from byte 345", true),
    ("GNU extras", |p| p.header = Some((1, |h| h[400] = 1)), "zeros from byte 345", true),
    ("a binary size", |p| p.header = Some((1, |h| h[124] = 0x80)), "eleven octal digits", true),
    ("a size without end", |p| p.header = Some((1, |h| h[135] = b'7')), "eleven octal digits", true),
    (
        "a checksum of another header",
        |p| {
            p.header = Some((1, |h| h[136] = b'1'));
            p.keep_checksum = true;
        },
        "header checksum",
        true,
    ),
    ("bytes behind the path", |p| p.header = Some((1, |h| h[90] = b'a')), "a path ended by zeros", false),
    ("one zero block", |p| p.after = vec![0; 512], "two zero blocks", true),
    ("no zero block", |p| p.after = vec![], "two zero blocks", true),
    ("half a block", |p| p.after = vec![0; 1300], "whole blocks", true),
    (
        "bytes after the end",
        |p| {
            p.after = vec![0; 2048];
            p.after[1500] = 1;
        },
        "only zeros after",
        true,
    ),
    ("a byte after the gzip stream", |p| p.raw_tail = vec![0], "nothing after the gzip stream", true),
    ("a second gzip stream", |p| p.raw_tail = gzip(b""), "nothing after the gzip stream", true),
    (
        "another manifest schema",
        |p| p.replace(member::MANIFEST, "manifest.v0", "manifest.v1"),
        "schema assay.runner.archive_manifest.v0",
        true,
    ),
    (
        "a run id with a slash",
        |p| p.replace(member::MANIFEST, "run_fixture", "run/x"),
        "letters, digits",
        true,
    ),
    (
        "a digest of another content",
        |p| p.replace(member::SURFACE, "input.txt", "inpux.txt"),
        "the manifest's digest",
        true,
    ),
    (
        "a length of another content",
        |p| p.get(member::HEALTH).push(b' '),
        "bytes, as the manifest says",
        true,
    ),
    (
        "a manifest with one key less",
        |p| p.replace(member::MANIFEST, "\"layers/sdk.ndjson\":", "\"layers/sdx.ndjson\":"),
        "exactly the seven other members",
        true,
    ),
    (
        "a manifest path that is not its key",
        |p| p.replace(member::MANIFEST, "\"path\":\"events.ndjson\"", "\"path\":\"event.ndjson\""),
        "path of events.ndjson",
        true,
    ),
    (
        "an upper-case digest",
        |p| p.replace(member::MANIFEST, "\"sha256\":\"sha256:", "\"sha256\":\"SHA256:"),
        "JSON of its contract",
        true,
    ),
    (
        "a key twice",
        |p| p.forge(member::SURFACE, "{\"schema\"", "{\"run_id\":\"x\",\"schema\""),
        "stands twice",
        true,
    ),
    (
        "deep nesting",
        |p| {
            let deep = format!("{{\"notes\":{}{}}}", "[".repeat(70), "]".repeat(70));
            *p.get(member::HEALTH) = deep.into_bytes();
            p.seal(member::HEALTH);
        },
        "deeper than 64",
        true,
    ),
    (
        "another surface schema",
        |p| p.forge(member::SURFACE, "surface.v0", "surface.v1"),
        "the surface that the layers give",
        true,
    ),
    (
        "another run's surface",
        |p| p.forge(member::SURFACE, "run_fixture", "run_other"),
        "run_id run_fixture",
        true,
    ),
    (
        "another run's health",
        |p| p.forge(member::HEALTH, "run_fixture", "run_other"),
        "run_id run_fixture",
        true,
    ),
    (
        "another run's decision",
        |p| p.forge(member::POLICY, "\"run_id\":\"run_fixture\"", "\"run_id\":\"run_other\""),
        "run_id run_fixture",
        false,
    ),
    (
        "drops in a complete layer",
        |p| p.forge(member::HEALTH, "\"ringbuf_drops\":0", "\"ringbuf_drops\":1"),
        "partial_ringbuf_drops with 1 drops",
        true,
    ),
    (
        "an unknown layer state",
        |p| p.forge(member::HEALTH, "\"complete\"", "\"perfect\""),
        "kernel_layer one of",
        true,
    ),
    (
        "a failed cgroup",
        |p| p.forge(member::HEALTH, "\"cgroup_correlation\":\"clean\"", "\"cgroup_correlation\":\"failed\""),
        "cgroup_correlation one of",
        true,
    ),
    (
        "a surface with a path less",
        |p| p.forge(member::SURFACE, ",\"/run/assay-gates/work/output.txt\"", ""),
        "the surface that the layers give",
        false,
    ),
    (
        "a surface with a path more",
        |p| p.forge(member::SURFACE, "\"process_execs\":[", "\"process_execs\":[\"/bin/sh\","),
        "the surface that the layers give",
        false,
    ),
    (
        "a softened decision",
        |p| p.forge(member::POLICY, "allow", "deny"),
        "the surface that the layers give",
        false,
    ),
    (
        "a correlation that hides a doubt",
        |p| p.forge(member::SDK, "tc_1", "tc_2"),
        "the correlation that the layers give",
        false,
    ),
    (
        "a count of other kernel events",
        |p| p.forge(member::CORRELATION, "\"kernel_event_count\":5", "\"kernel_event_count\":4"),
        "the correlation that the layers give",
        false,
    ),
    (
        "a note of other kernel events",
        |p| p.forge(member::HEALTH, "monitor_events=5", "monitor_events=6"),
        "monitor_events of the layers",
        false,
    ),
    (
        "a note of other SDK events",
        |p| p.forge(member::HEALTH, "sdk_tool_calls=1", "sdk_tool_calls=2"),
        "sdk_tool_calls of the layers",
        false,
    ),
    (
        "a kernel line less",
        |p| {
            let lines = p.get(member::KERNEL);
            let end = lines.iter().position(|b| *b == b'\n').unwrap();
            lines.drain(..=end);
            p.seal(member::KERNEL);
        },
        "seq 0",
        false,
    ),
    (
        "a kernel line without end",
        |p| {
            p.get(member::KERNEL).pop();
            p.seal(member::KERNEL);
        },
        "a newline after the last line",
        false,
    ),
    (
        "a blank kernel line",
        |p| {
            p.get(member::KERNEL).push(b'\n');
            p.seal(member::KERNEL);
        },
        "no blank lines",
        false,
    ),
    (
        "a status that its result refutes",
        |p| p.forge(member::KERNEL, "\"status\":\"success\"", "\"status\":\"error\""),
        "status success",
        false,
    ),
    (
        "a kernel record of an unknown kind",
        |p| p.forge(member::KERNEL, "\"kind\":\"exec\"", "\"kind\":\"fork\""),
        "a known kind",
        false,
    ),
    (
        "a kernel key that is unknown",
        |p| p.forge(member::KERNEL, "\"pid\":100", "\"pid\":100,\"uid\":0"),
        "a line of its contract",
        false,
    ),
    (
        "a policy layer that is absent but there",
        |p| p.forge(member::HEALTH, "\"policy_layer\":\"present\"", "\"policy_layer\":\"absent\""),
        "lines exactly when policy_layer",
        false,
    ),
    (
        "an event of the run less",
        |p| {
            let lines = p.get(member::EVENTS);
            let end = lines.iter().position(|b| *b == b'\n').unwrap();
            lines.drain(..=end);
            p.seal(member::EVENTS);
        },
        "two lines",
        false,
    ),
    (
        "a success with another exit code",
        |p| p.forge(member::EVENTS, "\"exit_code\":0", "\"exit_code\":1"),
        "success exactly with exit_code 0",
        false,
    ),
    (
        "an env key twice",
        |p| p.forge(member::EVENTS, "\"env_keys\":[", "\"env_keys\":[\"ASSAY_RUNNER_RUN_ID\","),
        "assay.runner.event.v0",
        false,
    ),
    (
        "a secret after redaction",
        |p| {
            let key = ["sk_live_", "abcdefgh12345678"].concat();
            p.forge(member::EVENTS, "agent.mjs", &key);
        },
        "no text like a secret",
        false,
    ),
];

#[test]
fn parts_put_together_again_verify() {
    let bytes = Parts::whole().bytes();
    assert!(Archive::from_bytes(&bytes).is_ok());
    assert!(accepted_elsewhere(&bytes));
}

#[test]
fn every_spoilt_archive_is_refused_with_its_own_reason() {
    let mut surprises = Vec::new();
    for (name, spoil, says, refused_elsewhere) in SPOILT {
        let mut parts = Parts::whole();
        spoil(&mut parts);
        let bytes = parts.bytes();
        let error = Archive::from_bytes(&bytes).expect_err(name);
        assert_eq!(error.exit().code(), 14, "{name}");
        assert!(error.to_string().contains(says), "{name}: {error}");
        if accepted_elsewhere(&bytes) == *refused_elsewhere {
            surprises.push(*name);
        }
    }
    assert!(surprises.is_empty(), "the published verifier decides otherwise on: {surprises:?}");
}

#[test]
fn every_cut_and_every_flipped_byte_of_an_archive_is_refused_and_none_panics() {
    let bytes = archive();
    for end in (0..bytes.len()).step_by(37) {
        assert!(Archive::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
    // The gzip header's time, flags and system decide nothing; every byte after it does.
    for place in (10..bytes.len()).step_by(13) {
        let mut spoilt = bytes.clone();
        spoilt[place] ^= 0x55;
        assert!(Archive::from_bytes(&spoilt).is_err(), "byte {place}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    let mut parts = Parts::whole();
    *parts.get(member::SURFACE) = vec![b' '; 11 * 1024 * 1024];
    let error = Archive::from_bytes(&parts.bytes()).unwrap_err();
    assert!(
        error.to_string().contains("capability-surface.json: expected at most 10485760 bytes"),
        "{error}"
    );
}

#[test]
fn all_that_is_wrong_is_collected() {
    let mut parts = Parts::whole();
    parts.forge(member::HEALTH, "monitor_events=5", "monitor_events=6");
    parts.forge(member::SURFACE, "/run/assay-gates/work/output.txt", "/run/assay-gates/work/other.txt");
    parts.forge(member::KERNEL, "\"status\":\"success\"", "\"status\":\"error\"");
    let findings = examine(&parts.bytes()).unwrap_err();
    let places: Vec<&str> = findings.iter().map(|finding| finding.place.as_str()).collect();
    assert_eq!(places, ["layers/kernel.ndjson:2", "capability-surface.json", "observation-health.json"]);
}

#[test]
fn archives_of_other_producers_verify() {
    // Kernel lines of v1, an older note: written by others, read by us.
    let mut parts = Parts::whole();
    let layer = String::from_utf8(parts.get(member::KERNEL).clone()).unwrap();
    *parts.get(member::KERNEL) = layer.replace("kernel_event.v0", "kernel_event.v1").into_bytes();
    parts.seal(member::KERNEL);
    let bytes = parts.bytes();
    assert!(accepted_elsewhere(&bytes));
    Archive::from_bytes(&bytes).unwrap();
    // Labels of one layer are of one table.
    let mut mixed = Parts::whole();
    mixed.forge(member::KERNEL, "kernel_event.v0", "kernel_event.v1");
    let findings = examine(&mixed.bytes()).unwrap_err();
    assert!(findings[0].to_string().contains("the layer's schema"), "{findings:?}");
    let mut parts = Parts::whole();
    parts.forge(member::HEALTH, "s4_policy_capture: decision_events=1", "s4_policy_capture: policy_events=1");
    parts.forge(member::HEALTH, "\"platform\"", "\"colour\":\"red\",\"platform\"");
    Archive::from_bytes(&parts.bytes()).unwrap();
}
