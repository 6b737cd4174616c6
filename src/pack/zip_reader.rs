//! Reads a zip file without believing it.
//!
//! General readers forgive: two entries of one name, entries that share bytes, data before the first or after the last
//! entry, a local header that contradicts the directory. Each of those lets two readers see two different packs, so here
//! they are errors: the file must be tiled exactly by its entries, the directory and the end record.

use super::finding::Finding;
use super::names;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// Most entries of a pack.
pub const ENTRIES: u64 = 20_000;
/// Most bytes that all entries together may decode to.
pub const DECODED_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Largest central directory.
const DIRECTORY_BYTES: u64 = 64 * 1024 * 1024;

const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const DESCRIPTOR: [u8; 4] = *b"PK\x07\x08";

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;

/// A regular file in the zip.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u64,
    bytes: u64,
    header: u64,
    data: u64,
}

/// An opened zip whose structure holds. Contents are checked as they are read.
#[derive(Debug)]
pub struct ZipReader {
    file: File,
    entries: BTreeMap<String, Entry>,
}

impl ZipReader {
    /// Reads the directory of `file` and holds it against the local headers.
    ///
    /// # Errors
    /// The first structural thing that is wrong.
    pub fn open(file: File) -> Result<Self, Finding> {
        let end = End::read(&file)?;
        let mut entries = central_directory(&file, &end)?;
        let files =
            entries.iter().filter(|entry| !entry.name.ends_with('/')).map(|entry| entry.name.as_str());
        let folders = entries.iter().filter_map(|entry| entry.name.strip_suffix('/'));
        names::refuse_collisions(files, folders)
            .map_err(|wrong| Finding::new("zip_name_collision", wrong.path, wrong.expected, wrong.found))?;
        tile(&file, &end, &mut entries)?;
        let total: u64 = entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add);
        if total > DECODED_BYTES {
            return Err(Finding::new(
                "zip_decoded_size",
                "zip",
                format!("at most {DECODED_BYTES} bytes when decoded"),
                format!("{total} bytes declared"),
            ));
        }
        let entries = entries
            .into_iter()
            .filter(|entry| !entry.name.ends_with('/'))
            .map(|entry| (entry.name.clone(), entry))
            .collect();
        Ok(Self { file, entries })
    }

    /// Every file and its declared length.
    pub fn members(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.values().map(|entry| (entry.name.as_str(), entry.bytes))
    }

    /// Streams one file; its length and CRC are compared at the end.
    ///
    /// # Errors
    /// `NotFound`; seeking.
    pub fn reader(&self, name: &str) -> io::Result<Box<dyn Read + '_>> {
        let entry = self.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
        let raw = Window { file: &self.file, position: entry.data, left: entry.compressed };
        let raw = BufReader::with_capacity(64 * 1024, raw);
        let body: Box<dyn Read + '_> = if entry.method == STORED {
            Box::new(raw)
        } else {
            Box::new(Inflated { decoder: DeflateDecoder::new(raw), ended: false })
        };
        Ok(Box::new(Checked { body, crc: Crc::new(), left: entry.bytes, expected: entry.crc }))
    }
}

/// A part of the file, read from its own position whatever others read between.
struct Window<'a> {
    file: &'a File,
    position: u64,
    left: u64,
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A deflate stream that must end where its entry ends.
struct Inflated<R: BufRead> {
    decoder: DeflateDecoder<R>,
    ended: bool,
}

impl<R: BufRead> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let count = self.decoder.read(buffer)?;
        if count == 0 {
            self.ended = true;
            if !self.decoder.get_mut().fill_buf()?.is_empty() {
                return Err(invalid("bytes of the entry after the end of its deflate stream"));
            }
        }
        Ok(count)
    }
}

