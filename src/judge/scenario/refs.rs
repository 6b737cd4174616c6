//! References from a row to a record inside the pack.

use crate::error::{Code, Error, Result};
use serde_json::Value;
use std::fmt;

/// `path#seq=N` (the record of an NDJSON file) or `path#/json/pointer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRef {
    /// `payload/…` from the top of the pack, or a file name in the folder of the row itself.
    pub path: String,
    /// What in the file.
    pub record: Record,
}

/// What in a file a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The line whose `seq` it is.
    Seq(u64),
    /// A JSON pointer.
    Pointer(String),
}

impl EvidenceRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// `EvidenceRefInvalid` for any other form, and for paths that are absolute or climb.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(
                Code::EvidenceRefInvalid,
                format!("expected path#seq=N or path#/pointer, found {text:?}"),
            )
        };
        let (path, record) = text.split_once('#').ok_or_else(wrong)?;
        let plain = !path.is_empty()
            && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
            && !path.contains('\\');
        let record = match record.strip_prefix("seq=") {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Record::Seq(digits.parse().map_err(|_| wrong())?)
            }
            Some(_) => return Err(wrong()),
            None if record.starts_with('/') => Record::Pointer(record.to_owned()),
            None => return Err(wrong()),
        };
        if plain { Ok(Self { path: path.to_owned(), record }) } else { Err(wrong()) }
    }

    /// The record, in the bytes of the file that `path` names.
    ///
    /// # Errors
    /// `EvidenceRefInvalid` when the file holds no such record, or not exactly one.
    pub fn find_in(&self, bytes: &[u8]) -> Result<Value> {
        let missing = |why: String| Error::new(Code::EvidenceRefInvalid, why).at(self);
        let json = |bytes: &[u8]| -> Result<Value> {
            serde_json::from_slice(bytes).map_err(|error| missing(format!("expected JSON: {error}")))
        };
        match &self.record {
            Record::Pointer(pointer) => json(bytes)?
                .pointer(pointer)
                .filter(|value| !value.is_null())
                .cloned()
                .ok_or_else(|| missing("the file has no such record".to_owned())),
            Record::Seq(seq) => {
                let mut found = Vec::new();
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let record = json(line)?;
                    if record.get("seq").and_then(Value::as_u64) == Some(*seq) {
                        found.push(record);
                    }
                }
                match (found.pop(), found.is_empty()) {
                    (Some(record), true) => Ok(record),
                    (None, _) => Err(missing("the file has no such record".to_owned())),
                    (Some(_), false) => Err(missing("the file has several such records".to_owned())),
                }
            }
        }
    }
}

impl fmt::Display for EvidenceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Record::Seq(seq) => write!(f, "{}#seq={seq}", self.path),
            Record::Pointer(pointer) => write!(f, "{}#{pointer}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_back_as_they_are_written() {
        for text in
            ["payload/gates/g/run-1/extract/layers/kernel.ndjson#seq=1", "proof-pack-reference.json#/a/0"]
        {
            assert_eq!(EvidenceRef::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_forms_and_paths_that_leave_the_pack_are_refused() {
        for text in [
            "",
            "a",
            "a#",
            "a#seq=",
            "a#seq=x",
            "a#seq=-1",
            "a#b",
            "/a#seq=1",
            "../a#seq=1",
            "a//b#/c",
            "a/./b#/c",
            "a\\b#/c",
        ] {
            assert!(EvidenceRef::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reference_resolves_to_exactly_one_record() {
        let lines = b"{\"seq\":0,\"a\":1}\n{\"seq\":1}\n{\"seq\":1}\n";
        let find = |text: &str, bytes: &[u8]| EvidenceRef::parse(text).unwrap().find_in(bytes);
        assert_eq!(find("f#seq=0", lines).unwrap()["a"], 1);
        assert!(find("f#seq=1", lines).is_err());
        assert!(find("f#seq=2", lines).is_err());
        assert_eq!(find("f#/a/1", b"{\"a\":[1,2]}").unwrap(), 2);
        assert!(find("f#/a/2", b"{\"a\":[1,2]}").is_err());
        assert!(find("f#/a", b"{\"a\":null}").is_err());
        assert!(find("f#/a", b"no json").is_err());
    }
}
