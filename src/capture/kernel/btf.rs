//! What the kernel's BTF says of a tracepoint: the arguments that its programs are given.
//!
//! Names of types stay when their meaning changes, and a program that takes a number for a pointer loads and reads garbage; so a program
//! is chosen by the types of the arguments, before the kernel is asked to load it. Format: Linux, `Documentation/bpf/btf.rst`.

use crate::error::{Code, Error, Result};
use std::path::Path;

/// The running kernel's types.
pub(super) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const INT: u32 = 1;
const POINTER: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const QUALIFIERS: [u32; 4] = [9, 10, 11, 18]; // volatile, const, restrict, type tag
const PROTOTYPE: u32 = 13;
const ENUM64: u32 = 19;

/// One argument of a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// A pointer to a struct of that name.
    To(String),
    /// A pointer to something else, mostly `void`.
    Pointer,
    /// A number of any width.
    Number,
    /// A struct by value, or what this reader does not know.
    Other,
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::To(name) => write!(f, "{name} *"),
            Self::Pointer => f.write_str("pointer"),
            Self::Number => f.write_str("number"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// Types, by number.
pub(super) struct Types {
    data: Vec<u8>,
    strings: usize,
    /// Where each type begins in `data`; number 0 is `void`, which stands nowhere.
    at: Vec<usize>,
}

impl Types {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let data = std::fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
        Self::parse(data).ok_or_else(|| Error::new(Code::CaptureLoad, "expected BTF").at(path.display()))
    }

    fn parse(data: Vec<u8>) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
        if word(0)? & 0xffff != u32::from(MAGIC) {
            return None;
        }
        let header = word(4)? as usize;
        let (begin, length) = (header + word(8)? as usize, word(12)? as usize);
        let strings = header + word(16)? as usize;
        let mut at = vec![0];
        let mut next = begin;
        while next < begin + length {
            at.push(next);
            let info = word(next + 4)?;
            let count = (info & 0xffff) as usize;
            next += 12
                + match info >> 24 & 0x1f {
                    INT | 14 | 17 => 4,
                    3 => 12,
                    STRUCT | UNION | 15 | ENUM64 => 12 * count,
                    ENUM | PROTOTYPE => 8 * count,
                    _ => 0,
                };
        }
        Some(Self { strings, at, data })
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.data.get(at..)?.first_chunk()?))
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.data.get(self.strings + offset as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }

    /// Kind, name and the third word (size, or number of another type) of a type.
    fn type_of(&self, number: u32) -> Option<(u32, u32, u32)> {
        let at = *self.at.get(number as usize).filter(|at| **at != 0)?;
        Some((self.word(at + 4)? >> 24 & 0x1f, self.word(at)?, self.word(at + 8)?))
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, mut number: u32) -> Option<(u32, u32, u32)> {
        for _ in 0..32 {
            let found = self.type_of(number)?;
            if found.0 != TYPEDEF && !QUALIFIERS.contains(&found.0) {
                return Some(found);
            }
            number = found.2;
        }
        None
    }

    fn argument(&self, number: u32) -> Argument {
        match self.plain(number) {
            Some((INT | ENUM | ENUM64, ..)) => Argument::Number,
            Some((POINTER, _, target)) => match self.plain(target) {
                Some((STRUCT, name, _)) => {
                    let name = self.name(name).unwrap_or_default();
                    Argument::To(String::from_utf8_lossy(name).into_owned())
                }
                _ => Argument::Pointer,
            },
            _ => Argument::Other,
        }
    }

    /// Arguments of each of the tracepoints named that this kernel has. One walk over all types.
    pub(super) fn tracepoints<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Vec<Argument>)> {
        let numbers = 1..u32::try_from(self.at.len()).unwrap_or(0);
        let mut found = Vec::new();
        for (kind, name, target) in numbers.filter_map(|number| self.type_of(number)) {
            if kind != TYPEDEF {
                continue;
            }
            let tracepoint = self.name(name).and_then(|name| name.strip_prefix(b"btf_trace_"));
            let Some(name) =
                tracepoint.and_then(|name| names.iter().find(|wanted| wanted.as_bytes() == name))
            else {
                continue;
            };
            if let Some(arguments) = self.prototype(target) {
                found.push((*name, arguments));
            }
        }
        found
    }

    /// Arguments behind a pointer to a function; the first, which is the tracepoint's own, is left out.
    fn prototype(&self, pointer: u32) -> Option<Vec<Argument>> {
        let (POINTER, _, function) = self.plain(pointer)? else { return None };
        let at = *self.at.get(function as usize)?;
        let info = self.word(at + 4)?;
        if info >> 24 & 0x1f != PROTOTYPE {
            return None;
        }
        let parameter = |index: usize| Some(self.argument(self.word(at + 12 + 8 * index + 4)?));
        (1..(info & 0xffff) as usize).map(parameter).collect()
    }
}