struct Checked<'a> {
    body: Box<dyn Read + 'a>,
    crc: Crc,
    left: u64,
    expected: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.body.read(buffer)?;
        if count == 0 {
            if self.left != 0 {
                return Err(invalid(format!("{} bytes fewer than the directory declares", self.left)));
            }
            if self.crc.sum() != self.expected {
                return Err(invalid(format!(
                    "CRC {:08x} where the directory says {:08x}",
                    self.crc.sum(),
                    self.expected
                )));
            }
            return Ok(0);
        }
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| invalid("more bytes than the directory declares"))?;
        self.crc.update(&buffer[..count]);
        Ok(count)
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Where the directory lies.
struct End {
    entries: u64,
    directory: u64,
    directory_bytes: u64,
    /// Where the first end record begins: the directory must reach exactly to here.
    begins: u64,
}

impl End {
    fn read(file: &File) -> Result<Self, Finding> {
        let length = file.metadata().map_err(|error| unreadable(&error))?.len();
        let wrong = |expected: &str, found: String| Finding::new("zip_end_record", "zip", expected, found);
        if length < 22 {
            return Err(wrong("a zip file", format!("{length} bytes")));
        }
        let place = length - 22;
        let record = at(file, place, 22)?;
        if record[..4] != END || u16_at(&record, 20) != 0 {
            return Err(wrong(
                "the end record as the last 22 bytes, without a comment",
                "something else there".to_owned(),
            ));
        }
        if u16_at(&record, 4) != 0 || u16_at(&record, 6) != 0 || u16_at(&record, 8) != u16_at(&record, 10) {
            return Err(wrong("a zip in one part", "a part of several".to_owned()));
        }
        let (entries, bytes, start) =
            (u64::from(u16_at(&record, 10)), u64::from(u32_at(&record, 12)), u64::from(u32_at(&record, 16)));
        let needs64 = entries == 0xffff || bytes == 0xffff_ffff || start == 0xffff_ffff;
        let end = if needs64 {
            Self::read64(file, place)?
        } else {
            Self { entries, directory: start, directory_bytes: bytes, begins: place }
        };
        if end.entries > ENTRIES {
            return Err(Finding::new(
                "zip_entries",
                "zip",
                format!("at most {ENTRIES} entries"),
                end.entries.to_string(),
            ));
        }
        if end.directory_bytes > DIRECTORY_BYTES
            || end.directory.checked_add(end.directory_bytes) != Some(end.begins)
        {
            return Err(wrong(
                "the directory right before the end record",
                format!("{} bytes at {}", end.directory_bytes, end.directory),
            ));
        }
        Ok(end)
    }

    fn read64(file: &File, place: u64) -> Result<Self, Finding> {
        let wrong =
            |found: &str| Finding::new("zip_end_record", "zip", "a zip64 end record and its locator", found);
        let locator_at = place.checked_sub(20).ok_or_else(|| wrong("no room for them"))?;
        let locator = at(file, locator_at, 20)?;
        if locator[..4] != LOCATOR64 || u32_at(&locator, 4) != 0 || u32_at(&locator, 16) != 1 {
            return Err(wrong("no locator"));
        }
        let begins = u64_at(&locator, 8);
        if begins.checked_add(56) != Some(locator_at) {
            return Err(wrong("a gap or an extension between them"));
        }
        let record = at(file, begins, 56)?;
        if record[..4] != END64
            || u64_at(&record, 4) != 44
            || u32_at(&record, 16) != 0
            || u32_at(&record, 20) != 0
            || u64_at(&record, 24) != u64_at(&record, 32)
        {
            return Err(wrong("another record"));
        }
        Ok(Self {
            entries: u64_at(&record, 32),
            directory_bytes: u64_at(&record, 40),
            directory: u64_at(&record, 48),
            begins,
        })
    }
}

