//! Zips that two readers would see differently, or that are made to do harm.

use assay_gates::pack::Source;
use std::io::{Read, Write};

/// One stored entry, with every field that a hostile writer could set.
#[derive(Clone)]
struct Entry {
    name: String,
    local_name: Option<String>,
    data: Vec<u8>,
    method: u16,
    flags: u16,
    crc: Option<u32>,
    /// Declared length, when it is not the data's.
    bytes: Option<u32>,
    attributes: u32,
    extra: Vec<u8>,
    /// Where the directory says that it begins.
    header: Option<u32>,
}

fn entry(name: &str, data: &[u8]) -> Entry {
    Entry {
        name: name.to_owned(),
        local_name: None,
        data: data.to_vec(),
        method: 0,
        flags: 0,
        crc: None,
        bytes: None,
        attributes: 0o100_644 << 16,
        extra: Vec::new(),
        header: None,
    }
}

/// Puts entries, directory and end record together. `gap` bytes stand before the first entry, `tail` after the end.
fn zip(entries: &[Entry], gap: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut out = gap.to_vec();
    let mut directory = Vec::new();
    for one in entries {
        let header = out.len() as u32;
        let crc = one.crc.unwrap_or_else(|| {
            let mut crc = flate2::Crc::new();
            crc.update(&one.data);
            crc.sum()
        });
        let compressed = one.data.len() as u32;
        let bytes = one.bytes.unwrap_or(compressed);
        let mut common = Vec::new();
        for field in [20, one.flags, one.method, 0, 33] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc, compressed, bytes] {
            common.extend(field.to_le_bytes());
        }
        let local_name = one.local_name.as_ref().unwrap_or(&one.name);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend((local_name.len() as u16).to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        out.extend(local_name.as_bytes());
        out.extend(&one.data);
        directory.extend(b"PK\x01\x02");
        directory.extend(0x0314_u16.to_le_bytes());
        directory.extend(&common);
        directory.extend((one.name.len() as u16).to_le_bytes());
        directory.extend((one.extra.len() as u16).to_le_bytes());
        directory.extend([0; 6]);
        directory.extend(one.attributes.to_le_bytes());
        directory.extend(one.header.unwrap_or(header).to_le_bytes());
        directory.extend(one.name.as_bytes());
        directory.extend(&one.extra);
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06");
    out.extend([0; 4]);
    for _ in 0..2 {
        out.extend((entries.len() as u16).to_le_bytes());
    }
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out.extend(tail);
    out
}

fn check_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack.zip");
    std::fs::write(&path, bytes).unwrap();
    match Source::open(&path) {
        Err(finding) => finding.check.to_owned(),
        Ok(source) => {
            // What the structure does not show, reading must.
            for name in source.members().keys() {
                if let Err(finding) = source.digest(name) {
                    return finding.check.to_owned();
                }
            }
            "none".to_owned()
        }
    }
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_plain_zip_is_read_whoever_wrote_it() {
    assert_eq!(check_of(&zip(&[entry("a", b"1"), entry("b/c", b"2")], b"", b"")), "none");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/a.txt"), "a".repeat(10_000)).unwrap();
    std::fs::write(folder.path().join("b.txt"), "b").unwrap();
    // Info-ZIP writes folders, extra fields and, to a pipe, data descriptors.
    for streamed in [false, true] {
        let file = folder.path().join("x.zip");
        let _none_before = std::fs::remove_file(&file);
        let mut command = std::process::Command::new("zip");
        command.current_dir(folder.path()).args(["-q", "-r"]);
        if streamed {
            let output = command.args(["-", "d", "b.txt"]).output().unwrap();
            assert!(output.status.success());
            std::fs::write(&file, output.stdout).unwrap();
        } else {
            assert!(command.args(["x.zip", "d", "b.txt"]).status().unwrap().success());
        }
        let source = Source::open(&file).unwrap();
        assert_eq!(source.members().keys().collect::<Vec<_>>(), ["b.txt", "d/a.txt"]);
        let mut text = String::new();
        source.reader("d/a.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 10_000);
    }
}

#[test]
fn hostile_zips_are_refused_each_with_its_reason() {
    let plain = entry("a", b"1");
    let with = |change: fn(&mut Entry)| {
        let mut one = plain.clone();
        change(&mut one);
        one
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("zip_end_record", b"not a zip at all, but long enough to be one".to_vec()),
        ("zip_end_record", Vec::new()),
        ("zip_end_record", zip(std::slice::from_ref(&plain), b"", b"tail")),
        ("zip_end_record", {
            let mut bytes = zip(std::slice::from_ref(&plain), b"", b"x");
            let length = bytes.len();
            bytes[length - 3] = 1;
            bytes
        }),
        ("zip_overlap", zip(std::slice::from_ref(&plain), b"#!/bin/sh\n", b"")),
        ("zip_name", zip(&[entry("/etc/passwd", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("../a", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("a/../../b", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("a\\b", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("C:a", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("a\nb", b"1")], b"", b"")),
        ("zip_name", zip(&[entry("", b"1")], b"", b"")),
        ("zip_name_collision", zip(&[plain.clone(), plain.clone()], b"", b"")),
        ("zip_name_collision", zip(&[entry("a", b"1"), entry("A", b"2")], b"", b"")),
        ("zip_name_collision", zip(&[entry("a", b"1"), entry("a/b", b"2")], b"", b"")),
        ("zip_name_collision", zip(&[entry("a", b"1"), entry("a/", b"")], b"", b"")),
        ("zip_name_collision", zip(&[entry("a/", b""), entry("A/", b"")], b"", b"")),
        ("zip_link", zip(&[with(|one| one.attributes = 0o120_777 << 16)], b"", b"")),
        ("zip_link", zip(&[with(|one| one.attributes = 0o010_644 << 16)], b"", b"")),
        ("zip_encrypted", zip(&[with(|one| one.flags = 1)], b"", b"")),
        ("zip_method", zip(&[with(|one| one.method = 12)], b"", b"")),
        ("zip_size", zip(&[with(|one| one.bytes = Some(9))], b"", b"")),
        ("zip_local_header", zip(&[with(|one| one.local_name = Some("b".into()))], b"", b"")),
        ("zip_folder", zip(&[entry("a/", b"1")], b"", b"")),
        // Two names for the same bytes.
        ("zip_overlap", {
            let mut second = entry("b", b"1");
            second.header = Some(0);
            second.local_name = Some("a".into());
            zip(&[plain.clone(), second], b"", b"")
        }),
        // A quine-like bomb: the second entry lies inside the first.
        ("zip_overlap", {
            let inner = zip(&[entry("b", b"x")], b"", b"");
            let mut second = entry("b", b"x");
            second.header = Some(31);
            let mut bytes = zip(&[entry("a", &inner), second], b"", b"");
            // Keep the directory's view only.
            bytes.shrink_to_fit();
            bytes
        }),
        ("zip_overlap", {
            let mut far = plain.clone();
            far.header = Some(0x00ff_ffff);
            zip(&[far], b"", b"")
        }),
        ("zip_extra", zip(&[with(|one| one.bytes = Some(u32::MAX))], b"", b"")),
        ("zip_decoded_size", {
            let mut huge = entry("a", &deflated(&[0; 100]));
            huge.method = 8;
            huge.bytes = Some(u32::MAX);
            // A zip64 field that declares 2^44 bytes.
            huge.extra = [
                1_u16.to_le_bytes().to_vec(),
                8_u16.to_le_bytes().to_vec(),
                (1_u64 << 44).to_le_bytes().to_vec(),
            ]
            .concat();
            // The local header has no room for it: use a descriptor-free mismatch only after the size check.
            zip_with_local_extra(&huge)
        }),
        // Content that is not what the directory says.
        ("file_content", zip(&[with(|one| one.crc = Some(7))], b"", b"")),
        ("file_content", {
            let mut bomb = entry("a", &deflated(&vec![0; 1 << 20]));
            bomb.method = 8;
            bomb.bytes = Some(10);
            zip(&[bomb], b"", b"")
        }),
        ("file_content", {
            let mut short = entry("a", &deflated(b"abc"));
            short.method = 8;
            short.bytes = Some(1 << 20);
            zip(&[short], b"", b"")
        }),
        ("file_content", {
            let mut trailing = deflated(b"abc");
            trailing.extend(b"hidden");
            let mut one = entry("a", &trailing);
            one.method = 8;
            one.bytes = Some(3);
            let mut crc = flate2::Crc::new();
            crc.update(b"abc");
            one.crc = Some(crc.sum());
            zip(&[one], b"", b"")
        }),
        ("file_content", {
            let mut broken = entry("a", &[0xff; 20]);
            broken.method = 8;
            broken.bytes = Some(3);
            zip(&[broken], b"", b"")
        }),
    ];
    let mut wrong = Vec::new();
    for (number, (expected, bytes)) in cases.iter().enumerate() {
        let found = check_of(bytes);
        if found != *expected {
            wrong.push(format!("case {number}: expected {expected}, found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// As [`zip`] of one entry, with its extra field in the local header too.
fn zip_with_local_extra(one: &Entry) -> Vec<u8> {
    let plain = zip(std::slice::from_ref(one), b"", b"");
    let at = 30 + one.name.len();
    let mut bytes = plain[..at].to_vec();
    bytes[28..30].copy_from_slice(&(one.extra.len() as u16).to_le_bytes());
    bytes.extend(&one.extra);
    bytes.extend(&plain[at..]);
    // The directory moved.
    let end = bytes.len() - 6;
    let start = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) + one.extra.len() as u32;
    bytes[end..end + 4].copy_from_slice(&start.to_le_bytes());
    bytes
}

#[test]
fn more_entries_than_a_pack_has_are_refused_before_they_are_read() {
    let many: Vec<Entry> = (0..20_001).map(|number| entry(&format!("f{number}"), b"")).collect();
    assert_eq!(check_of(&zip(&many, b"", b"")), "zip_entries");
}

#[test]
fn no_cut_and_no_flipped_byte_of_a_zip_panics_or_passes_unseen() {
    let mut second = entry("b", &deflated(b"some text that is deflated, deflated"));
    second.method = 8;
    second.bytes = Some(36);
    let mut crc = flate2::Crc::new();
    crc.update(b"some text that is deflated, deflated");
    second.crc = Some(crc.sum());
    let good = zip(&[entry("a", b"1"), second], b"", b"");
    assert_eq!(check_of(&good), "none");
    for end in 0..good.len() {
        assert_ne!(check_of(&good[..end]), "none", "cut at {end}");
    }
    let names = |bytes: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.zip");
        std::fs::write(&path, bytes).unwrap();
        Source::open(&path).ok().map(|source| {
            source
                .members()
                .keys()
                .map(|name| (name.clone(), source.read(name, 1000).ok()))
                .collect::<Vec<_>>()
        })
    };
    let content = names(&good);
    for place in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << bit;
            // Either refused, or a field that carries no content (versions, times).
            if check_of(&bytes) == "none" {
                assert_eq!(names(&bytes), content, "byte {place} bit {bit}");
            }
        }
    }
}
