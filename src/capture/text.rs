//! Bytes of the kernel to the text of evidence: paths and endpoints.

use super::raw::{Segment, state};
use super::{PathState, PathValue};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Text that keeps every byte: bytes that are not UTF-8 become `\xNN`, a backslash `\\`.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.push('\\');
            }
            text.push(character);
        }
        for byte in chunk.invalid() {
            let _infallible = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// `base` and the program's string as one absolute path. Empty and `.` components go; `..` stays, because what it means depends on
/// symbolic links. An absolute string starts at `base` too: the root of the process, empty unless it is in a chroot.
fn join(base: &[u8], requested: &[u8]) -> Vec<u8> {
    let mut path = base.to_vec();
    for component in
        requested.split(|byte| *byte == b'/').filter(|component| !matches!(*component, b"" | b"."))
    {
        path.push(b'/');
        path.extend(component);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

fn state_of(bits: u8, plain: PathState) -> PathState {
    if bits & state::ANONYMOUS != 0 {
        PathState::Anonymous
    } else if bits & state::FAULT != 0 {
        PathState::Unreadable
    } else if bits & state::TRUNCATED != 0 {
        PathState::Truncated
    } else if bits & (state::DETACHED | state::FOREIGN) != 0 {
        PathState::Detached
    } else if bits & state::DELETED != 0 {
        PathState::Deleted
    } else {
        plain
    }
}

/// The path of a file that the kernel gave.
#[must_use]
pub fn resolved(file: Segment<'_>, requested: Option<Segment<'_>>) -> PathValue {
    let state = state_of(file.state, PathState::Resolved);
    let value = match state {
        PathState::Unreadable => String::new(),
        PathState::Anonymous => escape(file.bytes),
        _ => escape(&join(file.bytes, b"")),
    };
    let requested = requested
        .filter(|segment| segment.state & state::FAULT == 0)
        .map(|segment| escape(segment.bytes))
        .filter(|text| *text != value);
    PathValue { value, state, requested }
}

/// The path that a program asked for, made absolute against the directory that the kernel would start from.
#[must_use]
pub fn requested(text: Segment<'_>, base: Option<Segment<'_>>) -> PathValue {
    let raw = escape(text.bytes);
    if text.state & state::FAULT != 0 {
        return PathValue { value: String::new(), state: PathState::Unreadable, requested: None };
    }
    let (base_bytes, base_bits) = base.map_or((&b""[..], 0), |base| (base.bytes, base.state));
    // AT_EMPTY_PATH: the directory's descriptor itself is meant.
    let plain = if text.bytes.is_empty() { PathState::Resolved } else { PathState::Requested };
    let mut state = state_of(base_bits | text.state, plain);
    if state == PathState::Unreadable && text.bytes.first() != Some(&b'/') {
        // The descriptor is no file (a failed call): nothing to make it absolute against.
        return PathValue { value: String::new(), state, requested: (!raw.is_empty()).then_some(raw) };
    }
    if state == PathState::Deleted {
        state = PathState::Requested;
    }
    let value = match (state, text.bytes.is_empty()) {
        (PathState::Anonymous, true) => escape(base_bytes),
        _ => escape(&join(base_bytes, text.bytes)),
    };
    let requested = (raw != value && !raw.is_empty()).then_some(raw);
    PathValue { value, state, requested }
}

/// Text of a symbolic link: not a path of this machine until somebody follows it.
#[must_use]
pub fn link_text(text: Segment<'_>) -> PathValue {
    PathValue {
        value: escape(text.bytes),
        state: state_of(text.state, PathState::Requested),
        requested: None,
    }
}

/// An IP peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// IPv4 address and port.
    V4(Ipv4Addr, u16),
    /// IPv6 address and port.
    V6(Ipv6Addr, u16),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::V4(address, port) => write!(f, "{address}:{port}"),
            Peer::V6(address, port) => write!(f, "[{address}]:{port}"),
        }
    }
}

impl Peer {
    /// From an address record: family 4 or 6, the address as the kernel keeps it in memory, the port.
    #[must_use]
    pub fn of_kernel(family: u64, low: u64, high: u64, port: u16) -> Option<Self> {
        match family {
            4 => {
                let [a, b, c, d, ..] = low.to_le_bytes();
                Some(Peer::V4(Ipv4Addr::new(a, b, c, d), port))
            }
            6 => {
                let mut octets = [0; 16];
                octets[..8].copy_from_slice(&low.to_le_bytes());
                octets[8..].copy_from_slice(&high.to_le_bytes());
                Some(Peer::V6(octets.into(), port).canonical())
            }
            _ => None,
        }
    }