fn central_directory(file: &File, end: &End) -> Result<Vec<Entry>, Finding> {
    let bytes = at(file, end.directory, usize::try_from(end.directory_bytes).unwrap_or(usize::MAX))?;
    let mut entries = Vec::new();
    let mut rest = bytes.as_slice();
    let wrong = |found: String| {
        Finding::new("zip_directory", "zip", "a whole directory record for each entry", found)
    };
    for number in 0..end.entries {
        if rest.len() < 46 || rest[..4] != CENTRAL {
            return Err(wrong(format!("none for entry {number}")));
        }
        let (name_bytes, extra_bytes, comment) =
            (usize::from(u16_at(rest, 28)), usize::from(u16_at(rest, 30)), usize::from(u16_at(rest, 32)));
        let total = 46 + name_bytes + extra_bytes + comment;
        if rest.len() < total {
            return Err(wrong(format!("a cut one for entry {number}")));
        }
        let name = std::str::from_utf8(&rest[46..46 + name_bytes]).map_err(|_| {
            Finding::new("zip_name", "zip", "names in UTF-8", format!("entry {number} with other bytes"))
        })?;
        let extra = &rest[46 + name_bytes..46 + name_bytes + extra_bytes];
        entries.push(entry(name, rest, extra)?);
        rest = &rest[total..];
    }
    if rest.is_empty() { Ok(entries) } else { Err(wrong(format!("{} bytes after the last", rest.len()))) }
}

fn entry(name: &str, record: &[u8], extra: &[u8]) -> Result<Entry, Finding> {
    let folder = name.ends_with('/');
    names::check(name.strip_suffix('/').unwrap_or(name))
        .map_err(|wrong| Finding::new("zip_name", wrong.path, wrong.expected, wrong.found))?;
    let flags = u16_at(record, 8);
    let method = u16_at(record, 10);
    let mut sizes =
        [u64::from(u32_at(record, 24)), u64::from(u32_at(record, 20)), u64::from(u32_at(record, 42))];
    wide(name, extra, &mut sizes)?;
    let [bytes, compressed, header] = sizes;
    if flags & FLAG_ENCRYPTED != 0 {
        return Err(Finding::new("zip_encrypted", name, "a plain entry", "an encrypted one"));
    }
    if method != STORED && method != DEFLATED {
        return Err(Finding::new(
            "zip_method",
            name,
            "a stored or deflated entry",
            format!("method {method}"),
        ));
    }
    if method == STORED && bytes != compressed {
        return Err(Finding::new(
            "zip_size",
            name,
            "a stored entry of one size",
            format!("{compressed} and {bytes} bytes"),
        ));
    }
    // The upper half of the external attributes is the Unix mode, when the writer set one.
    let kind = (u32_at(record, 38) >> 16) & 0o170_000;
    if !(kind == 0 || kind == 0o100_000 || (folder && kind == 0o040_000)) {
        let found =
            if kind == 0o120_000 { "a symbolic link".to_owned() } else { format!("file type {kind:o}") };
        return Err(Finding::new("zip_link", name, "a regular file or a folder", found));
    }
    if folder && bytes != 0 {
        return Err(Finding::new("zip_folder", name, "a folder without content", format!("{bytes} bytes")));
    }
    Ok(Entry {
        name: name.to_owned(),
        flags,
        method,
        crc: u32_at(record, 16),
        compressed,
        bytes,
        header,
        data: 0,
    })
}

/// Replaces each size that is all ones by its 64-bit value, in the order of the zip64 field.
fn wide(name: &str, extra: &[u8], sizes: &mut [u64; 3]) -> Result<(), Finding> {
    let wrong =
        |found: &str| Finding::new("zip_extra", name, "a whole zip64 field for a size above 4 GiB", found);
    let mut field = None;
    let mut rest = extra;
    while rest.len() >= 4 {
        let length = usize::from(u16_at(rest, 2));
        let body = rest.get(4..4 + length).ok_or_else(|| wrong("a cut extra field"))?;
        if u16_at(rest, 0) == 1 && field.replace(body).is_some() {
            return Err(wrong("two of them"));
        }
        rest = &rest[4 + length..];
    }
    let mut values = field.unwrap_or_default().chunks_exact(8);
    for size in sizes.iter_mut().filter(|size| **size == 0xffff_ffff) {
        *size = u64_at(values.next().ok_or_else(|| wrong("none"))?, 0);
    }
    Ok(())
}

