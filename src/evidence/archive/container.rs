//! The container of an archive, read from hostile bytes: gzip and tar, exactly as the contract allows them.

use super::examine::Finding;
use super::member;
use flate2::bufread::GzDecoder;
use std::collections::BTreeMap;
use std::io::Read;

/// Longest source file.
pub const MAX_SOURCE: u64 = 100 * 1024 * 1024;
/// Longest content after decompression.
const MAX_DECODED: u64 = 1024 * 1024 * 1024;
/// Longest `.json` member.
const MAX_JSON: u64 = 10 * 1024 * 1024;
/// Longest other member.
const MAX_OTHER: u64 = 100 * 1024 * 1024;
const BLOCK: usize = 512;

type Member = (&'static str, Vec<u8>);

/// The members of a container, or the first thing that is wrong with it.
///
/// Stops there, since bytes after a broken header mean nothing.
pub fn open(source: &[u8]) -> Result<BTreeMap<&'static str, Vec<u8>>, Finding> {
    if source.len() as u64 > MAX_SOURCE {
        return Err(fault("archive", format!("at most {MAX_SOURCE} bytes"), source.len()));
    }
    let mut reader = Reader { gzip: GzDecoder::new(source), decoded: 0 };
    let mut members: BTreeMap<&'static str, Vec<u8>> = BTreeMap::new();
    loop {
        let Some(header) = reader.block()? else {
            return Err(fault("archive", "two zero blocks at the end", "the end after a member"));
        };
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let place = members.len() + 1;
        let (path, bytes) = reader.member(&header, place, &members)?;
        members.insert(path, bytes);
    }
    for path in member::ALL {
        if !members.contains_key(path) {
            return Err(fault(path, "all eight members", "it missing"));
        }
    }
    reader.end()?;
    let rest = reader.gzip.into_inner();
    if !rest.is_empty() {
        return Err(fault("archive", "nothing after the gzip stream", format!("{} bytes", rest.len())));
    }
    Ok(members)
}

struct Reader<'a> {
    gzip: GzDecoder<&'a [u8]>,
    decoded: u64,
}

impl Reader<'_> {
    /// The next block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Finding> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.gzip.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(fault("archive", "whole blocks of 512 bytes", format!("{filled} bytes")));
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault("archive", "a whole gzip stream", error)),
            }
        }
        self.decoded += BLOCK as u64;
        if self.decoded > MAX_DECODED {
            return Err(fault("archive", format!("at most {MAX_DECODED} bytes decoded"), "more"));
        }
        Ok(Some(block))
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK],
        place: usize,
        earlier: &BTreeMap<&'static str, Vec<u8>>,
    ) -> Result<Member, Finding> {
        let (path, size) = parse_header(header, place)?;
        if earlier.contains_key(path) {
            return Err(fault(path, "each member once", "it a second time"));
        }
        if let Some(expected) = member::ALL.get(place - 1)
            && *expected != path
        {
            return Err(fault(path, format!("member {place} to be {expected}"), path));
        }
        let limit = if path.ends_with(".json") { MAX_JSON } else { MAX_OTHER };
        if size > limit {
            return Err(fault(path, format!("at most {limit} bytes"), size));
        }
        let mut bytes = Vec::new();
        let mut left = size as usize;
        while left > 0 {
            let Some(block) = self.block()? else {
                return Err(fault(path, format!("{size} bytes"), format!("the end {left} bytes before")));
            };
            let used = left.min(BLOCK);
            bytes.extend_from_slice(&block[..used]);
            if block[used..].iter().any(|byte| *byte != 0) {
                return Err(fault(path, "zeros after the content", "other bytes"));
            }
            left -= used;
        }
        Ok((path, bytes))
    }

    /// After the first zero block: at least one more, nothing but zeros, to the checked end of the stream.
    fn end(&mut self) -> Result<(), Finding> {
        let mut blocks = 0_u64;
        while let Some(block) = self.block()? {
            if block.iter().any(|byte| *byte != 0) {
                return Err(fault("archive", "only zeros after the last member", "other bytes"));
            }
            blocks += 1;
        }
        if blocks == 0 {
            return Err(fault("archive", "two zero blocks at the end", "one"));
        }
        Ok(())
    }
}

fn parse_header(header: &[u8; BLOCK], place: usize) -> Result<(&'static str, u64), Finding> {
    let at = format!("member {place}");
    let name = &header[..100];
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(100);
    if name[length..].iter().any(|byte| *byte != 0) {
        return Err(fault(&at, "a path ended by zeros", "bytes after its end"));
    }
    let shown = String::from_utf8_lossy(&name[..length]).escape_debug().to_string();
    let Some(path) = member::ALL.into_iter().find(|known| known.as_bytes() == &name[..length]) else {
        return Err(fault(&at, "one of the eight member paths", shown));
    };
    let kind = header[156];
    if kind != b'0' && kind != 0 {
        return Err(fault(path, "a plain file", format!("type {:?}", char::from(kind))));
    }
    if header[157..257].iter().any(|byte| *byte != 0) {
        return Err(fault(path, "no link name", "one"));
    }
    if header[345..].iter().any(|byte| *byte != 0) {
        return Err(fault(path, "zeros from byte 345 of the header", "other bytes"));
    }
    let expected: u32 = header
        .iter()
        .enumerate()
        .map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u32::from(*byte) })
        .sum();
    let text = String::from_utf8_lossy(&header[148..156]);
    let found = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok();
    if found != Some(expected) {
        return Err(fault(path, format!("header checksum {expected:o}"), text.trim_matches(['\0', ' '])));
    }
    let size = &header[124..136];
    let digits =
        std::str::from_utf8(&size[..11]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| u64::from_str_radix(text, 8).ok()) {
        Some(size_in_bytes) if size[11] == 0 || size[11] == b' ' => Ok((path, size_in_bytes)),
        _ => Err(fault(
            path,
            "a size of eleven octal digits, then NUL or space",
            String::from_utf8_lossy(size).escape_debug(),
        )),
    }
}

fn fault(place: &str, expected: impl Into<String>, found: impl std::fmt::Display) -> Finding {
    Finding { place: place.to_owned(), expected: expected.into(), found: found.to_string() }
}