    /// An IPv4 peer that an IPv6 socket reaches is the IPv4 peer: the kernel itself goes on with its address.
    fn canonical(self) -> Self {
        match self {
            Peer::V6(address, port) => match address.to_ipv4_mapped() {
                Some(address) => Peer::V4(address, port),
                None => self,
            },
            Peer::V4(..) => self,
        }
    }

    /// From a `struct sockaddr`.
    #[must_use]
    pub fn of_sockaddr(bytes: &[u8]) -> Option<Self> {
        let family = u16::from_le_bytes(*bytes.first_chunk()?);
        let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
        if i32::from(family) == AF_INET {
            Some(Peer::V4(Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?), port))
        } else if i32::from(family) == AF_INET6 {
            Some(Peer::V6(Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?), port).canonical())
        } else {
            None
        }
    }
}

const AF_UNIX: i32 = 1;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// `a.b.c.d:port`, `[v6]:port`, `unix:<path>`, `unix:@<abstract>`, or `family:<n>`; `None` when it can't be decoded.
#[must_use]
pub fn endpoint(sockaddr: &[u8]) -> Option<String> {
    if let Some(peer) = Peer::of_sockaddr(sockaddr) {
        return Some(peer.to_string());
    }
    let family = i32::from(u16::from_le_bytes(*sockaddr.first_chunk()?));
    match family {
        AF_UNIX => Some(match sockaddr.get(2..)? {
            [] => "unix:".to_owned(),
            [0, name @ ..] => format!("unix:@{}", escape(name)),
            path => format!("unix:{}", escape(path.split(|byte| *byte == 0).next().unwrap_or_default())),
        }),
        AF_INET | AF_INET6 => None,
        other => Some(format!("family:{other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::raw::segment;
    use proptest::prelude::*;

    fn seg(kind: u8, state: u8, bytes: &[u8]) -> Segment<'_> {
        Segment { kind, state, bytes }
    }

    #[test]
    fn a_failed_open_is_absolute_against_its_directory_and_keeps_what_was_asked() {
        let base = seg(segment::BASE, 0, b"/work/dir");
        let path = requested(seg(segment::REQUESTED, 0, b"./a//b/../c"), Some(base));
        assert_eq!(path.value, "/work/dir/a/b/../c");
        assert_eq!(path.state, PathState::Requested);
        assert_eq!(path.requested.as_deref(), Some("./a//b/../c"));
        let absolute = requested(seg(segment::REQUESTED, 0, b"/etc/x"), Some(seg(segment::BASE, 0, b"")));
        assert_eq!((absolute.value.as_str(), absolute.requested), ("/etc/x", None));
        let chroot = requested(seg(segment::REQUESTED, 0, b"/etc/x"), Some(seg(segment::BASE, 0, b"/jail")));
        assert_eq!(chroot.value, "/jail/etc/x");
    }

    #[test]
    fn states_that_are_not_plain_are_never_called_resolved() {
        for (bits, expected) in [
            (state::DELETED, PathState::Deleted),
            (state::DETACHED, PathState::Detached),
            (state::FOREIGN, PathState::Detached),
            (state::TRUNCATED | state::DELETED, PathState::Truncated),
            (state::FAULT, PathState::Unreadable),
            (state::ANONYMOUS, PathState::Anonymous),
        ] {
            assert_eq!(resolved(seg(segment::FILE, bits, b"/f"), None).state, expected);
        }
        assert_eq!(resolved(seg(segment::FILE, 0, b""), None).value, "/");
    }

    #[test]
    fn endpoints_of_every_family_read_as_the_contract_says() {
        assert_eq!(
            endpoint(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).as_deref(),
            Some("127.0.0.1:8080")
        );
        let mut v6 = vec![10, 0, 0, 53, 0, 0, 0, 0];
        v6.extend([0; 15]);
        v6.push(1);
        assert_eq!(endpoint(&v6).as_deref(), Some("[::1]:53"));
        assert_eq!(endpoint(b"\x01\x00/run/s\0junk").as_deref(), Some("unix:/run/s"));
        assert_eq!(endpoint(b"\x01\x00\0name").as_deref(), Some("unix:@name"));
        assert_eq!(endpoint(&[16, 0]).as_deref(), Some("family:16"));
        assert_eq!(endpoint(&[2, 0, 1]), None);
        assert_eq!(
            Peer::of_kernel(4, u64::from(u32::from_le_bytes([10, 1, 2, 3])), 0, 9).unwrap().to_string(),
            "10.1.2.3:9"
        );
    }

    proptest! {
        #[test]
        fn two_different_byte_strings_never_read_the_same(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(a == b, escape(&a) == escape(&b));
        }
    }
}