/// Finds each entry's data, and refuses bytes that belong to two entries or to none.
fn tile(file: &File, end: &End, entries: &mut [Entry]) -> Result<(), Finding> {
    entries.sort_by_key(|entry| entry.header);
    for index in 0..entries.len() {
        let next = entries.get(index + 1).map_or(end.directory, |entry| entry.header);
        let previous_ends_here = index > 0 || entries[0].header == 0;
        let entry = &mut entries[index];
        let overlap = |found: String| {
            Finding::new(
                "zip_overlap",
                entry.name.clone(),
                "entries side by side, from the first byte on",
                found,
            )
        };
        if !previous_ends_here {
            return Err(overlap(format!("{} bytes before the first", entry.header)));
        }
        let local = at(file, entry.header, 30).map_err(|_| overlap("a header behind the end".to_owned()))?;
        let differs = |what: &str| {
            Finding::new(
                "zip_local_header",
                entry.name.clone(),
                "a local header that agrees with the directory",
                what.to_owned(),
            )
        };
        if local[..4] != LOCAL {
            return Err(differs("none"));
        }
        let name_bytes = usize::from(u16_at(&local, 26));
        let extra_bytes = usize::from(u16_at(&local, 28));
        let tail = at(file, entry.header + 30, name_bytes + extra_bytes)
            .map_err(|_| overlap("a cut header".to_owned()))?;
        if tail[..name_bytes] != *entry.name.as_bytes() {
            return Err(differs("another name"));
        }
        if u16_at(&local, 8) != entry.method || u16_at(&local, 6) != entry.flags {
            return Err(differs("another method or other flags"));
        }
        let described = entry.flags & FLAG_DESCRIPTOR != 0;
        if !described {
            let mut sizes = [u64::from(u32_at(&local, 22)), u64::from(u32_at(&local, 18)), 0];
            wide(&entry.name, &tail[name_bytes..], &mut sizes)?;
            if sizes[0] != entry.bytes || sizes[1] != entry.compressed || u32_at(&local, 14) != entry.crc {
                return Err(differs("another size or CRC"));
            }
        }
        entry.data = entry.header + 30 + (name_bytes + extra_bytes) as u64;
        let stops = entry.data.checked_add(entry.compressed).filter(|stops| *stops <= next);
        let Some(gap) = stops.map(|stops| next - stops) else {
            return Err(overlap("its bytes reach into what follows".to_owned()));
        };
        if !(gap == 0 && !described || described && is_descriptor(file, next - gap, gap, entry)?) {
            return Err(overlap(format!("{gap} bytes that belong to no entry after it")));
        }
    }
    Ok(())
}

/// Whether the `gap` bytes at `place` are this entry's data descriptor, in one of its four forms.
fn is_descriptor(file: &File, place: u64, gap: u64, entry: &Entry) -> Result<bool, Finding> {
    if !matches!(gap, 12 | 16 | 20 | 24) {
        return Ok(false);
    }
    let found = at(file, place, usize::try_from(gap).unwrap_or_default())?;
    let body =
        if matches!(gap, 16 | 24) { found.strip_prefix(&DESCRIPTOR).unwrap_or_default() } else { &found };
    let mut expected = entry.crc.to_le_bytes().to_vec();
    for size in [entry.compressed, entry.bytes] {
        let bytes = size.to_le_bytes();
        expected.extend_from_slice(if gap >= 20 { &bytes } else { &bytes[..4] });
    }
    Ok(body == expected)
}

fn at(file: &File, place: u64, length: usize) -> Result<Vec<u8>, Finding> {
    let mut bytes = vec![0; length];
    let mut file = file;
    file.seek(SeekFrom::Start(place))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> Finding {
    Finding::new("zip_cut", "zip", "a whole, readable zip file", error.to_string())
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_le_bytes([bytes[place], bytes[place + 1]])
}

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from(u16_at(bytes, place)) | u32::from(u16_at(bytes, place + 2)) << 16
}

fn u64_at(bytes: &[u8], place: usize) -> u64 {
    u64::from(u32_at(bytes, place)) | u64::from(u32_at(bytes, place + 4)) << 32
}
