//! Lines of at most 16 MiB, in bounded memory.

use super::scan::{Found, Scanner};
use crate::files::{Sha256Digest, Sha256Stream};
use std::io::{self, BufRead, BufReader, Read};

/// Longest line, in bytes without its line feed.
pub const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// A buffer above this is given back after its line.
const KEPT_BUFFER: usize = 1024 * 1024;

/// One line, or what is known of one that is too long to hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The bytes as they came, with the line feed; the last line of a stream may have none.
    Whole(&'a [u8]),
    /// Longer than [`LONGEST_LINE`]; it was read to its end and dropped.
    TooLong {
        /// Its length without the line feed.
        bytes: u64,
        /// Digest of its bytes without the line feed.
        digest: Sha256Digest,
        /// What stood at its top level.
        found: Found,
    },
}

/// Splits a stream into lines.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    /// Reads lines from `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, reader), line: Vec::new() }
    }

    /// The next line; `None` at the end of the stream.
    ///
    /// # Errors
    /// What the reader fails with.
    pub fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        self.line.shrink_to(KEPT_BUFFER);
        let mut overflow: Option<(Scanner, Sha256Stream, u64)> = None;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if overflow.is_none() && self.line.len() + part.len() > LONGEST_LINE {
                let mut scanner = Scanner::default();
                scanner.feed(&self.line);
                let mut digest = Sha256Stream::default();
                digest.feed(&self.line);
                overflow = Some((scanner, digest, self.line.len() as u64));
                self.line = Vec::new();
            }
            match &mut overflow {
                Some((scanner, digest, bytes)) => {
                    scanner.feed(part);
                    digest.feed(part);
                    *bytes += part.len() as u64;
                }
                None => self.line.extend_from_slice(part),
            }
            let ended = end.is_some() || chunk.is_empty();
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if !ended {
                continue;
            }
            return Ok(match overflow {
                Some((scanner, digest, bytes)) => {
                    Some(Line::TooLong { bytes, digest: digest.finish(), found: scanner.finish() })
                }
                None => {
                    if end.is_some() {
                        self.line.push(b'\n');
                    }
                    (!self.line.is_empty()).then_some(Line::Whole(&self.line))
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its bytes a few at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn lines_put_together_are_the_stream(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200), step in 1usize..20) {
            let mut lines = Lines::new(Dribble(&bytes, step));
            let mut together = Vec::new();
            while let Some(line) = lines.read().unwrap() {
                let Line::Whole(line) = line else { panic!("too long") };
                prop_assert!(!line[..line.len() - 1].contains(&b'\n'));
                together.extend_from_slice(line);
            }
            prop_assert_eq!(together, bytes);
        }
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_more_byte_does_not() {
        let mut stream = vec![b'x'; LONGEST_LINE];
        stream.push(b'\n');
        stream.extend_from_slice(br#"{"pad":""#);
        stream.resize(stream.len() + LONGEST_LINE, b'y');
        stream.extend_from_slice(b"\",\"id\":3,\"method\":\"m\"}\nend");
        let mut lines = Lines::new(stream.as_slice());
        assert!(matches!(lines.read().unwrap(), Some(Line::Whole(line)) if line.len() == LONGEST_LINE + 1));
        match lines.read().unwrap() {
            Some(Line::TooLong { bytes, digest, found }) => {
                assert_eq!(bytes, LONGEST_LINE as u64 + 30);
                let line = &stream[LONGEST_LINE + 1..stream.len() - 4];
                assert_eq!((line.len() as u64, digest), (bytes, crate::files::sha256(line)));
                assert_eq!((found.id.as_deref(), found.method), (Some("3"), true));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(lines.read().unwrap(), Some(Line::Whole(b"end")));
        assert_eq!(lines.read().unwrap(), None);
    }
}
